"""What to change, and where: named values that can be listed, batched and saved.

Edits look at what *arrived* at a site. At one place there is at most one replacement, then the sum of all deltas, each
computed from what arrived; so the order of edits never matters. The trace of a run holds what *left*.

    replacements   patch  fill  zero  splice  function
    deltas         add  ablate  scale  clamp  project_out  masked
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, cast

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.component import Component, Dictionary
from microtome.core.errors import Conflict, Refusal
from microtome.core.inputs import At, Inputs, Tokens
from microtome.core.site import LEADING, POSITIONAL, Index, Selection, Site, as_slice
from microtome.core.trace import Trace


@dataclass(frozen=True, eq=False)
class Edit(ABC):
    """A change at one site. A final class says what the part there becomes (a replacement) or what is added to it."""

    site: Site
    replaces: ClassVar[bool]
    along_width: ClassVar[bool] = False  # whether `value` wants and gives the axis that components write last

    @property
    def needs(self) -> tuple[Site, ...]:
        """Whole sites that the change looks at on the way."""
        return ()

    @abstractmethod
    def value(self, part: Tensor, selection: Selection, arrived: Trace) -> Tensor:
        """The new part (of a replacement), or what to add to it (of a delta)."""

    def at(self, **where: At | list[int]) -> "Edit":
        """The same change at a part of its site."""
        return replace(self, site=self.site.at(**where))


def compose(edits: Sequence[Edit], x: Tensor, arrived: Trace) -> tuple[Tensor, list[int]]:
    """What leaves a site when `x` arrived there, and how many places each edit touched, the replacements first."""
    selections = [e.site.select(arrived.inputs, x.shape) for e in edits]
    refuse_two_replacements(edits, selections, x)
    touched: list[int] = []
    left, copied = x, False
    for edit, selection in sorted(zip(edits, selections, strict=True), key=lambda pair: not pair[0].replaces):
        index = selection.index
        part = x[index]
        touched.append(part.numel())
        if not part.numel():
            continue
        new = changed(edit, part, selection, arrived).to(x.dtype)
        if not edit.site.where:
            left, copied = (new.expand_as(x), False) if edit.replaces else (left + new, True)
            continue
        left, copied = left if copied else left.clone(), True  # one copy, however many parts are put into it
        left[index] = new if edit.replaces else left[index] + new
    return left, touched


def changed(edit: Edit, part: Tensor, selection: Selection, arrived: Trace) -> Tensor:
    if not edit.along_width:
        return edit.value(part, selection, arrived)
    axis = edit.site.width_axis_of(selection)
    return edit.value(part.movedim(axis, -1), selection, arrived).movedim(-1, axis)


def refuse_two_replacements(edits: Sequence[Edit], selections: Sequence[Selection], x: Tensor) -> None:
    replacing = [(e, s.index) for e, s in zip(edits, selections, strict=True) if e.replaces]
    if len(replacing) < 2:
        return
    taken = torch.zeros(x.shape, dtype=torch.bool, device=x.device)
    for i, (edit, index) in enumerate(replacing):
        if taken[index].any():
            other = next(e for e, before in replacing[:i] if overlap(before, index, taken))
            raise Conflict(f"'{other}' and '{edit}' would both replace the same place; keep one of them")
        taken[index] = True


def overlap(one: tuple[Index, ...], other: tuple[Index, ...], like: Tensor) -> bool:
    places = torch.zeros_like(like)
    places[one] = True
    return bool(places[other].any())


# ---------------------------------------------------------------- replacements


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
        past = self.dictionary.bypass(self.dictionary.gather(arrived))
        return (self.dictionary.decode(codes) + past)[leading(self.site, selection)]

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


# ---------------------------------------------------------------- deltas


@dataclass(frozen=True, eq=False)
class Add(Edit):
    """A vector, so many times over."""

    vector: Float[Tensor, "d"]
    strength: float
    label: str = "vector"
    replaces: ClassVar[bool] = False
    along_width: ClassVar[bool] = True

    def value(self, part: Tensor, selection: Selection, arrived: Trace) -> Tensor:
        if self.vector.shape[-1] != part.shape[-1]:
            raise Refusal(
                f"a vector of width {self.vector.shape[-1]} cannot be added at {self.site}, "
                f"which is {part.shape[-1]} wide"
            )
        return (self.strength * self.vector.to(part)).expand_as(part)

    def __str__(self) -> str:
        return f"add {self.strength:+g} {self.label} at {self.site}"


@dataclass(frozen=True, eq=False)
class OfComponent(Edit, ABC):
    """A change of what one component writes. All else stays, its dictionary's error too."""

    component: Component
    replaces: ClassVar[bool] = False
    along_width: ClassVar[bool] = True

    @property
    def needs(self) -> tuple[Site, ...]:
        return self.component.dictionary.reads

    def written(self, trace: Trace) -> Float[Tensor, "... d"]:
        """What the component writes in a run, in the layout of its dictionary."""
        dictionary = self.component.dictionary
        return dictionary.contribution(trace.codes(dictionary), self.component.index)


@dataclass(frozen=True, eq=False)
class Scale(OfComponent):
    """What a component writes, made `by` times as large: 0 ablates it, 2 doubles it."""

    by: float

    def value(self, part: Tensor, selection: Selection, arrived: Trace) -> Tensor:
        return (self.by - 1.0) * self.written(arrived)[leading(self.site, selection)]

    def __str__(self) -> str:
        return f"ablate {self.component}" if self.by == 0 else f"scale {self.component} by {self.by:g}"


