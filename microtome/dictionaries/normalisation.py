"""The units in which a dictionary sees its input: a part of its own, folded into the weights on export.

Fixed units are the same for every token and can be undone from codes alone. Units of a token (layer norm, unit norm)
depend on it: there codes carry the token's own scale, so that what a component writes is in the units of the site.
"""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from microtome.core.errors import Refusal


class Normalisation(nn.Module, ABC):
    """x' = forward(x), and back: x = scale(x) undo(x') + offset(x), where fixed units have scale 1 and offset 0."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width

    @abstractmethod
    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        """The input in the dictionary's units."""

    def undo(self, y: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        """Back into the units of the site, as far as that is the same for every token."""
        return y

    def reading(self, directions: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """What is read at the site by someone who reads these directions after normalisation."""
        return directions

    def writing(self, directions: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """What is written at the site by someone who writes these directions before it is undone."""
        return directions


class Fixed(Normalisation, ABC):
    """Units that are the same for every token."""


class OfToken(Normalisation, ABC):
    """Units that each token brings with it."""

    @abstractmethod
    def scale(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... 1"]:
        """How large the token is in these units."""

    def offset(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... 1"]:
        """What the token has in all its dimensions."""
        return x.new_zeros(*x.shape[:-1], 1)

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        return (x - self.offset(x)) / self.scale(x)


class Unchanged(Fixed):
    """x' = x"""

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        return x


class UnitMeanSquare(Fixed):
    """x' = (x - mean) / scale: centred, and of mean square 1 in a dimension.

    One learning rate and one sparsity then suit activations of any size. Rajamanoharan et al. 2024 (arXiv 2407.14435,
    section 3). The identity until it is given a mean and a scale.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, width: int):
        super().__init__(width)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(()))

    @classmethod
    def of(cls, sample: Float[Tensor, "rows d"]) -> "UnitMeanSquare":
        """Centre and scale as this sample of activations needs. A constant sample is left unscaled."""
        made = cls(sample.shape[1])
        made.mean.copy_(sample.double().mean(0))
        spread = (sample - made.mean).double().pow(2).mean().sqrt()
        made.scale.copy_(spread if spread > 0 else torch.ones(()))
        return made

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        return (x - self.mean) / self.scale

    def undo(self, y: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        return y * self.scale + self.mean

    def reading(self, directions: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        return directions / self.scale

    def writing(self, directions: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        return directions * self.scale


class Whitening(Fixed):
    """x' = W (x - mean), whose covariance is the identity: W = covariance^-1/2.

    Saraswatula and Klindt 2025 (arXiv 2511.13981). Directions whose variance lies below `floor` times the largest are
    raised to that, so that noise is not blown up.
    """

    mean: Tensor
    forth: Tensor
    back: Tensor

    def __init__(self, width: int):
        super().__init__(width)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("forth", torch.eye(width))
        self.register_buffer("back", torch.eye(width))

    @classmethod
    def of(cls, sample: Float[Tensor, "rows d"], floor: float = 1e-5) -> "Whitening":
        """Whiten this sample of activations. Raises Refusal for a sample that does not vary."""
        made = cls(sample.shape[1])
        rows = sample.double()
        values, vectors = torch.linalg.eigh(torch.cov(rows.T))
        if not values[-1] > 0:
            raise Refusal("the activations are constant, so they cannot be whitened; harvest another site")
        values = values.clamp(min=floor * values[-1])
        made.mean.copy_(rows.mean(0))
        made.forth.copy_(vectors / values.sqrt() @ vectors.T)
        made.back.copy_(vectors * values.sqrt() @ vectors.T)
        return made

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        return (x - self.mean) @ self.forth

    def undo(self, y: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        return y @ self.back + self.mean

    def reading(self, directions: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        return directions @ self.forth.T

    def writing(self, directions: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        return directions @ self.back


class LayerNorm(OfToken):
    """x' = (x - mean of its dimensions) / (their standard deviation + eps). Gao et al. 2024, appendix A.1."""

    eps = 1e-5

    def scale(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... 1"]:
        return x.std(-1, keepdim=True) + self.eps

    def offset(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... 1"]:
        return x.mean(-1, keepdim=True)


class UnitNorm(OfToken):
    """x' = sqrt(d) x / |x|: every token of the same length."""

    def scale(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... 1"]:
        return x.norm(dim=-1, keepdim=True).clamp(min=1e-12) / x.shape[-1] ** 0.5
