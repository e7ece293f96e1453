"""Answers read from a run's files: the columns of all components, the card of one, searches, the training curve."""

import json
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import groupby
from pathlib import Path

import numpy as np

from microtome.browser.passages import Passages
from microtome.browser.replies import (
    ComponentCard,
    Components,
    Curve,
    Found,
    Group,
    Logit,
    Neighbour,
    RunCard,
    RunPage,
    Said,
    Shown,
)
from microtome.browser.runs import FoundRun, NotYet
from microtome.store.catalog import Catalog, Column, exemplar_groups
from microtome.store.notes import Explanation, Notes

LONGEST_CURVE = 1000
COLUMNS = {
    "count", "sum", "max", "density", "histogram", "exemplars", "logits_top", "logits_top_value", "logits_bottom",
    "logits_bottom_value", "neighbours", "neighbour_cosine",
}  # fmt: skip
WHITESPACE = str.maketrans({"↵": "\n", "⇥": "\t", "·": " ", "␣": " "})


class Opened:
    """A run's catalogue and notes, opened once and kept until the catalogue is written anew."""

    def __init__(self, run: FoundRun) -> None:
        self.run, self.catalog, self.written = run, run.catalog(), run.written
        if missing := COLUMNS - set(self.catalog.components):
            raise NotYet(f"The catalogue of {run.name} lacks {', '.join(sorted(missing))}; write it again.")

    @cached_property
    def peaks(self) -> np.ndarray:
        """The token id under every exemplar (components, slots); -1 for an empty slot."""
        return peak_ids(self.catalog)

    @property
    def notes(self) -> Notes | None:
        """The explanations, or None where nothing has been explained yet (opening would create an empty file)."""
        path = self.run.folder / "catalog" / "notes.sqlite"
        return Notes(path) if path.is_file() else None

    def components(self) -> Components:
        rows, best = self.catalog.components, self.notes.best() if self.notes else {}
        said = [best.get(component) for component in range(len(self.catalog))]
        position = self.catalog.position
        return Components(
            density=numbers(rows["density"]), max=numbers(rows["max"]), mean=numbers(means(rows)),
            score=[finite(one.score) if one else None for one in said],
            explanation=[one.text if one else None for one in said],
            peak=[int(token) if token >= 0 else None for token in self.peaks[:, 0]],
            x=numbers_or_none(position[:, 0]), y=numbers_or_none(position[:, 1]),
        )  # fmt: skip

    def card(self, component: int) -> ComponentCard:
        """Everything for one component's page. Raises IndexError outside the dictionary."""
        column, rows = self.catalog.column(component), self.catalog.components
        notes = self.notes
        return ComponentCard(
            component=component, count=int(rows["count"][component]), density=float(rows["density"][component]),
            max=float(rows["max"][component]), mean=float(means(rows)[component]),
            histogram=rows["histogram"][component].tolist(),
            histogram_end=float(rows.get("histogram_end", rows["max"])[component]),  # older ones end at the maximum
            explanations=[said(one) for one in notes.of(component)] if notes else [],
            groups=self.groups(column, rows["exemplars"][component]),
            promoted=logits(rows["logits_top"][component], rows["logits_top_value"][component]),
            suppressed=logits(rows["logits_bottom"][component], rows["logits_bottom_value"][component]),
            neighbours=self.neighbours(component, notes),
        )  # fmt: skip

    def groups(self, column: Column, exemplars: np.ndarray) -> list[Group]:
        placed = [(group, int(token)) for group, token in zip(exemplar_groups(), exemplars, strict=True) if token >= 0]
        together = groupby(placed, key=lambda pair: pair[0])
        return [Group(name=name, examples=[self.shown(column, t) for _, t in pairs]) for name, pairs in together]

    def shown(self, column: Column, token: int) -> Shown:
        context, windows = self.catalog.context, self.catalog.windows
        window, position = divmod(token, context)
        first, last = np.searchsorted(column.token, [window * context, (window + 1) * context])
        return Shown(
            window=window,
            position=position,
            document=self.catalog.manifest["documents"][int(windows["document"][window])],
            tokens=windows["tokens"][window].tolist(),
            at=(column.token[first:last].astype(np.int64) - window * context).tolist(),
            values=numbers(column.value[first:last]),
        )

    def neighbours(self, component: int, notes: Notes | None) -> list[Neighbour]:
        rows = self.catalog.components
        pairs = zip(rows["neighbours"][component].tolist(), rows["neighbour_cosine"][component].tolist(), strict=True)
        near = {other: cosine for other, cosine in pairs if 0 <= other < len(self.catalog) and other != component}
        best = notes.best(list(near)) if notes else {}
        return [neighbour(other, cosine, best.get(other)) for other, cosine in near.items()]

    def search_words(self, words: str, limit: int = 2000) -> Found:
        """Components whose explanations hold these words, best match first, each once."""
        said = self.notes.search(words, limit) if self.notes else []
        components = list(dict.fromkeys(one.component for one in said))
        return Found(components=components, weight=[1] * len(components), total=len(components))

    def search_example(self, text: str, limit: int = 200) -> Found:
        """Components that are active on a passage wherever the catalogue's text holds it, the most telling first.

        The weight of a component is the sum over places of its activation there as a share of its maximum.
        """
        tokens = self.passages.places(text)
        weight = self.catalog.active_at(tokens)
        order = np.argsort(-weight, kind="stable")[: min(limit, int((weight > 0).sum()))]
        return Found(components=order.tolist(), weight=[finite(w) or 0.0 for w in weight[order].tolist()],
                     total=int((weight > 0).sum()))  # fmt: skip

    @cached_property
    def passages(self) -> Passages:
        """Where the catalogue's text holds which words."""
        return Passages(self.catalog)

    def search_token(self, text: str) -> Found:
        """Components whose exemplars peak on a token with this text, most exemplars first.

        Spaces around a token do not count, unless the text is nothing but whitespace (↵ ⇥ · stand for it).
        """
        ids = token_ids(self.catalog.vocabulary, text)
        weight = np.isin(self.peaks, ids).sum(axis=1)
        order = np.argsort(-weight, kind="stable")[: int((weight > 0).sum())]
        return Found(components=order.tolist(), weight=weight[order].tolist(), total=len(order))


