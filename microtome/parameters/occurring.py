"""Where parts begin that tell inputs apart: one for each that occurs often, or one for each number of an input."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

from microtome.parameters.begin import Begin, Met, commonest, directions, pick
from microtome.parameters.decomposed import Factors

FAINT = 0.1  # of what inputs have most of in common: directions of less are not told apart


@dataclass(frozen=True)
class FromInputs(Begin):
    """Each part is active on one input that occurs often, and on none of the others; together they sum to the weight.

    Inputs are one where they are within `near` of a line, whatever their sign, so that a feature that drives other
    neurons when it is negative is still one part; those that come `often` times or more in the sample count. Where they
    are more than an input has numbers, no part can be active on one of them alone; there each number of the input gets
    a part: the neurons, of a weight that reads neurons. Activations begin between -1 and 1. Parts that are left begin
    small. Nothing is asked of what no input has a share in.
    """

    near: float = 0.9
    small: float = 0.01
    often: int = 3

    def factors(
        self, met: Met, weight: Float[Tensor, "*seeds out in"], parts: int, generator: torch.Generator
    ) -> Factors:
        lead, size = weight.shape[:-2], weight.shape[-1]
        occurring, found = self._occurring(normalize(met.x, dim=-1), parts)
        axes = torch.eye(size, parts, device=weight.device, dtype=weight.dtype).mT.expand(*lead, parts, size)
        crowded = (found.sum(-1) > size)[..., None, None]
        inputs = torch.where(crowded, axes, occurring * found[..., None])
        read, write = torch.linalg.pinv(inputs.mT, rtol=FAINT), inputs @ weight.mT
        most = (met.x @ read.mT).abs().amax(-2)[..., None]
        read, write = read / most.clamp(min=1e-6), write * most
        spare = [self.small * directions((*lead, parts, w), generator) for w in (size, weight.shape[-2])]
        return Factors(read + spare[0], write + spare[1])

    def _occurring(
        self, x: Float[Tensor, "*seeds rows in"], parts: int
    ) -> tuple[Float[Tensor, "*seeds parts in"], Bool[Tensor, "*seeds parts"]]:
        """Inputs, those most like the others first, and which of them come often."""
        alike = (x @ x.mT).abs() > self.near
        rows, fresh = commonest(alike, parts)
        return pick(x, rows), fresh & (alike.sum(-1).gather(-1, rows) >= self.often)