@dataclass(frozen=True, eq=False)
class Clamp(OfComponent):
    """A component's activity set to a value: x + (to - a) d.

    Templeton et al. 2024, Scaling Monosemanticity, "Feature steering".
    """

    to: float

    def value(self, part: Tensor, selection: Selection, arrived: Trace) -> Tensor:
        codes = arrived.codes(self.component.dictionary)
        activity = codes.of(self.component.index)[leading(self.site, selection)]
        return (self.to - activity)[..., None] * self.component.direction

    def __str__(self) -> str:
        return f"clamp {self.component} to {self.to:g}"


@dataclass(frozen=True, eq=False)
class ProjectOut(Edit):
    """The part of x along a direction, taken away: x - (x . d) d for a unit d."""

    direction: Float[Tensor, "d"]
    replaces: ClassVar[bool] = False
    along_width: ClassVar[bool] = True

    def value(self, part: Tensor, selection: Selection, arrived: Trace) -> Tensor:
        unit = self.direction.to(part) / self.direction.to(part).norm()
        return -(part @ unit)[..., None] * unit

    def __str__(self) -> str:
        return f"project a direction out of {self.site}"


@dataclass(frozen=True, eq=False)
class Masked(Edit):
    """Every component's writing scaled by its own number, the dictionary's error kept: at mask 1 nothing changes."""

    dictionary: Dictionary
    mask: Float[Tensor, "components"]
    replaces: ClassVar[bool] = False
    along_width: ClassVar[bool] = True

    @property
    def needs(self) -> tuple[Site, ...]:
        return self.dictionary.reads

    def value(self, part: Tensor, selection: Selection, arrived: Trace) -> Tensor:
        codes = arrived.codes(self.dictionary)
        change = self.dictionary.decode(codes.scaled(self.mask)) - self.dictionary.decode(codes)
        return change[leading(self.site, selection)]

    def __str__(self) -> str:
        return f"mask {type(self.dictionary).__name__} at {self.site}"


def leading(site: Site, selection: Selection) -> tuple[Index, ...]:
    """The part of the selection that falls on axes which components share. Raises Refusal where it falls on others."""
    if not site.where:
        return (Ellipsis,)
    axes = site.axes.split()
    others = [axis for axis, _ in site.where if axis not in LEADING]
    if others:
        raise Refusal(f"{site}: a component writes the whole width; choose rows and positions, not {', '.join(others)}")
    return tuple(selection.index[i] for i, axis in enumerate(axes) if axis in LEADING)


# ---------------------------------------------------------------- how they are said


def patch(site: Site, source: Trace) -> Edit:
    """Put here what was here in another run (activation patching, interchange intervention)."""
    return Patch(site, source)


def fill(site: Site, value: Float[Tensor, "..."]) -> Edit:
    """Put a fixed value here: a mean over data for mean ablation."""
    return Fill(site, value)


def zero(site: Site) -> Edit:
    """Zero ablation."""
    return Fill(site, torch.zeros(()))


def splice(dictionary: Dictionary, *, mask: Float[Tensor, "components"] | None = None) -> Edit:
    """Let a dictionary's reconstruction stand in for the network, its error dropped."""
    return Splice(written_site(dictionary), dictionary, mask)


def masked(dictionary: Dictionary, mask: Float[Tensor, "components"]) -> Edit:
    """Scale what each component writes, the dictionary's error kept."""
    return Masked(written_site(dictionary), dictionary, mask)


def function(site: Site, change: Callable[[Tensor], Tensor]) -> Edit:
    """Any function of what arrives here. It cannot be saved."""
    return Function(site, change)


def add(what: Component | Float[Tensor, "d"], strength: float, site: Site | None = None) -> Edit:
    """Add a component's direction, or a vector at a site, `strength` times over (steering)."""
    if isinstance(what, Component):
        return Add(site or written_site(what.dictionary), what.direction, strength, str(what))
    if site is None:
        raise Refusal("a vector alone does not say where: add(vector, strength, site)")
    return Add(site, what, strength)


def ablate(component: Component) -> Edit:
    """Take away what a component writes. The same line for a neuron, a latent, a part of a weight or a probe."""
    return Scale(written_site(component.dictionary), component, 0.0)


def scale(component: Component, by: float) -> Edit:
    """Make what a component writes `by` times as large."""
    return Scale(written_site(component.dictionary), component, by)


def clamp(component: Component, to: float) -> Edit:
    """Set a component's activity, keeping the dictionary's error."""
    return Clamp(written_site(component.dictionary), component, to)


def project_out(direction: Float[Tensor, "d"], site: Site) -> Edit:
    """Remove a direction from a site."""
    return ProjectOut(site, direction)


def written_site(dictionary: Dictionary) -> Site:
    if not dictionary.writes:
        raise Refusal(f"{type(dictionary).__name__} writes nothing, so it can be read but not edited")
    first, *others = dictionary.writes
    if others:
        raise Refusal(
            f"{type(dictionary).__name__} writes at {len(dictionary.writes)} sites; choose one with `OneSite`"
        )
    return first
