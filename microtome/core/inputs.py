"""What goes into a network: a small protocol, so that every verb serves texts and pictures alike.

Positions are absolute. Position p of a row is its p-th real token, wherever the padding lies, and -1 is the last real
token of that row; under a key-value cache a position still means that position.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from microtome.core.errors import NoSuchPosition, Refusal

At = int | slice | tuple[int, ...]


class Places(NamedTuple):
    """Where some positions are: one entry for each (row, column) found, in row order, with its absolute position."""

    rows: Int[Tensor, "places"]
    columns: Int[Tensor, "places"]
    positions: Int[Tensor, "places"]


class Inputs(ABC):
    """A batch of inputs to a module."""

    @abstractmethod
    def __len__(self) -> int:
        """The number of rows."""

    @abstractmethod
    def rows(self, which: slice) -> "Inputs":
        """Some of the rows."""

    @abstractmethod
    def repeat(self, times: int) -> "Inputs":
        """All rows, `times` over: row r of copy c stands at c * len(self) + r."""

    @abstractmethod
    def to(self, device: torch.device | str) -> "Inputs":
        """The same rows on another device."""

    @abstractmethod
    def call(self, module: nn.Module) -> object:
        """Run the module on this batch and return what it returns."""

    @abstractmethod
    def places(self, at: At, size: int) -> Places:
        """Where the positions `at` of every row are, along an axis of `size` columns.

        Raises NoSuchPosition where a row has no such position.
        """


@dataclass(frozen=True, eq=False)
class Tokens(Inputs):
    """Rows of token ids with a mask of the real ones; padding may stand on either side.

    `start` counts the tokens of each row that went before (under a key-value cache), `anchor` the length from which
    negative positions count: the row's length, unless text is being generated, when it stays the prompt's length.
    """

    ids: Int[Tensor, "batch pos"]
    mask: Bool[Tensor, "batch pos"]
    start: Int[Tensor, "batch"] | None = None
    anchor: Int[Tensor, "batch"] | None = None

    @classmethod
    def of(
        cls, rows: Sequence[Sequence[int]] | Int[Tensor, "batch pos"], *, pad: int = 0, left: bool = False
    ) -> "Tokens":
        """Rows of ids, of any lengths. Padding is to the right unless `left`."""
        if not len(rows) or not all(len(r) for r in rows):
            raise Refusal("a batch needs at least one row, and every row at least one token")
        if isinstance(rows, Tensor):
            return cls(rows, torch.ones_like(rows, dtype=torch.bool))
        width = max(map(len, rows))

        def filled(row: Sequence[int], gap: int) -> list[int]:
            gaps = [gap] * (width - len(row))
            return [*gaps, *row] if left else [*row, *gaps]

        ids, mask = [filled(row, pad) for row in rows], [filled([True] * len(row), False) for row in rows]
        return cls(torch.tensor(ids), torch.tensor(mask))

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> Int[Tensor, "batch"]:
        """Real tokens of each row, those that went before included."""
        return self.mask.sum(1) + (0 if self.start is None else self.start)

    @property
    def positions(self) -> Int[Tensor, "batch pos"]:
        """The absolute position of every column; -1 where there is padding."""
        counted = self.mask.cumsum(1) - 1 + (0 if self.start is None else self.start[:, None])
        return counted.masked_fill(~self.mask, -1)

    def rows(self, which: slice) -> "Tokens":
        def some(x: Tensor | None) -> Tensor | None:
            return None if x is None else x[which]

        return Tokens(self.ids[which], self.mask[which], some(self.start), some(self.anchor))

    def repeat(self, times: int) -> "Tokens":
        def over(x: Tensor | None) -> Tensor | None:
            return None if x is None else x.repeat(times, *[1] * (x.ndim - 1))

        return Tokens(self.ids.repeat(times, 1), self.mask.repeat(times, 1), over(self.start), over(self.anchor))

    def to(self, device: torch.device | str) -> "Tokens":
        def moved(x: Tensor | None) -> Tensor | None:
            return None if x is None else x.to(device)

        return Tokens(self.ids.to(device), self.mask.to(device), moved(self.start), moved(self.anchor))

    def call(self, module: nn.Module) -> object:
        """Unpadded batches pass ids alone, so that a zero-edit run is the plain module's own call."""
        if self.mask.all():
            return module(input_ids=self.ids, use_cache=False) if hasattr(module, "config") else module(self.ids)
        return module(
            input_ids=self.ids,
            attention_mask=self.mask.long(),
            position_ids=self.positions.clamp(min=0),
            use_cache=False,
        )

    def places(self, at: At, size: int) -> Places:
        wanted = self._wanted(at)
        if self.anchor is None and not isinstance(at, slice):
            self._refuse_missing(at, wanted)
        rows, _, columns = wanted.nonzero(as_tuple=True)
        return Places(rows, columns, self.positions[rows, columns])

    def _wanted(self, at: At) -> Bool[Tensor, "batch each pos"]:
        """Which column is each of the positions asked for; a slice, having its own order, is one."""
        anchor = (self.lengths if self.anchor is None else self.anchor)[:, None]
        positions = self.positions

        def absolute(p: int) -> Tensor:
            return anchor + p if p < 0 else torch.full_like(anchor, p)

        if isinstance(at, slice):
            first = absolute(at.start or 0)
            last = torch.full_like(anchor, torch.iinfo(anchor.dtype).max) if at.stop is None else absolute(at.stop)
            return (self.mask & (positions >= first) & (positions < last))[:, None]
        each = (at,) if isinstance(at, int) else at
        return torch.stack([self.mask & (positions == absolute(p)) for p in each], 1)

    def _refuse_missing(self, at: int | tuple[int, ...], wanted: Bool[Tensor, "batch each pos"]) -> None:
        missing = (~wanted.any(2)).nonzero().tolist()
        if missing:
            (row, which), each = missing[0], (at,) if isinstance(at, int) else at
            raise NoSuchPosition(
                f"row {row} has {int(self.lengths[row])} tokens, so no position {each[which]}; "
                "positions count from 0, or back from -1"
            )


def with_start(tokens: Tokens, start: Int[Tensor, "batch"], anchor: Int[Tensor, "batch"]) -> Tokens:
    """The same columns, coming after `start` earlier tokens of each row."""
    return replace(tokens, start=start, anchor=anchor)


@dataclass(frozen=True, eq=False)
class Arrays(Inputs):
    """Positional tensors with a leading batch axis: pictures, vectors, whatever a module takes."""

    tensors: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.tensors[0])

    def rows(self, which: slice) -> "Arrays":
        return Arrays(tuple(t[which] for t in self.tensors))

    def repeat(self, times: int) -> "Arrays":
        return Arrays(tuple(t.repeat(times, *[1] * (t.ndim - 1)) for t in self.tensors))

    def to(self, device: torch.device | str) -> "Arrays":
        return Arrays(tuple(t.to(device) for t in self.tensors))

    def call(self, module: nn.Module) -> object:
        return module(*self.tensors)

    def places(self, at: At, size: int) -> Places:
        """Every row of an array has the same positions, so they are columns."""
        each = range(*at.indices(size)) if isinstance(at, slice) else (at,) if isinstance(at, int) else at
        missing = [p for p in each if not -size <= p < size]
        if missing:
            raise NoSuchPosition(
                f"each row has {size} positions, so no position {missing[0]}; positions count from 0, or back from -1"
            )
        columns, count = torch.tensor([p % size for p in each], dtype=torch.long), len(self)
        return Places(torch.arange(count).repeat_interleave(len(columns)), columns.repeat(count), columns.repeat(count))
