"""The parts of one weight as a dictionary: each reads a direction of its input and writes one of its output."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from microtome.core.codes import Codes, DenseCodes
from microtome.core.component import Dictionary, Directions
from microtome.core.site import Site
from microtome.parameters.gates import Gate, importance_of


class WeightParts(Dictionary):
    """activity = read . x;  what is written = activity * write.  The rest of the weight and the bias go past the codes.

    So what it reconstructs is what the layer computes, whatever was learnt, and a spliced part that is left out leaves
    the layer with a weight without it. `importance` is another number, between 0 and 1: whether anything depends on it.
    """

    read: Tensor
    write: Tensor
    rest: Tensor
    bias: Tensor

    def __init__(
        self,
        reads: Site,
        writes: Site,
        read: Float[Tensor, "parts d_in"],
        write: Float[Tensor, "parts d_out"],
        rest: Float[Tensor, "d_out d_in"],
        bias: Float[Tensor, "d_out"] | None = None,
        gate: Gate | None = None,
    ):
        super().__init__()
        self.reads, self.writes = (reads,), (writes,)
        nothing = write.new_zeros(write.shape[1]) if bias is None else bias
        for name, value in {"read": read, "write": write, "rest": rest, "bias": nothing}.items():
            self.register_buffer(name, value.detach().clone())
        self.gate = gate

    def encode(self, x: Float[Tensor, "... d_in"]) -> Codes:
        return DenseCodes(x @ self.read.mT)

    def importance(self, x: Float[Tensor, "... d_in"]) -> Codes:
        """How much depends on each part, between 0 and 1; 1 where no gates were learnt."""
        h = x @ self.read.mT
        return DenseCodes(torch.ones_like(h) if self.gate is None else importance_of(self.gate(h)))

    def decode(self, codes: Codes) -> Float[Tensor, "... d_out"]:
        return codes.times(self.write)

    def bypass(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_out"]:
        return x @ self.rest.mT + self.bias

    def directions(self) -> Directions:
        return Directions(self.read[:, None], self.write[:, None])

    def weight(self, mask: Float[Tensor, "parts"] | None = None) -> Float[Tensor, "d_out d_in"]:
        """The sum of the parts, each as far as the mask says, and of the rest: with no mask, the weight."""
        write = self.write if mask is None else self.write * mask[:, None]
        return write.mT @ self.read + self.rest

    def matrices(self) -> Float[Tensor, "parts d_out d_in"]:
        """Each part as a matrix."""
        return self.write[:, :, None] * self.read[:, None, :]


def frozen(gate: nn.Module | None) -> Gate | None:
    """A gate that learns no more."""
    return None if gate is None else gate.requires_grad_(False)  # pyright: ignore[reportReturnType]
