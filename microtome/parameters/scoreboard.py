"""What every decomposition is asked, of weights or of activations: is the network still there when parts are left out?

Left out by their importances, by whole parts, at random, and by an adversary who may combine parts as it likes as long
as they are said not to matter. The checks of Bushnaq et al. 2025 (arXiv 2506.20790) and Goodfire 2026 (VPD).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.core.errors import Refusal
from microtome.interventions.masks import (
    Adversary,
    Importance,
    Masks,
    constant,
    kept,
    only_important,
    rounded,
    stochastic,
)
from microtome.parameters.decomposed import Given
from microtome.parameters.objectives import Distance, Maskable, squared

CURVE = (20, 40, 80, 160, 320)  # steps of the adversary
FIRM = 0.1  # an importance above this counts


@dataclass(frozen=True)
class Score:
    """Distances of the output from the network's own, means over rows, and how many parts matter.

    whole: all parts, nothing of the rest. importance: importances as masks. rounded: parts above 0, above .1 and above
    .5, whole. stochastic: masks drawn. adversarial: by the adversary's steps. nothing: every part left out, the scale.
    l0: parts of importance above .1 a row, all places together. alive: parts of which that is true on some row.
    """

    whole: float
    importance: float
    rounded: dict[float, float]
    stochastic: float
    adversarial: dict[int, float]
    nothing: float
    l0: float
    alive: dict[str, int]
    unfaithful: float


@torch.no_grad()
def scoreboard(
    learned: Maskable,
    x: Given,
    *,
    generator: torch.Generator,
    distance: Distance = squared,
    curve: tuple[int, ...] = CURVE[:1],
    shared: bool = True,
    importance: dict[str, Tensor] | None = None,
) -> Score:
    """Put a decomposition of one network to all the tests. `curve`: after how many steps the adversary is looked at.

    Steps are of size .1. `importance` of every place stands in for what gates say. Raises Refusal where there is a seed
    axis, or neither gates nor importances to say what matters.
    """
    if learned.lead:
        raise Refusal("this holds several seeds; score each by itself (see `decompose.of_seed`)")
    look = learned.look(x)
    importance = look.importance if importance is None else importance
    if not importance:
        raise Refusal("there are no gates, so nothing says which parts matter; give this decomposition some")

    def missed(masks: Masks) -> Tensor:
        return distance(learned.run(x, masks), look.output).mean()

    return Score(
        whole=float(missed(kept(importance, rest=0.0))),
        importance=float(missed(only_important(importance))),
        rounded={at: float(missed(rounded(importance, at))) for at in (0.0, 0.1, 0.5)},
        stochastic=float(torch.stack([missed(stochastic(importance, generator)) for _ in range(4)]).mean()),
        adversarial=harm(importance, missed, generator, curve, shared),
        nothing=float(missed(constant(importance, 0.0, 0.0))),
        l0=sum(float((g > FIRM).sum(-1).float().mean()) for g in importance.values()),
        alive=alive_at(importance),
        unfaithful=float(learned.unfaithful()),
    )


def harm(
    importance: dict[str, Tensor],
    missed: Callable[[Masks], Tensor],
    generator: torch.Generator,
    curve: tuple[int, ...],
    shared: bool,
) -> dict[int, float]:
    """The worst that one ascent has found by each of these steps."""
    found: dict[int, float] = {}
    worst = 0.0
    path = Adversary(max(curve), 0.1, shared).path(importance, missed, generator)
    for step, (_, now) in enumerate(path):
        worst = max(worst, now)
        if step in curve:
            found[step] = worst
    return found


def alive_at(importance: Importance) -> dict[str, int]:
    """How many parts of each weight are important on some row."""
    return {name: int((g > FIRM).flatten(0, -2).any(0).sum()) for name, g in importance.items()}
