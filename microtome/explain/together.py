"""What fires where: components of one catalogue with those of another, or of the same, on the same text.

    overlap of two components = tokens on which both fire / tokens on which either does    (Jaccard's index)
    correlation = cosine of their activations over all tokens                              (1 if proportional)

It compares dictionaries of any widths, sites, layers, seeds or checkpoints, as long as they were catalogued on the same
windows, and finds within one dictionary what goes together. All pairs of all components are too many to keep, so of
each only the best are. A sample of the tokens, those of least hash, says enough: it is the same for every catalogue.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from microtome.core.errors import Refusal
from microtome.store.catalog import COLUMNS_PER_FILE, Catalog
from microtome.store.sketches import hashed

TOKENS = 100_000  # sampled
PARTNERS = 10


@dataclass(frozen=True)
class Partners:
    """For each component those it goes with best, the best first. -1 where there are fewer."""

    component: Int[np.ndarray, "components partners"]
    overlap: Float[np.ndarray, "components partners"]
    correlation: Float[np.ndarray, "components partners"]
    both: Int[np.ndarray, "components partners"]  # sampled tokens on which both fire


@dataclass(frozen=True)
class Activations:
    """All activations of a catalogue on some tokens, by component and by token."""

    catalog: Catalog
    share: float  # of the tokens

    @property
    def limit(self) -> np.uint64:
        return np.uint64(min(self.share, 1.0) * float(2**64 - 2**12))

    @cached_property
    def entries(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Token, component and value, in the order of components."""
        found = [self._of_file(file) for file in self.catalog.files]
        token, component, value = (np.concatenate(column) for column in zip(*found, strict=True))
        return token, component, value

    def _of_file(self, file: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        token, component, value = self.catalog.all_columns(file)
        kept = hashed(np.asarray(token)) <= self.limit
        return token[kept].astype(np.int64), component[kept], value[kept].astype(np.float64)

    @cached_property
    def by_token(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where the entries of each token begin, and their components and values."""
        token, component, value = self.entries
        order = np.argsort(token, kind="stable")
        starts = np.searchsorted(token[order], np.arange(self.catalog.windows["tokens"].size + 1))
        return starts, component[order], value[order]

    @cached_property
    def counts(self) -> Int[np.ndarray, "components"]:
        return np.bincount(self.entries[1], minlength=len(self.catalog))

    @cached_property
    def sizes(self) -> Float[np.ndarray, "components"]:
        """The length of each component's activations as a vector over tokens."""
        _, component, value = self.entries
        return np.sqrt(np.bincount(component, value**2, minlength=len(self.catalog)))


def together(one: Catalog, other: Catalog | None = None, *, tokens: int = TOKENS) -> Partners:
    """The best partners of each component of one catalogue, in another or (left out) among its own others.

    Ranked by correlation. Raises Refusal for catalogues of different text.
    """
    other, same = other or one, other is None or other.folder == one.folder
    refuse_other_text(one, other)
    share = tokens / max(1, one.tokens_seen)
    first = Activations(one, share)
    second = first if same else Activations(other, share)
    blocks = [best(first, second, start, same) for start in range(0, len(one), COLUMNS_PER_FILE)]
    return Partners(*(np.concatenate(column) for column in zip(*blocks, strict=True)))


def refuse_other_text(one: Catalog, other: Catalog) -> None:
    if one.folder != other.folder and not np.array_equal(one.windows["tokens"], other.windows["tokens"]):
        raise Refusal(
            f"{one.folder} and {other.folder} were catalogued on different text, so what fires together cannot be "
            "told; catalogue both on the same windows"
        )


def best(first: Activations, second: Activations, start: int, same: bool) -> tuple[np.ndarray, ...]:
    """Partner, overlap, correlation and count for one block of the first's components."""
    stop, width = min(start + COLUMNS_PER_FILE, len(first.catalog)), len(second.catalog)
    both, products = np.zeros((stop - start, width), np.int64), np.zeros((stop - start, width))
    for rows, columns, values in meetings(first, second, start, stop):
        flat, size = rows * width + columns, (stop - start) * width
        both += np.bincount(flat, minlength=size).reshape(both.shape)
        products += np.bincount(flat, values, minlength=size).reshape(both.shape)
    sizes = np.maximum(first.sizes[start:stop, None] * second.sizes, 1e-30)
    correlation = np.where(both > 0, products / sizes, -2.0)
    if same:
        correlation[np.arange(stop - start), np.arange(start, stop)] = -2.0
    either = np.maximum(first.counts[start:stop, None] + second.counts - both, 1)
    order = np.argsort(-correlation, 1, kind="stable")[:, :PARTNERS]
    found = np.take_along_axis(correlation, order, 1)
    fires = found > -2.0
    columns = (np.take_along_axis(x, order, 1) for x in (both / either, correlation, both))
    return np.where(fires, order, -1), *(np.where(fires, x, 0) for x in columns)


def meetings(
    first: Activations, second: Activations, start: int, stop: int, most: int = 4_000_000
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(component less `start`, the other's component, product) for every pair that is active on one token."""
    token, component, value = first.entries
    here = slice(*np.searchsorted(component, [start, stop]))
    token, component, value = token[here], component[here] - start, value[here]
    starts, others, strengths = second.by_token
    lengths = starts[token + 1] - starts[token]
    ends = np.cumsum(lengths)
    for which in np.split(np.arange(len(token)), np.searchsorted(ends, np.arange(most, ends[-1:].sum(), most))):
        count = lengths[which]
        places = np.arange(count.sum()) + np.repeat(starts[token[which]] - (np.cumsum(count) - count), count)
        yield np.repeat(component[which], count), others[places], np.repeat(value[which], count) * strengths[places]
