"""How strongly each component of a dictionary is active: sparse first, dense on request.

Three forms with one face. `TopCodes` holds a fixed number of entries per place (TopK), `RaggedCodes` any number
(BatchTopK, JumpReLU), `DenseCodes` all of them (ReLU, neurons, probes). Values are signed; a zero is not active.
Any leading shape: `batch pos`, `batch y x`.
"""

# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from microtome.core.sparse import bag_product


class Entries(NamedTuple):
    """Active places as flat triples: the row (of the flattened leading shape), the component, the value."""

    rows: Int[Tensor, "entries"]
    components: Int[Tensor, "entries"]
    values: Float[Tensor, "entries"]


class Codes(ABC):
    """The activity of `width` components at every place of a leading shape."""

    width: int

    @property
    @abstractmethod
    def shape(self) -> torch.Size:
        """The leading shape."""

    @abstractmethod
    def dense(self) -> Float[Tensor, "... width"]:
        """One number for every component at every place: mostly zeros, so ask only where the width is small."""

    @abstractmethod
    def top(self, n: int) -> "TopCodes":
        """The `n` (at most `width`) entries of largest magnitude at each place, strongest first.

        Where fewer are active, entries of value zero fill up the rest.
        """

    @abstractmethod
    def entries(self) -> Entries:
        """The active entries."""

    @abstractmethod
    def of(self, component: int) -> Float[Tensor, "..."]:
        """The activity of one component, at every place."""

    @abstractmethod
    def times(self, weights: Float[Tensor, "width d"]) -> Float[Tensor, "... d"]:
        """The sum over components of activity times row of `weights`: what a linear decoder makes of the codes."""

    @abstractmethod
    def scaled(self, by: Float[Tensor, "width"]) -> "Codes":
        """Every component's activity times its own number."""

    @abstractmethod
    def sized(self, by: Float[Tensor, "..."]) -> "Codes":
        """Every place's activity times its own number."""

    @abstractmethod
    def part(self, start: int, stop: int) -> "Codes":
        """The activity of components `start` to `stop` (excluded), numbered from 0."""

    def __iter__(self) -> Iterator[tuple[int, int, float]]:
        """(row, component, value) for every active entry."""
        return zip(*(part.tolist() for part in self.entries()), strict=True)

    def l0(self) -> Float[Tensor, ""]:
        """The mean number of active components per place."""
        return torch.tensor(len(self.entries().values) / max(1, self.shape.numel()))


@dataclass(frozen=True, eq=False)
class TopCodes(Codes):
    """The same number of entries at every place. An entry of value zero is not active."""

    values: Float[Tensor, "*lead k"]
    indices: Int[Tensor, "*lead k"]
    width: int

    @property
    def shape(self) -> torch.Size:
        return self.values.shape[:-1]

    def dense(self) -> Float[Tensor, "... width"]:
        return self.values.new_zeros(*self.shape, self.width).scatter_add(-1, self.indices, self.values)

    def top(self, n: int) -> "TopCodes":
        n, k = min(n, self.width), self.values.shape[-1]
        best = self.values.abs().topk(min(n, k), -1).indices
        fill = (0, max(0, n - k))
        return TopCodes(pad(self.values.gather(-1, best), fill), pad(self.indices.gather(-1, best), fill), self.width)

    def entries(self) -> Entries:
        values, indices = (x.reshape(-1, x.shape[-1]) for x in (self.values, self.indices))
        rows, places = values.nonzero(as_tuple=True)
        return Entries(rows, indices[rows, places], values[rows, places])

    def of(self, component: int) -> Float[Tensor, "..."]:
        return (self.values * (self.indices == component)).sum(-1)

    def times(self, weights: Float[Tensor, "width d"]) -> Float[Tensor, "... d"]:
        k = self.values.shape[-1]
        rows = bag_product(self.values.reshape(-1, k), self.indices.reshape(-1, k), weights)
        return rows.view(*self.shape, weights.shape[1])

    def scaled(self, by: Float[Tensor, "width"]) -> "TopCodes":
        return TopCodes(self.values * by[self.indices], self.indices, self.width)

    def sized(self, by: Float[Tensor, "..."]) -> "TopCodes":
        return TopCodes(self.values * by[..., None], self.indices, self.width)

    def part(self, start: int, stop: int) -> "RaggedCodes":
        return ragged_part(self, start, stop)


