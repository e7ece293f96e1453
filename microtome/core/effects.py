"""How far each edit moves a measure: patching, ablation, steering sweeps are all this one loop.

Many edits share a forward pass: the batch is repeated once for each of them, and each edit is confined to its own rows.
A pass begins at the first block that its edits change, from the stream of the run without them, and in a network that
looks back alone at the first column that they change; and logits are made only where they are measured.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.edit import Edit
from microtome.core.errors import Refusal
from microtome.core.inputs import At, Inputs
from microtome.core.measure import Measure
from microtome.core.model import Memory, Model, Resumable
from microtome.core.prefix import last_block, looks_back, unmoved, untouched
from microtome.core.site import as_slice, spell
from microtome.core.trace import Trace

Cell = tuple[Edit, ...]
PASS_BYTES = 2**21  # of the stream in one pass on a processor; its widest tensors are several times that


class Effect(NamedTuple):
    """One cell: the edits made together, and the measure without and with them."""

    edits: Cell
    before: Float[Tensor, "batch"]
    after: Float[Tensor, "batch"]

    @property
    def moved(self) -> Float[Tensor, "batch"]:
        """How far the edit moved the measure, in its units."""
        return self.after - self.before

    def __str__(self) -> str:
        return f"{' & '.join(map(str, self.edits))}: {self.moved.mean():+.4f}"


class Grid(NamedTuple):
    """Mean effects laid out by two axes of their edits; nan where no edit was made."""

    rows: tuple[str, list[At]]
    columns: tuple[str, list[At]]
    values: Float[Tensor, "rows columns"]


@dataclass(frozen=True, eq=False)
class Effects:
    """What each edit did to a measure, in the order in which the edits were given."""

    cells: list[Cell]
    before: Float[Tensor, "batch"]
    after: Float[Tensor, "cells batch"]
    label: str

    @property
    def moved(self) -> Float[Tensor, "cells batch"]:
        """How far each cell of edits moved the measure, in its units."""
        return self.after - self.before

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, index: int) -> Effect:
        return Effect(self.cells[index], self.before, self.after[index])

    def __iter__(self) -> Iterator[Effect]:
        return (self[i] for i in range(len(self)))

    def grid(self, rows: str, columns: str) -> Grid:
        """Mean effects by two axes: `layer`, or an axis that the edits' sites were restricted on."""
        keys = [(axis_of(cell, rows), axis_of(cell, columns)) for cell in self.cells]
        down, across = (sorted(distinct([k[i] for k in keys]), key=sort_key) for i in (0, 1))
        values = torch.full((len(down), len(across)), torch.nan)
        for i, ((r, c), moved) in enumerate(zip(keys, self.moved.mean(1), strict=True)):
            if (r, c) in keys[:i]:
                raise Refusal(
                    f"two cells stand at {rows} {spell(r)}, {columns} {spell(c)}; make one grid for each kind of edit"
                )
            values[down.index(r), across.index(c)] = moved
        return Grid((rows, down), (columns, across), values)


def axis_of(cell: Cell, axis: str) -> At:
    """The place of a cell's first edit on an axis. Raises Refusal where it has none there."""
    site = cell[0].site
    place = site.layer if axis == "layer" else dict(site.where).get(axis)
    if place is None:
        raise Refusal(f"'{cell[0]}' has no place on the axis {axis!r}; use 'layer' or an axis given to site.at(...)")
    return place


def distinct(places: list[At]) -> list[At]:
    """Each place once. Slices have an equality and, before Python 3.12, no hash."""
    return [p for i, p in enumerate(places) if p not in places[:i]]


def sort_key(place: At) -> tuple[int, int, str]:
    """Numbers in their order, then everything else by its text."""
    return (0, place, "") if isinstance(place, int) else (1, 0, str(place))


class Start(NamedTuple):
    """From where a cell must run: after the last block that it leaves alone, at the first column that it changes."""

    layer: int
    column: int


