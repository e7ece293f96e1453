"""Activations whose features are known: what a dictionary ought to find in them, and when, is no matter of opinion.

x = offset + sum over active features of magnitude times direction + noise.

Features are unit directions in fewer dimensions than there are features. They fire with frequencies that fall as a
power of their rank, some together more often than by chance, and some only while another one, their parent, does.
After SynthSAEBench (arXiv 2602.14687), whose largest preset `bench_16k` follows where its settings are known.
"""

# pyright: reportUnknownMemberType=false

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from microtome.core.codes import RaggedCodes
from microtome.core.errors import Refusal

NONE = -1  # in a table of parents or children: there is none


def power_law(features: int, high: float = 0.4, low: float = 5e-4, exponent: float = 0.5) -> Float[Tensor, "features"]:
    """Frequencies that fall as rank to the minus `exponent`, stretched to run from `high` to `low`."""
    if not 0 < low <= high < 1:
        raise Refusal(f"frequencies from {high:g} to {low:g} are asked for; give 0 < low <= high < 1")
    ranks = torch.arange(1, features + 1, dtype=torch.float64) ** -exponent
    least = features**-exponent
    share = (ranks - least) / (1 - least) if features > 1 and exponent > 0 else torch.ones_like(ranks)
    return (low + (high - low) * share).float()


@dataclass(frozen=True)
class Trees:
    """Features that fire only with their parent: so many roots, each with `branching` children, `depth` times over.

    Where siblings are `exclusive` at most one of them fires at a time.
    """

    roots: int
    branching: int
    depth: int
    exclusive: bool = False

    def __post_init__(self):
        if min(self.roots, self.branching, self.depth) < 1:
            raise Refusal(f"{self} is no forest; roots, branching and depth are at least 1 each")

    def __len__(self) -> int:
        return self.roots * sum(self.branching**level for level in range(self.depth + 1))

    def parents(self) -> Int[Tensor, "members"]:
        """The parent of each member, counted level by level from the roots, who have none."""
        return torch.arange(len(self)).sub(self.roots).div(self.branching, rounding_mode="floor").clamp(min=NONE)


@dataclass(frozen=True)
class LowRank:
    """Features that fire together: `share` of what decides whether one fires comes from `rank` causes common to all.

    A feature without a parent fires where a normal variable lies below the quantile of its frequency. Those of
    features i and j have a correlation of share times the cosine of two random directions in `rank` dimensions.
    """

    rank: int
    share: float

    def __post_init__(self):
        if self.rank < 1 or not 0 <= self.share < 1:
            raise Refusal(f"{self} cannot be drawn; give a rank of at least 1 and a share from 0 to below 1")

    def loadings(self, features: int, generator: torch.Generator) -> Float[Tensor, "features rank"]:
        """How much each common cause weighs in each feature."""
        drawn = torch.randn(features, self.rank, generator=generator, device=generator.device)
        return normalize(drawn, dim=1) * self.share**0.5


class Truth(NamedTuple):
    """What there is to be found.

    `frequency` is the exact probability that a feature fires; `parent` the feature without which it does not, or -1.
    """

    directions: Float[Tensor, "features d"]
    frequency: Float[Tensor, "features"]
    parent: Int[Tensor, "features"]


class Drawn(NamedTuple):
    """Activations, and which features made them, how strongly."""

    x: Float[Tensor, "rows d"]
    codes: RaggedCodes


class Fired(NamedTuple):
    """Rows, and the features that fire in them, pair by pair."""

    rows: Int[Tensor, "entries"]
    features: Int[Tensor, "entries"]


