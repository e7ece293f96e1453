"""Functions of numbers modulo a prime as sums of waves: the modes that networks for modular addition compute with.

Row 0 of the basis is constant; rows 2k - 1 and 2k are cos(2 pi k a / p) and sin(2 pi k a / p), of length 1.
Nanda et al. 2023, Progress measures for grokking via mechanistic interpretability (arXiv 2301.05217), Section 4.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.errors import NoSuchComponent, Refusal
from microtome.core.linear import Linear
from microtome.core.site import Site

LEAST_CONDITION = 1e-5  # of the smallest to the largest direction: below it, activities are rounding errors


def basis(p: int, dtype: torch.dtype = torch.float32) -> Float[Tensor, "p p"]:
    """The orthonormal basis, a mode a row. Raises Refusal where p is even or below 3: waves come in pairs."""
    if p < 3 or p % 2 == 0:
        raise Refusal(f"{p} is no odd modulus; give an odd number of at least 3, as 113")
    angles = 2 * math.pi * torch.outer(torch.arange(1, p // 2 + 1), torch.arange(p)).remainder(p).double() / p
    waves = torch.stack((angles.cos(), angles.sin()), 1).flatten(0, 1) * math.sqrt(2 / p)
    return torch.cat((torch.full((1, p), p**-0.5, dtype=torch.float64), waves)).to(dtype)


def rows_of(frequencies: Sequence[int], p: int) -> list[int]:
    """The places of the modes of these frequencies in the basis. Raises NoSuchComponent for one outside 1..p // 2."""
    for k in frequencies:
        if not 1 <= k <= p // 2:
            raise NoSuchComponent(f"frequency {k} is outside 1..{p // 2}; those modulo {p} end there")
    return [row for k in frequencies for row in (2 * k - 1, 2 * k)]


def mode_names(p: int) -> list[str]:
    """What each row of the basis is: `1`, `cos 1`, `sin 1`, `cos 2` and so on."""
    return ["1", *(f"{wave} {k}" for k in range(1, p // 2 + 1) for wave in ("cos", "sin"))]


def spectrum(x: Float[Tensor, "p *rest"]) -> Float[Tensor, "p *rest"]:
    """A function of one number by its modes, along the first axis."""
    return torch.tensordot(basis(len(x), x.dtype).to(x.device), x, dims=1)


def pair_spectrum(x: Float[Tensor, "p p *rest"]) -> Float[Tensor, "p p *rest"]:
    """A function of two numbers by products of their modes, along the first two axes."""
    return spectrum(spectrum(x).transpose(0, 1)).transpose(0, 1)


def power(x: Float[Tensor, "p *rest"]) -> Float[Tensor, "frequencies"]:
    """The squared length of x at each frequency, cosine and sine together, the constant left out."""
    return spectrum(x)[1:].flatten(1).square().sum(1).view(-1, 2).sum(1) if x.ndim > 1 else power(x[:, None])


def gini(x: Float[Tensor, "n"]) -> float:
    """How unequal the sizes are: 0 where all are equal, near 1 where one is all. Hurley and Rickard 2009."""
    sizes = x.double().abs().sort().values
    if not sizes.sum() > 0:
        raise Refusal("a Gini coefficient needs numbers of which one at least is not 0")
    ranks = torch.arange(1, len(sizes) + 1, dtype=torch.float64, device=x.device)
    return float(2 * (ranks * sizes).sum() / (len(sizes) * sizes.sum()) - (len(sizes) + 1) / len(sizes))


def embedding_modes(site: Site, embedding: Float[Tensor, "p d"], frequencies: Sequence[int] | None = None) -> Linear:
    """The modes as components where numbers are embedded: E[a] = sum over modes of mode(a) (mode . E).

    A component's activity on the embedding of a is its mode at a, and what it writes is the mode's share of E. Without
    `frequencies` all modes are there, and they reconstruct E exactly. Raises Refusal where the directions of those
    asked for are linearly dependent, so that activities have no meaning: then ask for fewer.
    """
    p = len(embedding)
    rows = list(range(p)) if frequencies is None else rows_of(frequencies, p)
    modes = basis(p, torch.float64).to(embedding.device)
    written = modes @ embedding.detach().double()
    sizes = torch.linalg.svdvals(written if frequencies is None else written[rows])
    if len(sizes) < len(rows) or sizes[-1] < LEAST_CONDITION * sizes[0]:
        raise Refusal(
            f"{len(rows)} modes write fewer independent directions in an embedding of width {embedding.shape[1]}; "
            "name fewer frequencies, such as the key ones"
        )
    read = torch.linalg.pinv(written)[:, rows].T if independent(written) else torch.linalg.pinv(written[rows]).T
    return Linear(site, site, read.to(embedding.dtype), written[rows].to(embedding.dtype))


def independent(written: Float[Tensor, "modes d"]) -> bool:
    """Whether all modes have directions of their own, so that reading one is blind to all others."""
    sizes = torch.linalg.svdvals(written)
    return len(sizes) == len(written) and bool(sizes[-1] >= LEAST_CONDITION * sizes[0])


def output_modes(site: Site, p: int) -> Linear:
    """The modes as components of logits over p answers: an orthonormal basis, each reads what it writes."""
    return Linear(site, site, basis(p))
