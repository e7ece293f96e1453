"""How far a result moves with what should not matter: seed, learning rate, initialisation.

The variance of a figure over runs is divided among the settings that were varied: the share of each by itself, and
what is left for their interplay and chance. Fisher's analysis of variance, main effects of a full grid.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import TypeVar

from microtome.core.errors import Refusal

S = TypeVar("S", bound=tuple[Hashable, ...])


@dataclass(frozen=True)
class Spread:
    """A figure over runs: its mean, its standard deviation, and of its variance the share of each setting."""

    mean: float
    deviation: float
    shares: Mapping[str, float]

    @property
    def left(self) -> float:
        """The share that no setting explains by itself."""
        return 1.0 - sum(self.shares.values())


def spread(names: tuple[str, ...], runs: Mapping[S, float]) -> Spread:
    """From the figure of each run, by its settings in the order of `names`; every combination must be there.

    Shares are 0 where the figure never moves. Raises Refusal for a grid with holes.
    """
    levels = [sorted({setting[i] for setting in runs}, key=str) for i in range(len(names))]
    wanted = 1
    for each in levels:
        wanted *= len(each)
    if len(runs) != wanted or len(runs) < 2:
        raise Refusal(f"{len(runs)} runs are not all {wanted} combinations of {', '.join(names)}; run the others too")
    mean, deviation = fmean(runs.values()), pstdev(runs.values())
    shares = {}
    for i, name in enumerate(names):
        means = [fmean(v for setting, v in runs.items() if setting[i] == level) for level in levels[i]]
        shares[name] = pstdev(means, mean) ** 2 / deviation**2 if deviation > 0 else 0.0
    return Spread(mean, deviation, shares)
