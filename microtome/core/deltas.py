"""Edits that add to what arrived at a site: a vector, or a change of what components write there."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from abc import ABC
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from microtome.core.component import Component, Dictionary
from microtome.core.editing import Edit, leading
from microtome.core.errors import Refusal
from microtome.core.site import Selection, Site
from microtome.core.trace import Trace


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
