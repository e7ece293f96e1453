"""Feature splitting: what one latent of a narrow dictionary is, several rarer ones of a wide dictionary are.

Bricken et al. 2023, Towards Monosemanticity. The parent of a wide latent is the narrow latent whose written direction
is nearest to its own by cosine, as far as that is nearer than the narrow directions come when their axes are shuffled.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from microtome.core.matching import nearest

CHANCE = 0.99  # quantile of the cosines to shuffled directions, above which a latent has a parent


@dataclass(frozen=True)
class Splitting:
    """The parent of every wide latent, -1 for none, beside the cosine to it and the one that chance gives."""

    parents: Int[Tensor, "wide"]
    cosines: Float[Tensor, "wide"]
    by_chance: Float[Tensor, "wide"]
    children: Int[Tensor, "narrow"]
    rarity: Float[Tensor, "split"]  # of every parent of several: mean density of its children over its own

    @property
    def share_with_parent(self) -> float:
        return float((self.parents >= 0).float().mean())

    @property
    def share_split(self) -> float:
        """Of the narrow latents, those with two children or more."""
        return float((self.children >= 2).float().mean())


def splitting(
    wide: Float[Tensor, "wide d"],
    narrow: Float[Tensor, "narrow d"],
    densities: tuple[Float[Tensor, "wide"], Float[Tensor, "narrow"]],
    generator: torch.Generator,
) -> Splitting:
    """From written directions and how often each latent fires. Latents that never fire should be left out before."""
    near = nearest(normalize(wide), normalize(narrow))
    shuffled = narrow[:, torch.randperm(narrow.shape[1], generator=generator)]
    by_chance = nearest(normalize(wide), normalize(shuffled)).cosines
    related = near.cosines > by_chance.quantile(CHANCE)
    parents = torch.where(related, near.latents, -1)
    children = torch.bincount(parents[related], minlength=len(narrow))
    return Splitting(parents, near.cosines, by_chance, children, rarity(parents, related, children, densities))


def rarity(
    parents: Int[Tensor, "wide"],
    related: Bool[Tensor, "wide"],
    children: Int[Tensor, "narrow"],
    densities: tuple[Float[Tensor, "wide"], Float[Tensor, "narrow"]],
) -> Float[Tensor, "split"]:
    of_wide, of_narrow = densities
    sums = torch.zeros_like(of_narrow).index_add_(0, parents[related], of_wide[related])
    split = (children >= 2) & (of_narrow > 0)
    return sums[split] / children[split] / of_narrow[split]
