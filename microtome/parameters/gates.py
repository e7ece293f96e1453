"""How important a part is on a row: a function of its activation, pushed between 0 and 1.

Bushnaq et al. 2025 (arXiv 2506.20790): hard sigmoids that leak so that no gate is stuck. As Goodfire 2026 (VPD) amends
it, the lower leak is in the gradient alone, and there only where the gate would rise: masks are never negative.
"""

from abc import ABC, abstractmethod
from copy import deepcopy
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from microtome.core.errors import Refusal

LEAK = 0.01


class LowerLeaky(torch.autograd.Function):
    """clamp(z, 0, 1); below 0 a hundredth of the gradient passes, where it would raise z."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, z: Tensor) -> Tensor:
        ctx.save_for_backward(z)
        return z.clamp(0, 1)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        (z,) = ctx.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]
        passes = (z >= 0) & (z <= 1)
        leaks = (z < 0) & (gradient < 0)
        return gradient * (passes + LEAK * leaks)


def importance_of(z: Float[Tensor, "*rows parts"]) -> Float[Tensor, "*rows parts"]:
    """Between 0 and 1: what masks are made of."""
    return LowerLeaky.apply(z)  # pyright: ignore[reportReturnType]


def cost_of(z: Float[Tensor, "*rows parts"]) -> Float[Tensor, "*rows parts"]:
    """0 below 0 and hardly more than 1 above 1, so that what is far above comes down: what minimality is made of."""
    return torch.where(z > 1, 1 + LEAK * (z - 1), z.clamp(min=0))


class Gate(nn.Module, ABC):
    """From the activations of the parts of one weight to numbers whose place in [0, 1] is their importance."""

    shape: "Shape"

    @abstractmethod
    def forward(self, h: Float[Tensor, "*rows parts"]) -> Float[Tensor, "*rows parts"]:
        """With a seed axis, h is (seed, row, ..., part)."""

    def of_seed(self, seed: int) -> "Gate":
        """The gates of one seed, without the seed axis."""
        one = deepcopy(self)
        one.shape = Shape((), self.shape.parts)
        for name, weight in self.named_parameters(recurse=False):
            setattr(one, name, nn.Parameter(weight.detach()[seed].clone()))
        return one


@dataclass(frozen=True)
class Shape:
    """What a gate is made for: the seeds (an empty tuple: no such axis) and the parts."""

    lead: tuple[int, ...]
    parts: int

    def over(self, weight: Tensor, h: Tensor) -> Tensor:
        """A tensor (*seeds, parts) or (*seeds, parts, hidden), to broadcast against rows."""
        between = h.ndim - len(self.lead) - 1
        behind = weight.shape[len(self.lead) :]
        return weight.reshape(*self.lead, *[1] * between, *behind)


class OneMLP(Gate):
    """z = w_out gelu(w_in h + b_in) + b_out, one for each part: the gate of the SPD paper, of 16 hidden units there."""

    def __init__(self, shape: Shape, hidden: int, generator: torch.Generator):
        super().__init__()
        self.shape = shape
        size = (*shape.lead, shape.parts, hidden)
        self.w_in = nn.Parameter(torch.randn(size, generator=generator, device=generator.device))
        self.b_in = nn.Parameter(torch.zeros_like(self.w_in))
        self.w_out = nn.Parameter(torch.randn(size, generator=generator, device=generator.device) / hidden**0.5)
        self.b_out = nn.Parameter(self.w_out.new_zeros(size[:-1]))

    def forward(self, h: Float[Tensor, "*rows parts"]) -> Float[Tensor, "*rows parts"]:
        w_in, b_in, w_out, b_out = (self.shape.over(x, h) for x in (self.w_in, self.b_in, self.w_out, self.b_out))
        return (F.gelu(torch.addcmul(b_in, w_in, h[..., None])) * w_out).sum(-1) + b_out


class Hinge(Gate):
    """z = w |h| + v h + b: three numbers a part, a tenth of the time of a small network. It begins as w |h| + b."""

    def __init__(self, shape: Shape, size: float, offset: float):
        super().__init__()
        self.shape = shape
        self.size, self.slope, self.offset = (
            nn.Parameter(torch.full((*shape.lead, shape.parts), at)) for at in (size, 0.0, offset)
        )

    def forward(self, h: Float[Tensor, "*rows parts"]) -> Float[Tensor, "*rows parts"]:
        size, slope, offset = (self.shape.over(x, h) for x in (self.size, self.slope, self.offset))
        return torch.addcmul(offset, h.abs(), size) + h * slope


class GateKind(ABC):
    """Which gate each weight gets."""

    @abstractmethod
    def make(self, shape: Shape, generator: torch.Generator) -> Gate:
        """Gates of one weight's parts, yet to be fitted."""
        ...


@dataclass(frozen=True)
class MLPGates(GateKind):
    """A small network for each part. Raises Refusal for fewer than one hidden unit."""

    hidden: int = 8

    def __post_init__(self) -> None:
        if self.hidden < 1:
            raise Refusal(f"a gate of {self.hidden} hidden units says nothing; give at least 1")

    def make(self, shape: Shape, generator: torch.Generator) -> Gate:
        return OneMLP(shape, self.hidden, generator)


@dataclass(frozen=True)
class HingeGates(GateKind):
    """Three numbers for each part. At first a part matters from .3 on and fully from .5, for inputs of size 1.

    Steep gates tell a feature's own rows from those of its neighbours, which its part reads a little of.
    """

    size: float = 6.0
    offset: float = -1.8

    def make(self, shape: Shape, generator: torch.Generator) -> Gate:
        return Hinge(shape, self.size, self.offset).to(generator.device)
