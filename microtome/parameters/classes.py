"""Classes of rows, and what of a weight each class has to itself."""

import torch
from jaxtyping import Float
from torch import Tensor


def split(
    weight: Float[Tensor, "*seeds out in"],
    members: Float[Tensor, "*seeds classes rows"],
    x: Float[Tensor, "*seeds rows in"],
    slope: Float[Tensor, "*seeds rows out"],
) -> Float[Tensor, "*seeds classes out in"]:
    """The weight as a sum of one part for each class, on the side where classes overlap less and less is lost.

    `x` is what each row gives the weight, `slope` where its gradient comes from. 1 in `members` says that a row is of a
    class, and 0 that it is not.
    """
    whole = weight[..., None, :, :]
    reading, writing = shares(members, x), shares(members, slope)
    read, written = whole @ reading, writing @ whole
    by_reading = overlap(reading) + lost(weight, read) <= overlap(writing) + lost(weight, written)
    return torch.where(by_reading[..., None, None, None], read, written)


def shares(
    members: Float[Tensor, "*seeds classes rows"], v: Float[Tensor, "*seeds rows d"], firm: float = 1e-4
) -> Float[Tensor, "*seeds classes d d"]:
    """For each class the matrix that takes of a vector what is the class's own; they sum to one where rows lie.

    Second moments of classes, whitened by their sum: symmetric, of eigenvalues between 0 and 1, and projections where
    classes share no direction.
    """
    counts = members.sum(-1).clamp(min=1)[..., None, None]
    each = torch.stack([(v * m[..., None]).mT @ v for m in members.unbind(-2)], -3) / counts
    sizes, axes = torch.linalg.eigh(each.sum(-3))
    firmly = sizes.clamp(min=0) + firm * sizes.mean(-1, keepdim=True).clamp(min=1e-9)
    root = (axes * firmly.rsqrt()[..., None, :]) @ axes.mT
    return root[..., None, :, :] @ each @ root[..., None, :, :]


def overlap(shares: Float[Tensor, "*seeds classes d d"]) -> Float[Tensor, "*seeds"]:
    """How far shares are from projections, between 0 and 1: 0 where classes share no direction."""
    whole = shares.diagonal(dim1=-2, dim2=-1).sum((-2, -1)).clamp(min=1e-9)
    return 1 - shares.pow(2).sum((-3, -2, -1)) / whole


def lost(
    weight: Float[Tensor, "*seeds out in"], parts: Float[Tensor, "*seeds classes out in"]
) -> Float[Tensor, "*seeds"]:
    """The share of a weight's square that parts leave over."""
    return (weight - parts.sum(-3)).pow(2).sum((-2, -1)) / weight.pow(2).sum((-2, -1)).clamp(min=1e-12)


def pure(
    alike: Float[Tensor, "*seeds rows rows"], classes: int, near: float, generator: torch.Generator, tries: int = 10
) -> Float[Tensor, "*seeds classes rows"]:
    """1 for the rows that are of one class alone, to a share of `near`.

    `alike` is taken for how far two rows belong to the same classes, and nothing belongs by less than nothing: what is
    like two classes is both. Of some tries from drawn beginnings the nearest to `alike` counts.
    """
    alike = alike.clamp(min=0)
    found = torch.stack([belonging(alike, classes, generator) for _ in range(tries)])
    best = (alike - found @ found.mT).pow(2).sum((-2, -1)).argmin(0)
    belongs = found.gather(0, best[None, ..., None, None].expand(1, *found.shape[1:]))[0]
    share = belongs / belongs.sum(-1, keepdim=True).clamp(min=1e-9)
    return ((share > near) & (belongs > 0.1)).mT.to(alike)


def belonging(
    alike: Float[Tensor, "*seeds rows rows"], classes: int, generator: torch.Generator, steps: int = 200
) -> Float[Tensor, "*seeds rows classes"]:
    """One try: `belonging belonging^T` near `alike`, by damped multiplicative steps.

    Ding, He and Simon 2005, On the Equivalence of Nonnegative Matrix Factorization and Spectral Clustering.
    """
    belongs = torch.rand(*alike.shape[:-1], classes, generator=generator, device=alike.device) + 0.1
    for _ in range(steps):
        belongs = belongs * (0.5 + 0.5 * (alike @ belongs) / (belongs @ (belongs.mT @ belongs)).clamp(min=1e-9))
    return belongs