@torch.no_grad()
def effects(
    model: Resumable, inputs: Inputs, edits: Iterable[Edit | Sequence[Edit]], measure: Measure, *, rows: int = 256
) -> Effects:
    """How far each edit (or group of edits made together) moves the measure.

    `rows` bounds the rows of one forward pass, and so memory; it never changes a number beyond rounding. On a processor
    there may be fewer: what a pass holds should not outgrow the caches.
    """
    cells = [(e,) if isinstance(e, Edit) else tuple(e) for e in edits]
    if not cells:
        raise Refusal("effects needs at least one edit")
    starts = [start_of(model, inputs, cell, measure) for cell in cells]
    streams = [model.site(f"resid_post.{layer}") for layer in sorted({s.layer for s in starts} - {-1})]
    plain = model.resume(inputs, read=[*measure.reads, *streams])
    sweep = Sweep(model, inputs, measure, model.remember(inputs) if any(s.column for s in starts) else None)
    after = torch.stack([measure(plain)] * len(cells))
    for start in sorted(set(starts)):
        here = [i for i, each in enumerate(starts) if each == start]
        stream = None if start.layer < 0 else plain[f"resid_post.{start.layer}"]
        together = sweep.together(start, stream, rows)
        for some in (here[i : i + together] for i in range(0, len(here), together)):
            after[some] = sweep.run([cells[i] for i in some], start, stream)
    return Effects(cells, measure(plain), after, measure.label)


def start_of(model: Model, inputs: Inputs, cell: Cell, measure: Measure) -> Start:
    """Where the cell's run leaves the one without edits, and the measure does not look behind."""
    layer = untouched([*(s for e in cell for s in (e.site, *e.needs)), *measure.reads], last_block(model))
    back = any(looks_back(s) for e in cell for s in e.needs)
    return Start(layer, 0 if back else unmoved([*(e.site for e in cell), *measure.reads], inputs))


@dataclass(frozen=True, eq=False)
class Sweep:
    """A batch on which many cells are tried, several in one pass, each on a copy of its own."""

    model: Resumable
    inputs: Inputs
    measure: Measure
    memory: Memory | None

    def together(self, start: Start, stream: Tensor | None, rows: int) -> int:
        """How many cells are run in one pass."""
        if stream is not None and stream.device.type == "cpu":
            columns = stream.shape[1] - (start.column if self.memory else 0)
            rows = min(rows, PASS_BYTES // (columns * stream[0, :1].nbytes))
        return max(1, rows // len(self.inputs))

    def run(self, cells: list[Cell], start: Start, stream: Tensor | None) -> Float[Tensor, "cells batch"]:
        """The measure under each cell, all cells as rows of one pass."""
        size, count = len(self.inputs), len(cells)
        blocks = [slice(i * size, (i + 1) * size) for i in range(count)]
        confined = [e.at(batch=within(e, block)) for cell, block in zip(cells, blocks, strict=True) for e in cell]
        trace = self.trace(count, start, stream, confined)
        return torch.stack([self.measure(trace.rows(block)) for block in blocks])

    def trace(self, copies: int, start: Start, stream: Tensor | None, edits: list[Edit]) -> Trace:
        """The rest of a pass over so many copies of the batch."""
        read = self.measure.reads
        if self.memory is None or not start.column:
            many = copied(stream, copies)
            return self.model.resume(self.inputs.repeat(copies), start.layer, many, read=read, edit=edits)
        many = copied(None if stream is None else stream[:, start.column :], copies)
        return self.memory.resume(copies, start.layer, many, start.column, read=read, edit=edits)


def copied(stream: Tensor | None, copies: int) -> Tensor | None:
    """So many copies, one below the other; None stays None."""
    return None if stream is None else stream.repeat(copies, *[1] * (stream.ndim - 1))


def within(edit: Edit, block: slice) -> slice:
    """The rows of a block that the edit is about: all of them, unless it names some."""
    own = as_slice(dict(edit.site.where).get("batch", slice(None)), block.stop - block.start)
    return slice(block.start + own.start, block.start + own.stop)
