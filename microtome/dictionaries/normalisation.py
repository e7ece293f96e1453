"""The units in which a dictionary sees its input: its own part, so that it can be folded into the weights on export."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Normalisation(nn.Module):
    """x' = (x - mean) / scale; the identity until it is given a mean and a scale.

    With `of`, inputs are centred and their mean square per dimension becomes 1, so that one learning rate and one
    sparsity suit activations of any size.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(()))

    @classmethod
    def of(cls, sample: Float[Tensor, "rows d"]) -> "Normalisation":
        """Centre and scale as this sample of activations needs. A constant sample is left unscaled."""
        made = cls(sample.shape[1])
        made.mean.copy_(sample.double().mean(0))
        spread = (sample - made.mean).double().pow(2).mean().sqrt()
        made.scale.copy_(spread if spread > 0 else torch.ones(()))
        return made

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        return (x - self.mean) / self.scale

    def undo(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        return x * self.scale + self.mean
