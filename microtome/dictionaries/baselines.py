"""What a dictionary must beat: directions drawn at random, decoders of random encoders, and principal components."""

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.codes import Codes
from microtome.core.component import Dictionary, Directions
from microtome.core.linear import Linear
from microtome.core.site import Site
from microtome.dictionaries.activation_functions import TopK
from microtome.dictionaries.constraints import Free
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


def frozen_encoder(
    site: Site,
    sample: Float[Tensor, "rows d"],
    width: int,
    k: int,
    generator: torch.Generator,
    *,
    decay: float = 1e-3,
    steps: int = 30,
) -> SAE:
    """A random encoder that is never learned, under the decoder that explains most of the sample.

    The frozen baseline of "Sanity Checks for Sparse Autoencoders" (arXiv 2602.14111). The decoder is that of ridge
    regression, by conjugate gradients on the sparse codes; `decay` is relative to a component's mean sum of squares.
    """
    made = random_dictionary(site, sample, width, k, generator)
    made.constraint = Free()
    codes = as_matrix(made.encode(sample))
    ridge = decay * codes.values().square().sum() / width
    made.W_dec.copy_(ridge_regression(codes, made.normalisation(sample), ridge, steps))
    return made


def as_matrix(codes: Codes) -> Tensor:
    """Codes of rows as a sparse matrix, rows compressed."""
    rows, components, values = codes.entries()
    return torch.sparse_coo_tensor(torch.stack((rows, components)), values, (*codes.shape, codes.width)).to_sparse_csr()


def ridge_regression(
    codes: Tensor, target: Float[Tensor, "rows d"], ridge: Float[Tensor, ""], steps: int
) -> Float[Tensor, "width d"]:
    """The W of least |codes W - target|² + ridge |W|², each column of W for itself.

    By conjugate gradients, divided by how large the codes of each component are.
    """
    back = codes.to_sparse_coo().t().to_sparse_csr()
    sizes = torch.bincount(codes.col_indices(), codes.values().square(), codes.shape[1])
    easier = 1 / (sizes + ridge).clamp(min=1e-30)[:, None]
    found = target.new_zeros(codes.shape[1], target.shape[1])
    residual = back @ target
    direction = easier * residual
    size = (residual * direction).sum(0)
    goal = 1e-10 * size
    for _ in range(steps):
        if (size <= goal).all():
            break
        image = back @ (codes @ direction) + ridge * direction
        pace = size / (direction * image).sum(0).clamp(min=1e-30)
        found += pace * direction
        residual -= pace * image
        scaled = easier * residual
        size, before = (residual * scaled).sum(0), size
        direction = scaled + (size / before.clamp(min=1e-30)) * direction
    return found


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
