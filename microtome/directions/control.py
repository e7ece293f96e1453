"""What a steer would do if its direction meant nothing: the same component, writing along a random direction."""

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.codes import Codes
from microtome.core.component import Component, Dictionary, Directions


class Redirected(Dictionary):
    """One component of a dictionary, active as it was, that writes along another direction of the same length."""

    instead: Tensor

    def __init__(self, component: Component, direction: Float[Tensor, "d_out"]) -> None:
        super().__init__()
        self.inner, self.index = component.dictionary, component.index
        self.reads, self.writes = component.dictionary.reads, component.dictionary.writes
        length = component.direction.detach().norm() / direction.norm()
        self.register_buffer("instead", direction * length)

    def encode(self, x: Float[Tensor, "... d_in"]) -> Codes:
        return self.inner.encode(x)

    def decode(self, codes: Codes) -> Float[Tensor, "... d_out"]:
        moved = self.instead - self.inner[self.index].direction
        return self.inner.decode(codes) + codes.of(self.index)[..., None] * moved

    def bypass(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "..."]:
        return self.inner.bypass(x)

    def directions(self) -> Directions:
        read, write = self.inner.directions()
        write = write.clone()
        write[..., self.index, :, :] = self.instead
        return Directions(read, write)

    def contribution(self, codes: Codes, component: int) -> Float[Tensor, "... d_out"]:
        return codes.of(component)[..., None] * self.directions().write[component, 0]


def redirected(component: Component, generator: torch.Generator) -> Component:
    """The component with a direction drawn at random, which an edit takes as it would take the component itself: what
    it adds is then as long at every place."""
    direction = component.direction.detach()
    drawn = torch.randn(direction.shape, generator=generator).to(direction)
    return Redirected(component, drawn)[component.index]
