"""The catalogue: in one pass over text, what every component of a dictionary responds to.

The pass spills (token, component, value) triples to disk by range of components, so memory does not grow with the text.
Then each range is sorted once and everything said of its components is worked out from it exactly: counts, histogram,
the strongest examples and examples from each fifth of the ranks. Examples come from different windows where there are
enough.
"""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors.numpy import save_file
from torch import Tensor

from microtome.core.component import Dictionary
from microtome.core.errors import NotFinite, Refusal
from microtome.core.model import Model
from microtome.core.trace import Trace
from microtome.data.windows import Text
from microtome.store import catalog as on_disk
from microtome.store.catalog import COLUMNS_PER_FILE, PER_QUANTILE, QUANTILES, TOP, Catalog
from microtome.store.survey import surveying
from microtome.store.whole import whole

BINS = 40  # of each component's histogram, equal from zero to its maximum
SPILL = 4_000_000  # triples held before they go to disk
NEAREST = 10
TRIPLE = np.dtype([("token", np.uint32), ("component", np.uint32), ("value", np.float32)])


class Cataloguer:
    """A catalogue in the making: a witness of a survey. `finish` writes it; one that was there is begun again."""

    def __init__(self, dictionary: Dictionary, text: Text, into: Path, components: int | None = None):
        """`components` keeps only the first so many (a sample, where the order means nothing)."""
        self.dictionary, self.text, self.into = dictionary, text, into
        self.sites = dictionary.reads
        self.components = len(dictionary) if components is None else min(components, len(dictionary))
        clear(into)
        self.spill = Spill(into, self.components)

    def see(self, trace: Trace, first_window: int) -> None:
        self.spill.add(trace.codes(self.dictionary).entries(), first_window, self.text.tokens.shape[1])

    def finish(
        self,
        *,
        vocabulary: list[str],
        logits: Float[Tensor, "components vocab"] | None = None,
        labels: Iterable[str] = (),
        about: str = "",
    ) -> Catalog:
        """Write the catalogue. `logits` is each component's direct effect on the logits, where it has one."""
        into, text = self.into, self.text
        rows = self.spill.finish(text)
        rows |= geometry(self.dictionary, self.components) | effects_on_logits(logits)
        save_file({name: np.ascontiguousarray(row) for name, row in rows.items()}, into / "components.safetensors")
        tokens, document = text.tokens.numpy().astype(np.int32), text.document.astype(np.int32)
        save_file({"tokens": tokens, "document": document, "labels": text.labels}, into / "windows.safetensors")
        (into / "vocabulary.json").write_text(json.dumps(vocabulary))
        manifest = {
            "schema": on_disk.SCHEMA, "components": self.components, "context": tokens.shape[1], "text": about,
            "documents": text.documents, "labels": list(labels), "tokens": len(text) * (tokens.shape[1] - 1),
        }  # fmt: skip
        with whole(into / "manifest.json") as path:
            path.write_text(json.dumps(manifest, indent=1))
        return Catalog(into)


def catalog(
    model: Model,
    dictionary: Dictionary,
    text: Text,
    into: Path | str,
    *,
    vocabulary: list[str],
    logits: Float[Tensor, "components vocab"] | None = None,
    labels: Iterable[str] = (),
    about: str = "",
    batch: int = 32,
) -> Catalog:
    """Catalogue every component of a dictionary over text, in one pass, and open what was written."""
    cataloguer = Cataloguer(dictionary, text, Path(into))
    for _ in surveying(model, [cataloguer], text.tokens, batch=batch):
        pass
    return cataloguer.finish(vocabulary=vocabulary, logits=logits, labels=labels, about=about)


def clear(folder: Path) -> None:
    """Make an empty folder of a catalogue, or of what is left of one. Raises Refusal where it holds anything else."""
    patterns = (
        ".spill-*",
        "columns-*",
        "*.safetensors",
        "manifest.json",
        ".*.partial",
        "vocabulary.json",
        "notes.sqlite*",
    )
    other = [f.name for f in folder.glob("*") if f.is_dir() or not any(f.match(p) for p in patterns)]
    if other:
        raise Refusal(f"{folder} is no catalogue (it holds {other[0]!r}); give a folder that is empty or not there yet")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


