"""The life of each component over the checkpoints of its dictionary: when it is born, how it turns, whether it dies.

A component lives while it fires on enough rows. It is born where it first points where it will point in the end (or,
if it dies, where it last pointed), as far as a cosine says.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

from microtome.core.component import Dictionary
from microtome.core.errors import Refusal

NEVER = -1


@dataclass(frozen=True)
class Lives:
    """`density`: the share of rows on which each component fires. `likeness`: the cosine of what it writes with before.

    `toward`: the cosine with what it writes at its last living step. `likeness` is 1 at the first step.
    """

    steps: Sequence[int]
    density: Float[Tensor, "steps components"]
    likeness: Float[Tensor, "steps components"]
    toward: Float[Tensor, "steps components"]

    def alive(self, least: float = 1e-4) -> Bool[Tensor, "steps components"]:
        """Which components fire at least so often, at each checkpoint."""
        return self.density >= least

    def born(self, cosine: float = 0.9, least: float = 1e-4) -> list[int]:
        """For each the first step from which on, while it lives, it points as it will; -1 where it never lives."""
        alive = self.alive(least)
        settled = alive & ((self.toward >= cosine) | ~alive).flip(0).long().cumprod(0).flip(0).bool()
        return self._first(settled)

    def died(self, least: float = 1e-4) -> list[int]:
        """For each the step after its last living one; -1 where it lives at the end or never did."""
        alive = self.alive(least)
        places = torch.arange(len(self.steps))[:, None]
        last = torch.where(alive, places, NEVER).max(0).values.tolist()
        return [self.steps[i + 1] if 0 <= i < len(self.steps) - 1 else NEVER for i in last]

    def drift(self) -> Float[Tensor, "steps components"]:
        """By how many degrees each has turned since the step before."""
        return torch.rad2deg(self.likeness.clamp(-1, 1).arccos())

    def _first(self, holds: Bool[Tensor, "steps components"]) -> list[int]:
        ever, first = holds.any(0).tolist(), holds.long().argmax(0).tolist()
        return [self.steps[i] if e else NEVER for e, i in zip(ever, first, strict=True)]


@torch.no_grad()
def lives(
    dictionaries: Sequence[Dictionary], steps: Sequence[int], x: Float[Tensor, "rows d"], *, least: float = 1e-4
) -> Lives:
    """Follow the components of one dictionary through its checkpoints, on the same rows throughout.

    Raises Refusal where there are fewer than two checkpoints, or they differ in size.
    """
    if len(dictionaries) != len(steps) or len(steps) < 2:
        raise Refusal(f"{len(dictionaries)} dictionaries for {len(steps)} steps; give one for each of 2 steps or more")
    sizes = {len(d) for d in dictionaries}
    if len(sizes) > 1:
        raise Refusal(f"checkpoints of one dictionary have one size, not {sorted(sizes)}; match them by writing")
    density = torch.stack([firing_rate(d, x) for d in dictionaries])
    written = torch.stack([normalize(d.directions().write.detach()[:, 0].float(), dim=-1) for d in dictionaries])
    before = torch.cat((written[:1], written[:-1]))
    places = torch.arange(len(steps))[:, None]
    last = torch.where(density >= least, places, 0).max(0).values
    final = written[last, torch.arange(written.shape[1])]
    return Lives(steps, density, (written * before).sum(-1), (written * final).sum(-1))


def firing_rate(dictionary: Dictionary, x: Float[Tensor, "rows d"], batch: int = 4096) -> Float[Tensor, "components"]:
    """The share of rows on which each component is active."""
    counts = torch.zeros(len(dictionary))
    for part in x.split(batch):
        counts += torch.bincount(dictionary.encode(part).entries().components, minlength=len(dictionary))
    return counts / len(x)
