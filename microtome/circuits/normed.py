"""How a gradient goes back through the norm between the stream and a branch, for many readers at once.

A norm y = g * x' / s + b, with x' = x - its mean where it centres and s the root of its mean square, has

    gradient at x  =  (C (g * v) - x^ (x^ . (g * v)) / d) / s,      x^ = x' / s

for a gradient v at y, where C takes the mean away where the norm does. So it goes back place by place, in the memory it
stands in. What is no norm is left to automatic differentiation, which takes all places together.
"""

# pyright: reportUnknownMemberType=false

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.circuits.frozen_norms import Gap, Norm, centred, probed, scale_of
from microtome.core.errors import Refusal
from microtome.core.inputs import Inputs
from microtome.core.model import Model
from microtome.core.trace import Trace

TOGETHER = 8  # gradients that automatic differentiation takes back at one time


class Normed(ABC):
    """What stands between the stream and a branch, in one run."""

    @abstractmethod
    def back_(
        self, v: Float[Tensor, "pairs readers places d"], pairs: slice, places: slice
    ) -> Float[Tensor, "pairs readers places d"]:
        """Gradients at the stream, of gradients at what the branch is given; `v` may be overwritten."""


@dataclass(frozen=True, eq=False)
class Scaled(Normed):
    """A norm: a division by one number at each place."""

    norm: Norm
    direction: Float[Tensor, "batch pos d"]  # x^

    def back_(
        self, v: Float[Tensor, "pairs readers places d"], pairs: slice, places: slice
    ) -> Float[Tensor, "pairs readers places d"]:
        direction, scale = self.direction[pairs, places], self.norm.scale[pairs, None, places]
        v.mul_(self.norm.gain)
        along = torch.einsum("brsd,bsd->brs", v, direction)
        if self.norm.centres:
            v.sub_(v.mean(-1, keepdim=True))
        return v.addcmul_(along[..., None], direction[:, None], value=-1 / v.shape[-1]).div_(scale)


@dataclass(frozen=True, eq=False)
class Differentiated(Normed):
    """Anything else."""

    given: Float[Tensor, "batch pos d"]
    stream: Float[Tensor, "batch pos d"]

    def back_(
        self, v: Float[Tensor, "pairs readers places d"], pairs: slice, places: slice
    ) -> Float[Tensor, "pairs readers places d"]:
        for start in range(0, v.shape[1], TOGETHER):
            some = v[:, start : start + TOGETHER]
            put = v.new_zeros(some.shape[1], *self.given.shape)
            put[:, pairs, places] = some.transpose(0, 1)
            (back,) = torch.autograd.grad(self.given, self.stream, put, retain_graph=True, is_grads_batched=True)
            some.copy_(back[:, pairs, places].transpose(0, 1))
        return v


def norm_between(model: Model, token: Inputs, gap: Gap) -> Norm | None:
    """The norm between two sites, at the scales of a single token; None where there is none, or none is known."""
    with torch.no_grad():
        clean = model.run(token, read=[gap.before, gap.after])
        try:
            return next(iter(probed(model, token, clean, [gap])), None)
        except Refusal:
            return None


def normed(norm: Norm | None, gap: Gap, trace: Trace) -> Normed:
    """What stands between two sites in a run, which holds both."""
    if norm is None:
        return Differentiated(trace[gap.after], trace[gap.before])
    with torch.no_grad():
        scale = scale_of(gap, norm.gain, norm.bias, norm.centres, trace)
        here = Norm(gap, norm.gain, norm.bias, norm.centres, scale)
        return Scaled(here, centred(trace[gap.before], norm.centres) / scale)
