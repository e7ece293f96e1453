"""What an edit is, and what leaves a site where edits meet.

Edits look at what *arrived* at a site. At one place there is at most one replacement, then the sum of all deltas, each
computed from what arrived; so the order of edits never matters. The trace of a run holds what *left*.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from microtome.core.errors import Conflict, Refusal
from microtome.core.inputs import At
from microtome.core.site import LEADING, Index, Selection, Site
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
    """What an edit makes of its part, which it sees with the width last where it works along the width."""
    if not edit.along_width:
        return edit.value(part, selection, arrived)
    axis = edit.site.width_axis_of(selection)
    return edit.value(part.movedim(axis, -1), selection, arrived).movedim(-1, axis)


def refuse_two_replacements(edits: Sequence[Edit], selections: Sequence[Selection], x: Tensor) -> None:
    """Raises Conflict where two edits of one site would both replace the same number."""
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
    """Whether two selections of a tensor like this share a place."""
    places = torch.zeros_like(like)
    places[one] = True
    return bool(places[other].any())


def leading(site: Site, selection: Selection) -> tuple[Index, ...]:
    """The part of the selection that falls on axes which components share. Raises Refusal where it falls on others."""
    if not site.where:
        return (Ellipsis,)
    axes = site.axes.split()
    others = [axis for axis, _ in site.where if axis not in LEADING]
    if others:
        raise Refusal(f"{site}: a component writes the whole width; choose rows and positions, not {', '.join(others)}")
    return tuple(selection.index[i] for i, axis in enumerate(axes) if axis in LEADING)