class Spill:
    """Triples on their way to disk, one file for each range of components."""

    def __init__(self, folder: Path, components: int):
        self.folder, self.components = folder, components
        self.files = [folder / f".spill-{i:03d}" for i in range(-(-components // COLUMNS_PER_FILE))]
        self.waiting: list[np.ndarray] = []

    def add(self, entries: tuple[Tensor, Tensor, Tensor], first_window: int, context: int) -> None:
        """Entries of windows from `first_window` on; those at position 0 are left out."""
        rows, components, values = entries
        counted = (rows % context != 0) & (components < self.components)
        if not values.isfinite().all():
            raise NotFinite(
                "the dictionary's activations are not finite; look at its weights and at the site's activations"
            )
        triples = np.empty(int(counted.sum()), TRIPLE)
        triples["token"] = (rows[counted] + first_window * context).cpu().numpy()
        triples["component"], triples["value"] = components[counted].cpu().numpy(), values[counted].cpu().numpy()
        self.waiting.append(triples)
        if sum(map(len, self.waiting)) >= SPILL:
            self._flush()

    def _flush(self) -> None:
        triples = np.concatenate(self.waiting) if self.waiting else np.empty(0, TRIPLE)
        self.waiting = []
        file = triples["component"] // COLUMNS_PER_FILE
        ordered = triples[file.argsort(kind="stable")]
        ends = np.cumsum(np.bincount(file, minlength=len(self.files)))
        for path, part in zip(self.files, np.split(ordered, ends[:-1]), strict=True):
            with path.open("ab") as spilt:
                part.tofile(spilt)

    def finish(self, text: Text) -> dict[str, np.ndarray]:
        """Sort every range, write its columns, and return the rows of statistics of all components."""
        self._flush()
        parts = []
        for number, path in enumerate(self.files):
            triples = np.fromfile(path, TRIPLE)
            path.unlink()
            on_disk.write_columns(self.folder, number, triples["token"], triples["component"], triples["value"])
            count = min(COLUMNS_PER_FILE, self.components - number * COLUMNS_PER_FILE)
            parts.append(statistics(triples, number * COLUMNS_PER_FILE, count, text))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def statistics(triples: np.ndarray, first: int, count: int, text: Text) -> dict[str, np.ndarray]:
    """The rows of `count` components from number `first` on."""
    place = (triples["component"] - first).astype(np.int64)
    value = triples["value"].astype(np.float64)
    context = text.tokens.shape[1]
    strongest = np.zeros(count)
    np.maximum.at(strongest, place, value)
    fired = np.bincount(place, minlength=count)
    bins = (
        (value / np.maximum(strongest[place], 1e-30) * BINS).clip(0, BINS - 1).astype(np.int64)
    )  # the first holds the negative
    return {
        "count": fired,
        "density": (fired / (len(text) * (context - 1))).astype(np.float32),
        "sum": np.bincount(place, value, count),
        "sum_squares": np.bincount(place, value**2, count),
        "max": strongest.astype(np.float32),
        "histogram": np.bincount(place * BINS + bins, minlength=count * BINS).reshape(count, BINS).astype(np.int32),
        "exemplars": exemplars(place, triples["token"].astype(np.int64), value, count, context),
    }


def exemplars(
    place: Int[np.ndarray, "n"], token: Int[np.ndarray, "n"], value: Float[np.ndarray, "n"], count: int, context: int
) -> Int[np.ndarray, "count slots"]:
    """Each component's strongest token of every window, ranked: the first TOP, then a few spread over each fifth."""
    order = np.lexsort((-value, token // context, place))
    key = place[order] * (1 << 40) + token[order] // context
    peaks = order[np.concatenate([[True], key[1:] != key[:-1]])] if len(order) else order
    peaks = peaks[np.lexsort((-value[peaks], place[peaks]))]
    ends = np.cumsum(np.bincount(place[peaks], minlength=count))
    found = np.full((count, TOP + QUANTILES * PER_QUANTILE), -1, np.int64)
    for component, ranked in enumerate(np.split(token[peaks], ends[:-1])):
        found[component, : min(TOP, len(ranked))] = ranked[:TOP]
        spread(ranked, found[component, TOP:])
    return found


def spread(ranked: Int[np.ndarray, "n"], slots: Int[np.ndarray, "slots"]) -> None:
    """Fill slots with tokens from each fifth of the ranks, strongest fifth first, evenly within a fifth."""
    for fifth, part in enumerate(np.array_split(ranked, QUANTILES)):
        chosen = part[np.linspace(0, len(part) - 1, min(PER_QUANTILE, len(part))).astype(int)]
        slots[fifth * PER_QUANTILE : fifth * PER_QUANTILE + len(chosen)] = chosen


def geometry(dictionary: Dictionary, kept: int) -> dict[str, np.ndarray]:
    """Nearest neighbours by cosine of what components write, and a plane map of them (first two principal axes)."""
    written = dictionary.directions().write[:kept, 0].detach().float().cpu()
    unit = torch.nn.functional.normalize(written, dim=1)
    nearest, cosine = [], []
    for start in range(0, len(unit), 1024):
        block = unit[start : start + 1024] @ unit.T
        block[torch.arange(len(block)), torch.arange(start, start + len(block))] = -2.0
        best = block.topk(min(NEAREST, len(unit) - 1), 1)
        nearest.append(best.indices)
        cosine.append(best.values)
    centred = unit - unit.mean(0)
    axes = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -2:].flip(1)
    return {
        "neighbours": torch.cat(nearest).int().numpy(),
        "neighbour_cosine": torch.cat(cosine).numpy(),
        "position": (centred @ axes).numpy(),
    }


def effects_on_logits(logits: Float[Tensor, "components vocab"] | None) -> dict[str, np.ndarray]:
    """The tokens that each component promotes and suppresses most."""
    if logits is None:
        return {}
    logits = logits.cpu()
    top, bottom = logits.topk(NEAREST, 1), (-logits).topk(NEAREST, 1)
    return {
        "logits_top": top.indices.int().numpy(),
        "logits_top_value": top.values.numpy(),
        "logits_bottom": bottom.indices.int().numpy(),
        "logits_bottom_value": (-bottom.values).numpy(),
    }