@dataclass(frozen=True, eq=False)
class RaggedCodes(Codes):
    """Any number of entries at each place: those of row r stand from offsets[r] to offsets[r + 1]."""

    values: Float[Tensor, "entries"]
    indices: Int[Tensor, "entries"]
    offsets: Int[Tensor, "rows_and_one"]
    lead: torch.Size
    width: int

    @property
    def shape(self) -> torch.Size:
        return self.lead

    @property
    def rows(self) -> Int[Tensor, "entries"]:
        """The row of each entry, in rising order."""
        counts = self.offsets.diff()
        return torch.arange(len(counts), device=counts.device).repeat_interleave(counts)

    def dense(self) -> Float[Tensor, "... width"]:
        flat = self.values.new_zeros(self.lead.numel(), self.width)
        return flat.index_put((self.rows, self.indices), self.values, accumulate=True).view(*self.lead, self.width)

    def top(self, n: int) -> TopCodes:
        n, counts, rows = min(n, self.width), self.offsets.diff(), self.rows
        by_size = self.values.abs().argsort(descending=True, stable=True)
        order = by_size[rows[by_size].argsort(stable=True)]
        rank = torch.arange(len(order), device=order.device) - self.offsets[:-1].repeat_interleave(counts)
        kept, rank = order[rank < n], rank[rank < n]
        values = self.values.new_zeros(self.lead.numel(), n).index_put((rows[kept], rank), self.values[kept])
        indices = self.indices.new_zeros(self.lead.numel(), n).index_put((rows[kept], rank), self.indices[kept])
        return TopCodes(values.view(*self.lead, n), indices.view(*self.lead, n), self.width)

    def entries(self) -> Entries:
        active = self.values != 0
        return Entries(self.rows[active], self.indices[active], self.values[active])

    def of(self, component: int) -> Float[Tensor, "..."]:
        hit = self.indices == component
        flat = self.values.new_zeros(self.lead.numel())
        return flat.index_put((self.rows[hit],), self.values[hit], accumulate=True).view(self.lead)

    def times(self, weights: Float[Tensor, "width d"]) -> Float[Tensor, "... d"]:
        flat = torch.nn.functional.embedding_bag(
            self.indices, weights, self.offsets[:-1], mode="sum", per_sample_weights=self.values
        )
        return flat.view(*self.lead, weights.shape[1])

    def scaled(self, by: Float[Tensor, "width"]) -> "RaggedCodes":
        return RaggedCodes(self.values * by[self.indices], self.indices, self.offsets, self.lead, self.width)

    def sized(self, by: Float[Tensor, "..."]) -> "RaggedCodes":
        each = by.expand(self.lead).reshape(-1)
        return RaggedCodes(self.values * each[self.rows], self.indices, self.offsets, self.lead, self.width)

    def part(self, start: int, stop: int) -> "RaggedCodes":
        return ragged_part(self, start, stop)


@dataclass(frozen=True, eq=False)
class DenseCodes(Codes):
    """Every component at every place."""

    values: Float[Tensor, "*lead width"]
    width: int = field(init=False, repr=False)

    def __post_init__(self):
        object.__setattr__(self, "width", self.values.shape[-1])

    @property
    def shape(self) -> torch.Size:
        return self.values.shape[:-1]

    def dense(self) -> Float[Tensor, "... width"]:
        return self.values

    def top(self, n: int) -> TopCodes:
        best = self.values.abs().topk(min(n, self.width), -1).indices
        return TopCodes(self.values.gather(-1, best), best, self.width)

    def entries(self) -> Entries:
        flat = self.values.reshape(-1, self.width)
        rows, components = flat.nonzero(as_tuple=True)
        return Entries(rows, components, flat[rows, components])

    def of(self, component: int) -> Float[Tensor, "..."]:
        return self.values[..., component]

    def times(self, weights: Float[Tensor, "width d"]) -> Float[Tensor, "... d"]:
        return self.values @ weights

    def scaled(self, by: Float[Tensor, "width"]) -> "DenseCodes":
        return DenseCodes(self.values * by)

    def sized(self, by: Float[Tensor, "..."]) -> "DenseCodes":
        return DenseCodes(self.values * by[..., None])

    def part(self, start: int, stop: int) -> "DenseCodes":
        return DenseCodes(self.values[..., start:stop])


def in_rows(entries: Entries, lead: torch.Size, width: int) -> RaggedCodes:
    """Codes of these entries, whatever their order."""
    order = entries.rows.argsort(stable=True)
    rows = entries.rows[order]
    offsets = torch.searchsorted(rows, torch.arange(lead.numel() + 1, device=rows.device))
    return RaggedCodes(entries.values[order], entries.components[order], offsets, lead, width)


def ragged_part(codes: Codes, start: int, stop: int) -> RaggedCodes:
    """The entries of components start..stop, counted from `start`."""
    rows, components, values = codes.entries()
    kept = (components >= start) & (components < stop)
    return in_rows(Entries(rows[kept], components[kept] - start, values[kept]), codes.shape, stop - start)


def joined(parts: Sequence[Codes]) -> Codes:
    """The codes of several dictionaries at the same places as those of one: its components follow one another."""
    if len(parts) == 1:
        return parts[0]
    starts = list(accumulate((p.width for p in parts), initial=0))
    if all(isinstance(p, TopCodes) for p in parts):
        tops = cast(Sequence[TopCodes], parts)
        indices = torch.cat([p.indices + start for p, start in zip(tops, starts, strict=False)], -1)
        return TopCodes(torch.cat([p.values for p in tops], -1), indices, starts[-1])
    if all(isinstance(p, DenseCodes) for p in parts):
        return DenseCodes(torch.cat([p.dense() for p in parts], -1))
    found = [p.entries() for p in parts]
    moved = [e._replace(components=e.components + start) for e, start in zip(found, starts, strict=False)]
    return in_rows(Entries(*(torch.cat(column) for column in zip(*moved, strict=True))), parts[0].shape, starts[-1])
