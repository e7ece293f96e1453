"""A named place in a network, with the names of its axes."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

import re
from dataclasses import dataclass, replace
from types import EllipsisType

import torch
from jaxtyping import Int
from torch import Tensor

from microtome.core.errors import NoSuchPlace, Refusal
from microtome.core.inputs import At, Inputs

POSITIONAL = ("pos", "query", "key")  # axes that count a row's real tokens
LEADING = ("batch", "pos", "y", "x")  # axes that components share: each place along them has its own activity

Index = int | slice | list[int] | Tensor | EllipsisType


@dataclass(frozen=True, eq=False)
class Selection:
    """Which part of a tensor: `x[index]` takes it, `x[index] = part` puts it back.

    Where positions were chosen, the part's first axis runs over (row, position) pairs, and `rows` (counted within the
    chosen rows of the batch) and `positions` say which; otherwise both are None and the part keeps its axes.
    """

    index: tuple[Index, ...]
    rows: Int[Tensor, "places"] | None = None
    positions: Int[Tensor, "places"] | None = None


WHOLE = Selection((Ellipsis,))


@dataclass(frozen=True)
class Site:
    """A named place in a network. `site.at(pos=-1)` is its last real position, `site.at(head=3)` one head.

    `where` holds axis and place pairs; a place is a number, a slice without a step, or a tuple of numbers. The batch
    axis stays, also where one row is chosen.
    """

    name: str
    axes: str = "batch pos d"
    where: tuple[tuple[str, At], ...] = ()

    def at(self, **where: At | list[int]) -> "Site":
        """Some places of this site, by axis: a number, a list, a slice of step 1. Raises Refusal for other axes."""
        known = self.axes.split()
        for axis, place in where.items():
            if axis not in known:
                raise Refusal(f"site {self.name!r} has the axes {self.axes!r}, and no {axis!r}")
            if isinstance(place, slice) and place.step not in (None, 1):
                raise Refusal(f"{axis}={spell(place)}:{place.step} has a step; give the places as a list of numbers")
        fixed = {axis: tuple(place) if isinstance(place, list) else place for axis, place in where.items()}
        return replace(self, where=tuple(sorted({**dict(self.where), **fixed}.items())))

    @property
    def whole(self) -> "Site":
        """The site with no place fixed."""
        return replace(self, where=()) if self.where else self

    @property
    def layer(self) -> int | None:
        """The layer in a canonical name, or None: 8 for `resid_post.8`."""
        number = re.search(r"\.(\d+)$", self.name)
        return int(number[1]) if number else None

    @property
    def width_axis(self) -> int:
        """Where the axis stands along which components read and write, counted from the end: -3 for `batch d y x`."""
        axes = self.axes.split()
        others = [i for i, axis in enumerate(axes) if axis not in LEADING]
        return (others[-1] if others else len(axes) - 1) - len(axes)

    def width_axis_of(self, selection: Selection) -> int:
        """The same in a selected part, from which single places have gone."""
        if selection == WHOLE or self.width_axis == -1:
            return self.width_axis
        behind = selection.index[self.width_axis + 1 :]
        return -1 - sum(not isinstance(place, int) for place in behind)

    def select(self, inputs: Inputs, shape: torch.Size) -> Selection:
        """Resolve `where` on these inputs, of a tensor of this shape: positions become columns, row by row."""
        where = dict(self.where)
        if not where:
            return WHOLE
        sizes = dict(zip(self.axes.split(), shape, strict=True))
        chosen = [a for a in sizes if a in POSITIONAL and a in where]
        self._refuse_places(sizes, where, chosen)
        if chosen:
            return self._select_positions(inputs, sizes, chosen, where)
        rows = {"batch": as_slice(where["batch"], len(inputs))} if "batch" in where else {}
        return Selection(tuple(list_of((where | rows).get(a, slice(None))) for a in sizes))

    def _refuse_places(self, sizes: dict[str, int], where: dict[str, At], chosen: list[str]) -> None:
        if any(not isinstance(where[a], int) for a in chosen[1:]):
            raise Refusal(
                f"{self}: only the first of {chosen} may be several positions; make the others one number each"
            )
        others = {a: where[a] for a in where if a not in chosen and a != "batch"}
        lists = [a for a, place in others.items() if isinstance(place, tuple)]
        if len(lists) > 1:
            raise Refusal(
                f"{self}: only one of {lists} may be several numbers; make the others one number or a slice each"
            )
        for axis, place in others.items():
            each = place if isinstance(place, tuple) else (place,) if isinstance(place, int) else ()
            for number in each:
                if not -sizes[axis] <= number < sizes[axis]:
                    raise NoSuchPlace(
                        f"site {self.name!r} has {sizes[axis]} places along {axis!r}, so no {axis} {number}"
                    )

    def _select_positions(
        self, inputs: Inputs, sizes: dict[str, int], chosen: list[str], where: dict[str, At]
    ) -> Selection:
        batch = as_slice(where.get("batch", slice(None)), len(inputs))
        some = inputs.rows(batch)
        first = some.places(where[chosen[0]], sizes[chosen[0]])
        columns = {chosen[0]: first.columns}
        for axis in chosen[1:]:
            columns[axis] = some.places(where[axis], sizes[axis]).columns[first.rows]
        pairs = {"batch": first.rows + batch.start, **columns}
        index: dict[str, Index] = {axis: list_of(where.get(axis, slice(None))) for axis in sizes}
        index |= pairs
        if any(isinstance(place, list) for place in index.values()):  # several heads of each place: pairs by heads
            index |= {axis: places[:, None] for axis, places in pairs.items()}
        return Selection(tuple(index.values()), first.rows, first.positions)

    def take(self, x: Tensor, inputs: Inputs) -> Tensor:
        """This part of the whole tensor. One position: the axis goes. Several: it stays, if all rows have as many."""
        selection = self.select(inputs, x.shape)
        part = x[selection.index]
        several = [a for a, place in self.where if a in POSITIONAL and not isinstance(place, int)]
        if selection.rows is None or not several:
            return part
        counts = torch.bincount(selection.rows)
        if (counts != counts[0]).any():
            raise Refusal(
                f"{self}: the rows have {counts.tolist()} such positions; choose positions that all rows have"
            )
        return part.unflatten(0, (len(counts), int(counts[0])))

    def __str__(self) -> str:
        return self.name + "".join(f"[{axis}={spell(place)}]" for axis, place in self.where)


def spell(place: At) -> str:
    """A place as it stands in a site's text."""
    if isinstance(place, slice):
        return f"{'' if place.start is None else place.start}:{'' if place.stop is None else place.stop}"
    return str(place)


def list_of(place: At) -> int | slice | list[int]:
    """A place as an index: several numbers as a list."""
    return list(place) if isinstance(place, tuple) else place


def as_slice(place: At, size: int) -> slice:
    """Rows of a batch of this size, as a slice from its first to past its last."""
    if isinstance(place, slice):
        first, stop, _ = place.indices(size)
        return slice(first, max(first, stop))
    if isinstance(place, tuple):
        raise Refusal(f"choose rows of the batch by a number or a slice, not {place}")
    if not -size <= place < size:
        raise NoSuchPlace(f"the batch has {size} rows, so no row {place}")
    return slice(place % size, place % size + 1)