class Synthetic:
    """A source of activations with known features.

    `frequencies` are those asked for; `truth.frequency` those that are so: a child can be no more frequent than its
    parent, and exclusive siblings together no more. Members of trees are chosen at random, parents the more frequent.
    Magnitudes are lognormal with this mean and standard deviation; `noise` is the standard deviation in each
    dimension; `offset` the length of what is added to every row. `apart` is the number of steps by which the
    directions are pushed away from one another. The generator draws what is fixed, and its device is where all is.
    """

    def __init__(
        self,
        features: int,
        d: int,
        *,
        generator: torch.Generator,
        frequencies: Float[Tensor, "features"] | None = None,
        trees: Trees | None = None,
        correlation: LowRank | None = None,
        magnitude: tuple[float, float] = (1.0, 0.2),
        noise: float = 0.0,
        offset: float = 0.0,
        apart: int = 0,
    ):
        refuse_nonsense(features, d, trees, magnitude, noise)
        device = generator.device
        asked = (power_law(features) if frequencies is None else frequencies).to(device)
        if len(asked) != features or not ((asked > 0) & (asked <= 1)).all():
            raise Refusal(f"the frequencies must be {features} numbers above 0 and at most 1; given {asked}")
        self.magnitude, self.noise, self.exclusive = magnitude, noise, trees is not None and trees.exclusive
        drawn = normalize(torch.randn(features, d, generator=generator, device=device), dim=1)
        self.offset = offset * normalize(torch.randn(d, generator=generator, device=device), dim=0)
        parent = grown(trees, asked, generator)
        self.children = children_of(parent, trees.branching if trees else 0)
        frequency = attainable(asked, parent, self.children, self.exclusive)
        self.chance = frequency / frequency[parent].where(parent != NONE, 1.0)  # of firing where the parent does
        self.truth = Truth(pushed_apart(drawn, apart), frequency, parent)
        self.free = (parent == NONE).nonzero()[:, 0]
        self.loadings = correlation.loadings(len(self.free), generator) if correlation else None

    @property
    def l0(self) -> float:
        """The expected number of active features in a row."""
        return self.truth.frequency.sum().item()

    def draw(self, rows: int, generator: torch.Generator) -> Drawn:
        """So many rows. The same state of the generator draws the same."""
        fired = self._fired(rows, generator)
        size, (mean, spread) = len(fired.rows), self.magnitude
        wide = math.log1p((spread / mean) ** 2)
        normal = torch.randn(size, generator=generator, device=generator.device)
        values = (normal * wide**0.5 + math.log(mean) - wide / 2).exp()
        offsets = torch.searchsorted(fired.rows, torch.arange(rows + 1, device=fired.rows.device))
        codes = RaggedCodes(values, fired.features, offsets, torch.Size([rows]), len(self.truth.directions))
        noise = torch.randn(rows, len(self.offset), generator=generator, device=generator.device)
        return Drawn(codes.times(self.truth.directions) + self.offset + self.noise * noise, codes)

    def batches(self, size: int, n: int, generator: torch.Generator) -> Iterator[Float[Tensor, "size d"]]:
        """The activations of `n` batches, for `fit`; `draw` gives the features too."""
        return (self.draw(size, generator).x for _ in range(n))

    def _fired(self, rows: int, generator: torch.Generator) -> Fired:
        """Level by level: children are drawn only where their parent fires. Ordered by row, then feature."""
        levels = [self._free_fired(rows, generator)]
        while self.children.shape[1] and len(levels[-1].rows):
            levels.append(self._children_fired(levels[-1], generator))
        where, features = (torch.cat(part) for part in zip(*levels, strict=True))
        order = (where * len(self.truth.parent) + features).argsort()
        return Fired(where[order], features[order])

    def _free_fired(self, rows: int, generator: torch.Generator) -> Fired:
        frequency, device = self.chance[self.free], generator.device
        if self.loadings is None:
            active = torch.rand(rows, len(self.free), generator=generator, device=device) < frequency
        else:
            common = torch.randn(rows, self.loadings.shape[1], generator=generator, device=device)
            own = torch.randn(rows, len(self.free), generator=generator, device=device)
            own.mul_((1 - self.loadings.pow(2).sum(1)).sqrt()).addmm_(common, self.loadings.T)
            active = own < torch.special.ndtri(frequency)
        where, places = active.nonzero(as_tuple=True)
        return Fired(where, self.free[places])

    def _children_fired(self, parents: Fired, generator: torch.Generator) -> Fired:
        children = self.children[parents.features]
        chance = self.chance[children].where(children != NONE, 0.0)
        if self.exclusive:  # one draw falls into at most one sibling's stretch of the unit interval
            draw = torch.rand(len(children), 1, generator=generator, device=generator.device)
            ends = chance.cumsum(1)
            active = (draw < ends) & (draw >= ends - chance)
        else:
            active = torch.rand(children.shape, generator=generator, device=generator.device) < chance
        places, which = active.nonzero(as_tuple=True)
        return Fired(parents.rows[places], children[places, which])


def refuse_nonsense(features: int, d: int, trees: Trees | None, magnitude: tuple[float, float], noise: float) -> None:
    """Raises Refusal for counts, sizes and trees that no features can have."""
    if features < 1 or d < 1:
        raise Refusal(f"{features} features in {d} dimensions cannot be drawn; give at least one of each")
    if trees is not None and len(trees) > features:
        raise Refusal(f"{trees} has {len(trees)} members, more than the {features} features; grow fewer or lower trees")
    if magnitude[0] <= 0 or magnitude[1] < 0 or noise < 0:
        raise Refusal(
            f"magnitude {magnitude} and noise {noise:g} are asked for; the mean must be positive, no spread negative"
        )


