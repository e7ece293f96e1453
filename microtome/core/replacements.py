"""Edits that put something else where a part of a site was: from another run, a fixed value, a reconstruction."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.component import Dictionary
from microtome.core.editing import Edit, leading
from microtome.core.errors import Refusal
from microtome.core.inputs import Inputs, Tokens
from microtome.core.site import POSITIONAL, Selection, Site, as_slice
from microtome.core.trace import Trace


@dataclass(frozen=True, eq=False)
class Patch(Edit):
    """What was at the same place in another run. Positions are matched as positions, wherever the padding lies."""

    source: Trace
    replaces: ClassVar[bool] = True

    def value(self, part: Tensor, selection: Selection, arrived: Trace) -> Tensor:
        source = self.source[self.site.whole].to(part.device)
        if len(arrived.inputs) % len(source):
            raise Refusal(
                f"cannot patch {self.site}: the source has {len(source)} rows and the batch "
                f"{len(arrived.inputs)}; give as many"
            )
        if selection.rows is None:
            return self._same_shape(source, part, arrived)
        index = dict(zip(self.site.axes.split(), selection.index, strict=True))
        pairs = cast(Tensor, index["batch"])  # as everywhere where positions were chosen
        here, shape = pairs.flatten(), pairs.shape
        rows = here % len(source)
        left = [a for a in index if a in POSITIONAL and not isinstance(index[a], Tensor)]
        if left and padded_otherwise(arrived.inputs, self.source.inputs):
            raise Refusal(
                f"cannot patch {self.site}: the source's padding differs, so also choose positions of {left[0]!r}"
            )
        for axis, place in index.items():
            if axis in POSITIONAL and isinstance(place, Tensor):
                wanted = positions_at(arrived.inputs, here, place.flatten())
                index[axis] = columns_of(self.source, rows, wanted).view(shape)
        return source[tuple((index | {"batch": rows.view(shape)}).values())]

    def _same_shape(self, source: Tensor, part: Tensor, arrived: Trace) -> Tensor:
        where = {axis: place for axis, place in self.site.where if axis != "batch"}
        taken = self.site.whole.at(**where).take(source, self.source.inputs)
        mine = as_slice(dict(self.site.where).get("batch", slice(None)), len(arrived.inputs))
        rows = torch.arange(mine.start, mine.stop, device=source.device) % len(source)
        taken = taken if mine == slice(0, len(source)) else taken[rows]
        if taken.shape != part.shape or padded_otherwise(arrived.inputs, self.source.inputs):
            raise Refusal(
                f"cannot patch {self.site}: the source is {tuple(taken.shape)} and the place {tuple(part.shape)}, or "
                "their padding differs; patch positions (site.at(pos=...)), which are matched one by one"
            )
        return taken

    def __str__(self) -> str:
        return f"patch {self.site}"


def padded_otherwise(one: Inputs, source: Inputs) -> bool:
    """Whether the padding of a batch is not that of the source, over and over."""
    if not (isinstance(one, Tokens) and isinstance(source, Tokens)):
        return False
    return not torch.equal(one.mask, source.repeat(len(one) // len(source)).mask)


def positions_at(inputs: Inputs, rows: Tensor, columns: Tensor) -> Tensor:
    """The absolute position of each (row, column)."""
    return inputs.positions[rows, columns] if isinstance(inputs, Tokens) else columns


def columns_of(trace: Trace, rows: Tensor, positions: Tensor) -> Tensor:
    """The column in which each (row, absolute position) stands."""
    if not isinstance(trace.inputs, Tokens):
        return positions
    hit = trace.inputs.positions[rows] == positions[:, None]
    if not hit.any(1).all():
        missing = int((~hit.any(1)).nonzero()[0])
        raise Refusal(f"the source's row {int(rows[missing])} has no position {int(positions[missing])} to patch from")
    return hit.int().argmax(1)


@dataclass(frozen=True, eq=False)
class Fill(Edit):
    """A fixed value: zero for zero ablation, a mean over data for mean ablation. It broadcasts over leading axes."""

    with_: Float[Tensor, "..."]
    replaces: ClassVar[bool] = True

    def value(self, part: Tensor, selection: Selection, arrived: Trace) -> Tensor:
        return self.with_.to(part).expand_as(part)

    def __str__(self) -> str:
        return f"zero {self.site}" if not self.with_.any() else f"fill {self.site}"


@dataclass(frozen=True, eq=False)
class Splice(Edit):
    """A dictionary's reconstruction in place of the network's own, its error dropped; `mask` scales its components."""

    dictionary: Dictionary
    mask: Float[Tensor, "components"] | None = None
    replaces: ClassVar[bool] = True
    along_width: ClassVar[bool] = True

    @property
    def needs(self) -> tuple[Site, ...]:
        return self.dictionary.reads

    def value(self, part: Tensor, selection: Selection, arrived: Trace) -> Tensor:
        codes = arrived.codes(self.dictionary)
        codes = codes if self.mask is None else codes.scaled(self.mask)
        return self.dictionary.rebuild(codes, arrived)[leading(self.site, selection)]

    def __str__(self) -> str:
        return f"splice {type(self.dictionary).__name__} at {self.site}"


@dataclass(frozen=True, eq=False)
class Function(Edit):
    """Any function of the part that arrived: for what has no name yet. It cannot be saved."""

    change: Callable[[Tensor], Tensor]
    replaces: ClassVar[bool] = True

    def value(self, part: Tensor, selection: Selection, arrived: Trace) -> Tensor:
        return self.change(part)

    def __str__(self) -> str:
        return f"function at {self.site}"
