"""What a dictionary must beat: directions drawn at random, and principal components."""

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.codes import Codes
from microtome.core.component import Dictionary, Directions
from microtome.core.linear import Linear
from microtome.core.site import Site
from microtome.dictionaries.activation_functions import TopK
from microtome.dictionaries.normalisation import UnitMeanSquare
from microtome.dictionaries.sae import SAE


def random_dictionary(
    site: Site, sample: Float[Tensor, "rows d"], width: int, k: int, generator: torch.Generator
) -> SAE:
    """An untrained dictionary: random unit directions read and written, the k largest kept, one gain for all.

    The gain is the one that explains most of the sample's variance; without it k overlapping directions overshoot.
    """
    made = SAE(site, sample.shape[1], width, TopK(k), UnitMeanSquare.of(sample), generator=generator).requires_grad_(
        False
    )
    x = made.normalisation(sample)
    guess = made.encode(sample).times(made.W_dec)
    gain = (x * guess).sum() / guess.pow(2).sum()
    made.W_enc.mul_(gain)
    return made


def principal_components(site: Site, sample: Float[Tensor, "rows d"], rank: int) -> Linear:
    """The `rank` directions of largest variance, as a dictionary whose components are always active."""
    mean = sample.double().mean(0)
    covariance = torch.cov((sample.double() - mean).T)
    _, vectors = torch.linalg.eigh(covariance)
    basis = vectors[:, -rank:].flip(1).T.float().contiguous()
    return Linear(site, site, basis, basis.clone(), mean.float()).requires_grad_(False)


class Strongest(Dictionary):
    """The k components of another dictionary that are largest in magnitude at each place, the others silenced."""

    def __init__(self, inner: Dictionary, k: int):
        super().__init__()
        self.inner, self.k, self.reads, self.writes = inner, k, inner.reads, inner.writes

    def encode(self, x: Float[Tensor, "... d_in"]) -> Codes:
        return self.inner.encode(x).top(self.k)

    def decode(self, codes: Codes) -> Float[Tensor, "... d_out"]:
        return self.inner.decode(codes)

    def directions(self) -> Directions:
        return self.inner.directions()