def peak_ids(catalog: Catalog) -> np.ndarray:
    """The token id under every exemplar (components, slots); -1 for an empty slot."""
    exemplars = catalog.components["exemplars"]
    ids = catalog.windows["tokens"].reshape(-1).astype(np.int64)[np.clip(exemplars, 0, None)]
    return np.where(exemplars >= 0, ids, -1)


def means(rows: Mapping[str, np.ndarray]) -> np.ndarray:
    """The mean activation where it is active; 0 for a component that never was."""
    return rows["sum"] / np.maximum(rows["count"], 1)


def token_ids(vocabulary: Sequence[str], text: str) -> list[int]:
    wanted = text.translate(WHITESPACE)
    if wanted.strip():
        return [id for id, token in enumerate(vocabulary) if token.strip() == wanted.strip()]
    return [id for id, token in enumerate(vocabulary) if token == wanted]


def logits(tokens: np.ndarray, values: np.ndarray) -> list[Logit]:
    pairs = zip(tokens.tolist(), values.tolist(), strict=True)
    return [Logit(token=token, value=finite(value)) for token, value in pairs if token >= 0]


def neighbour(component: int, cosine: float, best: Explanation | None) -> Neighbour:
    text, score = (best.text, finite(best.score)) if best else (None, None)
    return Neighbour(component=component, cosine=finite(cosine), explanation=text, score=score)


def said(one: Explanation) -> Said:
    figures = {name: finite(getattr(one, name)) for name in ("score", "low", "high", "chance", "baseline")}
    counts = {"positives": one.positives, "negatives": one.negatives}
    return Said(method=one.method, text=one.text, evidence=dict(one.evidence), **figures, **counts)


def run_card(run: FoundRun) -> RunCard:
    asked, explained = run.run, 0
    try:
        components = len(run.catalog()) if run.has_catalog else None
    except NotYet:
        components = None
    if components is not None and (notes := run.folder / "catalog" / "notes.sqlite").is_file():
        explained = Notes(notes).count()
    return RunCard(
        id=run.id, name=run.name, state=run.state, message=run.message, components=components, explained=explained,
        model=asked.model if asked else "", site=asked.site if asked else "", command=asked.command if asked else "",
        shows=run.shows, created=asked.created if asked else "", stage=asked.stage if asked else None,
        arguments=asked.arguments if asked else {}, summary=run.summary,
    )  # fmt: skip


def run_page(run: FoundRun, opened: Opened | None) -> RunPage:
    catalog = opened.catalog if opened else None
    return RunPage(
        card=run_card(run),
        training=training(run.folder / "training.jsonl") if run.leads_out is None else Curve(steps=[], columns={}),
        text=catalog.manifest.get("text", "") if catalog else "",
        documents=len(catalog.manifest["documents"]) if catalog else 0,
        context=catalog.context if catalog else 0,
        tokens_seen=catalog.tokens_seen if catalog else 0,
        catalog=str(opened.written) if opened else "",
    )


def training(path: Path) -> Curve:
    """The training log, thinned to at most LONGEST_CURVE rows; a line that was cut off is left out."""
    rows = [parsed(line) for line in path.read_text().splitlines()] if path.is_file() else []
    whole = [row for row in rows if isinstance(row.get("step"), int)]
    stride = math.ceil(len(whole) / LONGEST_CURVE) or 1
    kept = whole[::-1][::stride][::-1]  # counted from the end, so that the last step is always there
    names = sorted({name for row in kept for name in row if name != "step" and is_number(row[name])})
    columns = {name: [finite(row[name]) if is_number(row.get(name)) else None for row in kept] for name in names}
    return Curve(steps=[row["step"] for row in kept], columns=columns)


def parsed(line: str) -> dict:
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def finite(value: float | int | None) -> float | None:
    """The number to seven digits, or None where it is not one: JSON has no NaN."""
    return float(f"{value:.7g}") if value is not None and math.isfinite(value) else None


def numbers(values: np.ndarray) -> list[float]:
    """The values to seven digits; what is not a number counts as 0."""
    return [finite(value) or 0.0 for value in values.tolist()]


def numbers_or_none(values: np.ndarray) -> list[float | None]:
    return [finite(value) for value in values.tolist()]
