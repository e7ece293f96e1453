"""What stays the same when a dictionary is trained again, or wider: latents matched, split and absorbed.

Latents are compared by what they write, in the units of the site, and by when they fire. Nothing here trains: give it
two dictionaries and rows. Splitting: Bricken et al. 2023. Absorption: Chanin et al. 2024, arXiv 2409.14507. Shared
latents across seeds: Paulo and Belrose 2025, arXiv 2501.16615.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from microtome.core.component import Dictionary
from microtome.core.matching import Matches, mutual, nearest, refuse_other_space


def written(dictionary: Dictionary) -> Float[Tensor, "latents d"]:
    """What each latent writes, as a vector of length 1, several sites side by side."""
    write = dictionary.directions().write.detach().float()
    flat = write[:, 0] if write.ndim == 3 else rearrange(write[:, :, 0], "site latents d -> latents (site d)")
    return normalize(flat, dim=1)


# ---------------------------------------------------------------- seeds


@dataclass(frozen=True)
class Shared:
    """How much of the first dictionary is in the second.

    `fraction`: of its latents, those whose mutual nearest writes with a cosine of `least` or more. `cosine`: the mean
    over its latents of the nearest's. `chance` and `cosine_by_chance`: the same with a second dictionary of directions
    drawn anew, which have the mean and the covariance of its own: what two dictionaries agree on because activations
    lie in few directions.
    """

    fraction: float
    cosine: float
    chance: float
    cosine_by_chance: float
    matches: Matches


def shared(
    first: Dictionary,
    second: Dictionary,
    *,
    generator: torch.Generator,
    least: float = 0.7,
    live: tuple[Tensor, Tensor] | None = None,
) -> Shared:
    """Match two dictionaries. `live`: the latents of each that fire (see `firing`), if only these are to count."""
    a, b = written(first), written(second)
    numbers = (torch.arange(len(a), device=a.device), torch.arange(len(b), device=b.device)) if live is None else live
    a, b = a[numbers[0]], b[numbers[1]]
    drawn = alike(b, generator)
    found, by_chance = mutual(a, b), mutual(a, drawn)
    good = found.cosines >= least
    return Shared(
        fraction=good.sum().item() / max(1, len(a)),
        cosine=nearest(a, b).cosines.mean().item(),
        chance=(by_chance.cosines >= least).sum().item() / max(1, len(a)),
        cosine_by_chance=nearest(a, drawn).cosines.mean().item(),
        matches=Matches(numbers[0][found.first[good]], numbers[1][found.second[good]], found.cosines[good]),
    )


def rotation(size: int, generator: torch.Generator) -> Float[Tensor, "size size"]:
    """Drawn uniformly from all rotations and reflections: it turns one dictionary's directions away from another's."""
    q, r = torch.linalg.qr(torch.randn(size, size, generator=generator))
    return q * r.diagonal().sign()


def alike(directions: Float[Tensor, "n d"], generator: torch.Generator) -> Float[Tensor, "n d"]:
    """As many directions of length 1, drawn from a normal distribution with the mean and covariance of these."""
    mean = directions.mean(0)
    _, sizes, axes = torch.linalg.svd(directions - mean, full_matrices=False)
    noise = torch.randn(len(directions), len(sizes), generator=generator).to(directions)
    return normalize(mean + noise * (sizes / len(directions) ** 0.5) @ axes, dim=1)


# ---------------------------------------------------------------- widths


@dataclass(frozen=True)
class Splits:
    """What became of each latent of a narrow dictionary in a wider one.

    `parts`: for each narrow latent the wide ones that write most like it of all narrow latents, with a cosine of at
    least what was asked, the most alike first. Wide latents that are like none are `novel`.
    """

    parts: list[list[int]]
    novel: list[int]

    @property
    def split(self) -> list[int]:
        """The narrow latents that became more than one."""
        return [latent for latent, parts in enumerate(self.parts) if len(parts) > 1]

    @property
    def lost(self) -> list[int]:
        """The narrow latents that no wide one is like."""
        return [latent for latent, parts in enumerate(self.parts) if not parts]


def splits(narrow: Dictionary, wide: Dictionary, *, least: float = 0.5) -> Splits:
    """Follow the latents of a narrow dictionary into a wider one."""
    small, large = written(narrow), written(wide)
    refuse_other_space(small, large)
    found = nearest(large, small)
    parts: list[list[int]] = [[] for _ in range(len(small))]
    novel = []
    for latent in found.cosines.argsort(descending=True).tolist():
        if found.cosines[latent] >= least:
            parts[int(found.latents[latent])].append(latent)
        else:
            novel.append(latent)
    return Splits(parts, sorted(novel))


# ---------------------------------------------------------------- firing


class Cofiring(NamedTuple):
    """How often latents fire on the same rows: of the pairs that ever do, and of each by itself."""

    first: Int[Tensor, "pairs"]
    second: Int[Tensor, "pairs"]
    both: Int[Tensor, "pairs"]
    alone_first: Int[Tensor, "latents"]
    alone_second: Int[Tensor, "others"]


@torch.no_grad()
def firing(dictionary: Dictionary, x: Float[Tensor, "rows d"], batch: int = 4096) -> Tensor:
    """Which latent is active on which row, as a sparse matrix of ones, rows by latents.

    Several read sites stand on a leading axis, as `encode` takes them.
    """
    found, start = [], 0
    for part in x.split(batch, dim=-2):
        entries = dictionary.encode(part).entries()
        found.append(torch.stack([entries.rows + start, entries.components]))
        start += part.shape[-2]
    places = torch.cat(found, 1)
    ones = torch.ones(places.shape[1], device=places.device)
    return torch.sparse_coo_tensor(places, ones, (start, len(dictionary)), check_invariants=False).coalesce()


def cofiring(first: Tensor, second: Tensor) -> Cofiring:
    """Count, from what `firing` gives for two dictionaries on the same rows."""
    together = torch.sparse.mm(first.t(), second).coalesce()
    one, other = together.indices()
    counts = [torch.bincount(each.indices()[1], minlength=each.shape[1]) for each in (first, second)]
    return Cofiring(one, other, together.values().round().long(), *counts)


class Subsets(NamedTuple):
    """Pairs in which one latent fires (almost) only where another does, and less often than it."""

    part: Int[Tensor, "pairs"]
    whole: Int[Tensor, "pairs"]
    share: Float[Tensor, "pairs"]  # of the rows where `part` fires, those where `whole` does


def subsets(fires: Tensor, *, least: float = 0.95, seldom: int = 10, most: float = 0.5) -> Subsets:
    """Which latents of a dictionary fire within which others.

    Only latents that fire on at least `seldom` rows, and that are at most `most` as frequent as the other: otherwise
    the two are the same.
    """
    counts = cofiring(fires, fires)
    part, whole = counts.alone_first[counts.first], counts.alone_first[counts.second]
    share = counts.both / part
    kept = (counts.first != counts.second) & (share >= least) & (part >= seldom) & (part <= most * whole)
    return Subsets(counts.first[kept], counts.second[kept], share[kept])


@dataclass(frozen=True)
class Absorbed:
    """A latent of a narrow dictionary whose wide counterpart is silent on rows that another wide latent has taken over.

    `general` fires on `rows` rows; of these `kept` fires on the share `by_kept`, and of those where it is silent
    `taker` fires on the share `by_taker`. `taker` writes the general direction too: with `cosine` to it.
    """

    general: int
    kept: int
    taker: int
    rows: int
    by_kept: float
    by_taker: float
    cosine: float


def absorbed(
    narrow: Dictionary,
    wide: Dictionary,
    x: Float[Tensor, "rows d"],
    *,
    alike: float = 0.7,
    least: float = 0.5,
    cosine: float = 0.2,
    seldom: int = 10,
) -> list[Absorbed]:
    """Where a wider dictionary has holes: found by firing alone, so a sign of absorption and not its proof.

    A counterpart writes with a cosine of at least `alike` and is mutual nearest. A hole is reported where it counts at
    least `seldom` rows, and one latent fires on at least the share `least` of it, that writes with at least `cosine` to
    the general direction and fires seldom beside the counterpart.
    """
    small, large = written(narrow), written(wide)
    on_small, on_large = firing(narrow, x), firing(wide, x)
    found = []
    for general, kept, near in zip(*mutual(small, large), strict=True):
        if near >= alike:
            hole = Hole(on_small, on_large, int(general), int(kept))
            if hole.rows >= seldom:
                found += hole.taken(large @ small[general], least, cosine)
    return found


class Hole:
    """The rows on which a narrow latent fires and its wide counterpart does not."""

    def __init__(self, on_small: Tensor, on_large: Tensor, general: int, kept: int):
        self.general, self.kept, self.on_large = general, kept, on_large
        here, there = mask(on_small, general), mask(on_large, kept)
        self.silent, self.fires, self.all = here & ~there, here & there, int(here.sum())
        self.rows = int(self.silent.sum())

    def taken(self, cosines: Float[Tensor, "latents"], least: float, cosine: float) -> list[Absorbed]:
        """The latents that fire in the hole rather than where the counterpart does."""
        rows, latents = self.on_large.indices()
        width = self.on_large.shape[1]
        inside = torch.bincount(latents[self.silent[rows]], minlength=width) / self.rows
        beside = torch.bincount(latents[self.fires[rows]], minlength=width) / max(1, int(self.fires.sum()))
        takers = ((inside >= least) & (beside < inside) & (cosines >= cosine)).nonzero()[:, 0].tolist()
        by_kept = 1 - self.rows / self.all
        return [
            Absorbed(self.general, self.kept, t, self.all, by_kept, inside[t].item(), cosines[t].item())
            for t in takers
            if t != self.kept
        ]


def mask(fires: Tensor, latent: int) -> Tensor:
    """The rows on which a latent is active."""
    rows, latents = fires.indices()
    found = torch.zeros(fires.shape[0], dtype=torch.bool, device=fires.device)
    found[rows[latents == latent]] = True
    return found
