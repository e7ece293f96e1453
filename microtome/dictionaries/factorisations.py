"""Dictionaries found by classical factorisation: what the learned ones should be compared with, beside PCA.

Non-negative matrix factorisation (Lee and Seung 2001) and independent component analysis (Hyvärinen 1999, FastICA).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.codes import Codes, DenseCodes
from microtome.core.component import Dictionary, Directions
from microtome.core.errors import Refusal
from microtome.core.linear import Linear
from microtome.core.site import Site

SMALL = 1e-9


class NonNegative(Dictionary):
    """codes = the c >= 0 that minimises |x - c parts|, by `updates` multiplicative steps;  x̂ = c parts, parts >= 0.

    For activations that are never negative, such as those after a ReLU; each channel of a picture's layer, say.
    """

    parts: Tensor

    def __init__(self, site: Site, parts: Float[Tensor, "n d"], updates: int = 100):
        super().__init__()
        self.reads = self.writes = (site,)
        self.updates = updates
        self.register_buffer("parts", parts)

    def encode(self, x: Float[Tensor, "... d"]) -> Codes:
        """Raises Refusal for negative activations."""
        return DenseCodes(shares(refuse_negative(x), self.parts, self.updates))

    def decode(self, codes: Codes) -> Float[Tensor, "... d"]:
        return codes.times(self.parts)

    def directions(self) -> Directions:
        """What is read is a part's direction as if it stood alone."""
        return Directions((self.parts / (self.parts.pow(2).sum(1, keepdim=True) + SMALL))[:, None], self.parts[:, None])


def shares(x: Float[Tensor, "... d"], parts: Float[Tensor, "n d"], updates: int) -> Float[Tensor, "... n"]:
    """Non-negative least squares by multiplicative updates, begun from equal shares; the loss never rises."""
    wanted, overlap = x @ parts.T, parts @ parts.T
    found = torch.ones_like(wanted)
    for _ in range(updates):
        found = found * wanted / (found @ overlap + SMALL)
    return found


def refuse_negative(x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
    """The activations themselves. Raises Refusal where one is below 0."""
    if x.numel() and x.min() < 0:
        raise Refusal(
            f"an activation is {x.min().item():.3g}; non-negative factorisation is for sites that are never negative, "
            "such as those after a ReLU"
        )
    return x


def non_negative(
    site: Site, sample: Float[Tensor, "rows d"], rank: int, generator: torch.Generator, updates: int = 300
) -> NonNegative:
    """Factorise a sample. Raises Refusal for negative activations, or a rank below one."""
    if rank < 1:
        raise Refusal(f"rank is {rank}; at least one component is needed")
    refuse_negative(sample)
    rows = torch.rand(len(sample), rank, generator=generator) + 0.1
    parts = torch.rand(rank, sample.shape[1], generator=generator) + 0.1
    for _ in range(updates):
        rows *= (sample @ parts.T) / (rows @ (parts @ parts.T) + SMALL)
        parts *= (rows.T @ sample) / (rows.T @ rows @ parts + SMALL)
    return NonNegative(site, torch.nn.functional.normalize(parts, dim=1))


def independent_components(
    site: Site, sample: Float[Tensor, "rows d"], rank: int, generator: torch.Generator, updates: int = 200
) -> Linear:
    """The `rank` directions along which the whitened sample is least Gaussian, by FastICA with log cosh.

    Components are linear, always active, and of either sign. Raises Refusal where the sample has not so many
    dimensions that vary.
    """
    rows = sample.double()
    mean = rows.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov(rows.T))
    varying = int((values > 1e-10 * values[-1]).sum())
    if not 1 <= rank <= varying:
        raise Refusal(f"rank is {rank}; the sample varies along {varying} directions, so choose 1 to {varying}")
    kept, basis = values[-rank:].sqrt(), vectors[:, -rank:]
    unmix = rotated((rows - mean) @ basis / kept, generator, updates)
    read, write = unmix / kept @ basis.T, unmix * kept @ basis.T
    return Linear(site, site, read.float(), write.float(), mean.float()).requires_grad_(False)


def rotated(
    white: Float[Tensor, "rows n"], generator: torch.Generator, updates: int, enough: float = 1e-8
) -> Float[Tensor, "n n"]:
    """Symmetric FastICA: w <- E[x g(w x)] - E[g'(w x)] w for all rows w at once, then made orthogonal again."""
    n = white.shape[1]
    found = orthogonal(torch.randn(n, n, generator=generator).double())
    for _ in range(updates):
        pushed = torch.tanh(white @ found.T)
        new = orthogonal(pushed.T @ white / len(white) - (1 - pushed.pow(2)).mean(0)[:, None] * found)
        turned = 1 - (new * found).sum(1).abs().min()
        found = new
        if turned < enough:
            break
    return found


def orthogonal(rows: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """The orthogonal matrix nearest to this one."""
    left, _, right = torch.linalg.svd(rows)
    return left @ right
