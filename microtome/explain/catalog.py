"""The catalogue: in one pass over text, what every component of a dictionary responds to.

The pass spills (token, component, value) triples to disk by range of components, so memory does not grow with the text.
Then each range is sorted once: its columns are written, and a sketch of it is made, from which is read what is said of
its components (`store/sketches.py`). Several can share a text, each a part of its windows; `store/merging.py` joins
what they made, to the bit what one alone would have made.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.component import Dictionary
from microtome.core.errors import NotFinite
from microtome.core.model import Model
from microtome.core.trace import Trace
from microtome.data.windows import Text
from microtome.explain.plane import principal
from microtome.store.catalog import COLUMNS_PER_FILE, Catalog, clear, write_columns, write_rest
from microtome.store.sketches import Sketches
from microtome.store.survey import surveying

SPILL = 4_000_000  # triples held before they go to disk
NEAREST = 10
TRIPLE = np.dtype([("token", np.uint32), ("component", np.uint32), ("value", np.float32)])


class Cataloguer:
    """A catalogue in the making: a witness of a survey. `finish` writes it; one that was there is begun again."""

    def __init__(
        self, dictionary: Dictionary, text: Text, into: Path, components: int | None = None, *, first_window: int = 0
    ):
        """`components` keeps only the first so many (a sample, where the order means nothing).

        `first_window` is the number of this text's first window in a longer text of which it is a part.
        """
        self.dictionary, self.text, self.into = dictionary, text, into
        self.sites, self.first_window = dictionary.reads, first_window
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
        text = self.text
        sketches = self.spill.finish(text.tokens.shape[1], self.first_window)
        rows = geometry(self.dictionary, self.components) | effects_on_logits(logits)
        windows = {
            "tokens": text.tokens.numpy().astype(np.int32), "document": text.document.astype(np.int32),
            "labels": text.labels,
        }  # fmt: skip
        manifest = {
            "first_window": self.first_window, "text": about, "documents": text.documents, "labels": list(labels),
        }  # fmt: skip
        return write_rest(self.into, sketches, rows, windows, vocabulary, manifest)


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
    first_window: int = 0,
) -> Catalog:
    """Catalogue every component of a dictionary over text, in one pass, and open what was written.

    Several workers share a text with `share`, and `merging.merge` joins what they wrote.
    """
    cataloguer = Cataloguer(dictionary, text, Path(into), first_window=first_window)
    for _ in surveying(model, [cataloguer], text.tokens, batch=batch):
        pass
    return cataloguer.finish(vocabulary=vocabulary, logits=logits, labels=labels, about=about)


def share(text: Text, worker: int, workers: int) -> tuple[Text, int]:
    """One worker's windows of a text, and the number of the first of them."""
    first, stop = (len(text) * n // workers for n in (worker, worker + 1))
    rows = slice(first, stop)
    return Text(text.tokens[rows], text.document[rows], text.documents, text.labels[rows]), first


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

    def finish(self, context: int, first_window: int) -> Sketches:
        """Sort every range, write its columns, and return the sketches of all components."""
        self._flush()
        return Sketches.joined([self._finished(number, context, first_window) for number in range(len(self.files))])

    def _finished(self, number: int, context: int, first_window: int) -> Sketches:
        triples = np.fromfile(self.files[number], TRIPLE)
        self.files[number].unlink()
        write_columns(self.folder, number, triples["token"], triples["component"], triples["value"])
        first = number * COLUMNS_PER_FILE
        place = triples["token"].astype(np.int64) + first_window * context
        count = min(COLUMNS_PER_FILE, self.components - first)
        return Sketches.of(place, triples["component"].astype(np.int64) - first, triples["value"], count, context)


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
    return {
        "neighbours": torch.cat(nearest).int().numpy(),
        "neighbour_cosine": torch.cat(cosine).numpy(),
        "position": principal(written).numpy(),
    }


def effects_on_logits(logits: Float[Tensor, "components vocab"] | None) -> dict[str, np.ndarray]:
    """The tokens that each component promotes and suppresses most."""
    if logits is None:
        return {}
    logits = logits.cpu()
    top, bottom = logits.topk(NEAREST, 1), logits.topk(NEAREST, 1, largest=False)
    return {
        "logits_top": top.indices.int().numpy(),
        "logits_top_value": top.values.numpy(),
        "logits_bottom": bottom.indices.int().numpy(),
        "logits_bottom_value": bottom.values.numpy(),
    }