def grown(
    trees: Trees | None, frequencies: Float[Tensor, "features"], generator: torch.Generator
) -> Int[Tensor, "features"]:
    """The parent of each feature, in trees among features chosen at random, the more frequent nearer the roots."""
    parent = torch.full_like(frequencies, NONE, dtype=torch.long)
    if trees is None:
        return parent
    chosen = torch.randperm(len(parent), generator=generator, device=parent.device)[: len(trees)].sort().values
    members = frequencies.argsort(descending=True, stable=True)[chosen]
    above = trees.parents().to(parent.device)
    parent[members] = members[above].where(above != NONE, NONE)
    return parent


def children_of(parent: Int[Tensor, "features"], branching: int) -> Int[Tensor, "features branching"]:
    """The children of each feature; rows of features without any hold -1."""
    table = parent.new_full((len(parent), branching), NONE)
    born = (parent != NONE).nonzero()[:, 0]
    if len(born):
        families = born[parent[born].argsort(stable=True)].view(-1, branching)
        table[parent[families[:, 0]]] = families
    return table


def attainable(
    asked: Float[Tensor, "features"],
    parent: Int[Tensor, "features"],
    children: Int[Tensor, "features branching"],
    exclusive: bool,
) -> Float[Tensor, "features"]:
    """How often each feature fires: as was asked, or as often as its parent and its siblings leave room for."""
    frequency, here = asked.clone(), (parent == NONE).nonzero()[:, 0]
    while len(families := children[here[(children[here] != NONE).any(1)]]):
        above = frequency[parent[families[:, 0]]][:, None]
        wanted = asked[families].minimum(above)
        if exclusive:
            wanted = wanted * (above / wanted.sum(1, keepdim=True)).clamp(max=1.0)
        frequency[families] = wanted
        here = families.flatten()
    return frequency


def pushed_apart(
    directions: Float[Tensor, "features d"], steps: int, rate: float = 0.3, block: int = 2048
) -> Float[Tensor, "features d"]:
    """Directions after so many steps of descent on the cube of their cosines: the nearest pairs move most."""
    for _ in range(steps):
        moved = directions.clone()
        for start in range(0, len(directions), block):
            cosines = directions[start : start + block] @ directions.T
            cosines[torch.arange(len(cosines)), torch.arange(start, start + len(cosines))] = 0.0
            strongest = cosines.abs().amax(1, keepdim=True).clamp(min=1e-12)
            moved[start : start + block] -= rate * cosines * (cosines / strongest).pow(2) @ directions
        directions = normalize(moved, dim=1)
    return directions


def coherence(directions: Float[Tensor, "features d"], block: int = 2048) -> float:
    """The mean over features of the largest absolute cosine with another one: how crowded they are."""
    largest = []
    for start in range(0, len(directions), block):
        cosines = (directions[start : start + block] @ directions.T).abs()
        cosines[torch.arange(len(cosines)), torch.arange(start, start + len(cosines))] = 0.0
        largest.append(cosines.amax(1))
    return torch.cat(largest).mean().item()


def bench_16k(generator: torch.Generator) -> Synthetic:
    """16,384 features in 768 dimensions, near SynthSAEBench-16k (arXiv 2602.14687).

    As there: frequencies from .4 to 5e-4 with exponent .5, 128 trees of three levels below the root with four
    children each, correlation of rank 25, mean largest cosine about .15. Chosen here: the shape of magnitudes, the
    strength of the correlation, and exclusive siblings. About 43 features are active in a row, where theirs has 34.
    """
    return Synthetic(
        16_384, 768, generator=generator, frequencies=power_law(16_384), trees=Trees(128, 4, 3, exclusive=True),
        correlation=LowRank(25, 0.1), magnitude=(1.0, 0.2),
    )  # fmt: skip


def small(generator: torch.Generator) -> Synthetic:
    """512 features in 64 dimensions, of the same kind: a dictionary learns it in seconds on a CPU."""
    return Synthetic(
        512, 64, generator=generator, frequencies=power_law(512, high=0.2, low=2e-3),
        trees=Trees(8, 3, 2, exclusive=True), correlation=LowRank(8, 0.1), magnitude=(1.0, 0.2), noise=0.01,
    )  # fmt: skip
