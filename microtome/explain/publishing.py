"""A catalogue as others publish theirs, and back: our folder, and features as SAEDashboard and Neuronpedia have them.

What is published is what a page shows: passages, the tokens promoted and suppressed, a histogram, a density. All other
activations stay behind, so that a catalogue made of what was published knows of each component only where its passages
are. Position 0, of which nothing is ever told, is left out of passages, and put back as a token without text.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from microtome.explain.neuronpedia import Sentence
from microtome.store.catalog import (
    COLUMNS_PER_FILE,
    Catalog,
    Example,
    clear,
    exemplar_groups,
    write_columns,
    write_rest,
)
from microtome.store.notes import Explanation, Notes
from microtome.store.records.saedashboard import Activation, Batch, Feature

STRONGEST = -1.0  # instead of a share, for the passages of the largest activations
SHOWN = 10  # tokens promoted and suppressed
CHANCE = 0.5  # the score of a sentence that nobody has tested


# ---------------------------------------------------------------- from a catalogue


def published(
    catalog: Catalog, components: Iterable[int], *, model: str, layer: int, name: str, dataset: str = ""
) -> Batch:
    """Components of a catalogue as features of a dictionary called `LAYER-name`."""
    features = [feature(catalog, component, dataset) for component in components]
    return Batch(model_id=model, layer=layer, sae_set=name, features=features)


def feature(catalog: Catalog, component: int, dataset: str = "") -> Feature:
    rows, windows = catalog.components, len(catalog.windows["tokens"])
    middles, heights = bars(catalog, component)
    words = {side: promoted(catalog, component, f"logits_{side}") for side in ("top", "bottom")}
    return Feature(
        feature_index=component, frac_nonzero=float(rows["density"][component]),
        freq_hist_data_bar_values=middles, freq_hist_data_bar_heights=heights,
        pos_str=words["top"][0], pos_values=words["top"][1], neg_str=words["bottom"][0], neg_values=words["bottom"][1],
        n_prompts_total=windows, n_tokens_in_prompt=catalog.context,
        dataset=dataset or catalog.manifest.get("text", ""),
        activations=list(passages(list(catalog.examples(component)))),
    )  # fmt: skip


def bars(catalog: Catalog, component: int) -> tuple[list[float], list[float]]:
    """The middles and the heights of the bars, up to the last that holds anything."""
    rows = catalog.components
    heights, end = rows["histogram"][component], float(rows.get("histogram_end", rows["max"])[component])
    step, reached = end / len(heights), int(np.flatnonzero(heights).max(initial=-1)) + 1
    return [(bar + 0.5) * step for bar in range(reached)], heights[:reached].astype(float).tolist()


def promoted(catalog: Catalog, component: int, rows: str) -> tuple[list[str], list[float]]:
    if rows not in catalog.components:
        return [], []
    tokens = catalog.components[rows][component].tolist()
    values = catalog.components[f"{rows}_value"][component].tolist()
    kept = [(catalog.vocabulary[t], float(v)) for t, v in zip(tokens, values, strict=True) if t >= 0]
    return [text for text, _ in kept], [value for _, value in kept]


def passages(examples: Sequence[Example]) -> Iterator[Activation]:
    most = max((max(example.values) for example in examples), default=0.0)
    for group, of_group in groupby(examples, key=lambda example: example.group):
        shown = list(of_group)
        at = [example.values[example.position] for example in shown]
        ends = (STRONGEST, most, STRONGEST) if group == "top" else (min(at), max(at), 1 / 5)
        for example in shown:
            yield Activation(
                bin_min=ends[0], bin_max=ends[1], bin_contains=ends[2], tokens=example.tokens[1:],
                values=example.values[1:], qualifying_token_index=example.position - 1,
            )  # fmt: skip


def told(notes: Notes, components: Iterable[int]) -> Iterator[Sentence]:
    """What the notes say of each component, the best sentence first."""
    for component in components:
        for one in notes.of(component):
            yield Sentence(component, one.text, one.method)


# ---------------------------------------------------------------- to a catalogue


def catalogued(batch: Batch, into: Path, sentences: Sequence[Sentence] = ()) -> Catalog:
    """A catalogue of what was published. Components without a feature are silent; sentences are noted as untested."""
    clear(into)
    passages = Passages(batch)
    count = 1 + max((feature.feature_index for feature in batch.features), default=-1)
    for file in range(-(-count // COLUMNS_PER_FILE)):
        write_columns(into, file, *passages.entries(file))
    about = {
        "text": next((f.dataset for f in batch.features), ""), "documents": [batch.source], "labels": [],
        "published": batch.source,
    }  # fmt: skip
    found = write_rest(into, None, rows(batch, passages, count), passages.windows(), passages.vocabulary, about)
    if sentences:
        Notes(into / "notes.sqlite").put(map(untested, sentences))
    return found


class Passages:
    """The different passages of all features, as windows; each text of a token has one number."""

    def __init__(self, batch: Batch):
        self.batch = batch
        self.numbers: dict[str, int] = {"": 0}
        self.places: dict[tuple[str, ...], int] = {}
        for activation in (a for feature in batch.features for a in feature.activations):
            self.places.setdefault(tuple(activation.tokens), len(self.places))
            for token in activation.tokens:
                self.numbers.setdefault(token, len(self.numbers))
        for text in (t for feature in batch.features for t in (*feature.pos_str, *feature.neg_str)):
            self.numbers.setdefault(text, len(self.numbers))
        self.context = 1 + max(map(len, self.places), default=1)

    @property
    def vocabulary(self) -> list[str]:
        return list(self.numbers)

    def windows(self) -> dict[str, np.ndarray]:
        tokens = np.zeros((max(1, len(self.places)), self.context), np.int32)
        for words, row in self.places.items():
            tokens[row, 1 : len(words) + 1] = [self.numbers[word] for word in words]
        return {
            "tokens": tokens, "document": np.zeros(len(tokens), np.int32),
            "labels": np.zeros((*tokens.shape, 0), np.bool_),
        }  # fmt: skip

    def entries(self, file: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Token, component and value of every activation that a passage shows, of one range of components."""
        found: dict[tuple[int, int], float] = {}
        for feature in (f for f in self.batch.features if f.feature_index // COLUMNS_PER_FILE == file):
            for activation in feature.activations:
                start = self.place(activation, 0)
                shown = ((start + i, value) for i, value in enumerate(activation.values) if value)
                found |= {(feature.feature_index, token): value for token, value in shown}
        component, token = np.array(list(found), np.int64).reshape(-1, 2).T
        return token, component, np.array(list(found.values()), np.float32)

    def place(self, activation: Activation, index: int) -> int:
        """The number of a passage's token."""
        return self.places[tuple(activation.tokens)] * self.context + 1 + index


def rows(batch: Batch, passages: Passages, count: int) -> dict[str, np.ndarray]:
    """The rows of statistics, as far as they were published."""
    bins = max((len(f.freq_hist_data_bar_heights) for f in batch.features), default=0) or 1
    found: dict[str, np.ndarray] = {
        "count": np.zeros(count, np.int64), "density": np.zeros(count, np.float32), "sum": np.zeros(count),
        "sum_squares": np.zeros(count), "max": np.zeros(count, np.float32),
        "histogram": np.zeros((count, bins), np.int32), "histogram_end": np.zeros(count, np.float32),
        "exemplars": np.full((count, len(exemplar_groups())), -1, np.int64),
        "neighbours": np.full((count, SHOWN), -1, np.int32), "neighbour_cosine": np.zeros((count, SHOWN), np.float32),
        **{f"logits_{side}": np.full((count, SHOWN), -1, np.int32) for side in ("top", "bottom")},
        **{f"logits_{side}_value": np.zeros((count, SHOWN), np.float32) for side in ("top", "bottom")},
    }  # fmt: skip
    for feature in batch.features:
        put_figures(found, feature, bins)
        put_words(found, feature, passages)
        found["exemplars"][feature.feature_index] = slots(feature, passages)
    return found


def put_figures(found: dict[str, np.ndarray], feature: Feature, bins: int) -> None:
    """Counts and sums are those of the histogram, to the width of a bar."""
    row, heights = feature.feature_index, np.array(feature.freq_hist_data_bar_heights)
    middles = np.array(feature.freq_hist_data_bar_values[: len(heights)])
    found["density"][row] = feature.frac_nonzero
    found["max"][row] = max((max(a.values, default=0.0) for a in feature.activations), default=0.0)
    found["count"][row] = round(
        heights.sum() or feature.frac_nonzero * feature.n_prompts_total * feature.n_tokens_in_prompt
    )
    if len(heights):
        step = middles[1] - middles[0] if len(middles) > 1 else 2 * middles[0]
        found["sum"][row], found["sum_squares"][row] = heights @ middles, heights @ middles**2
        found["histogram"][row, : len(heights)] = heights
        found["histogram_end"][row] = middles[-1] + step * (bins - len(heights) + 0.5)


def put_words(found: dict[str, np.ndarray], feature: Feature, passages: Passages) -> None:
    for side, words, values in (
        ("top", feature.pos_str, feature.pos_values), ("bottom", feature.neg_str, feature.neg_values)
    ):  # fmt: skip
        shown = min(SHOWN, len(words))
        found[f"logits_{side}"][feature.feature_index, :shown] = [passages.numbers[w] for w in words[:shown]]
        found[f"logits_{side}_value"][feature.feature_index, :shown] = values[:shown]


def slots(feature: Feature, passages: Passages) -> np.ndarray:
    """The passages as exemplars: the strongest, and those of up to five bins, in their order, as far as they fit."""
    groups = np.array(exemplar_groups())
    found = np.full(len(groups), -1, np.int64)
    bins = dict.fromkeys(a.bin for a in feature.activations if not a.strongest)
    names = dict(zip(bins, dict.fromkeys(groups[groups != "top"].tolist()), strict=False))
    for name in ("top", *names.values()):
        of_group = [a for a in feature.activations if (name == "top" if a.strongest else names.get(a.bin) == name)]
        free = np.flatnonzero(groups == name)[: len(of_group)]
        places = [passages.place(a, a.qualifying_token_index) for a in of_group[: len(free)]]
        found[free] = places
    return found


def untested(one: Sentence) -> Explanation:
    """A sentence that others wrote. Nobody here has tested it: its score is chance, and may be anything."""
    by = " by ".join(part for part in (one.method, one.model) if part) or "published"
    return Explanation(one.feature, by, one.text, CHANCE, 0.0, 1.0, CHANCE, CHANCE, 0, 0, {"published": True})
