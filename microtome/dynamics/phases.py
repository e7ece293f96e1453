"""When does something change? Changes of a curve, and the three phases of grokking.

Grokking has three phases (Nanda et al. 2023, arXiv 2301.05217, Section 5.2). *Memorisation*: the loss on the training
pairs falls, also without the key waves. *Circuit formation*: the excluded loss rises, so the waves have come to matter,
while the test loss stays. *Cleanup*: what was learnt by heart decays, and the test loss falls.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.errors import Refusal

FALLEN = 0.1  # of the way, in logarithms of loss, at which the test loss has left its plateau, and .9 where it arrives


def change(values: Sequence[float]) -> int:
    """Where a curve is first past the middle between its beginning and its end, as a place in the sequence."""
    return crossing(values, 0.5)


def crossing(values: Sequence[float], share: float) -> int:
    """Where a curve is first past `share` of the way from its beginning to its end."""
    if len(values) < 2:
        raise Refusal(f"a curve of {len(values)} values does not change; give 2 or more")
    level = values[0] + share * (values[-1] - values[0])
    rising = values[-1] > values[0]
    return next(i for i, value in enumerate(values) if (value > level) == rising or i == len(values) - 1)


def segments(values: Sequence[float], most: int = 6) -> list[int]:
    """Where the curve's straight pieces begin, the first at 0: the fewest that explain it, by the Bayesian criterion.

    Pieces are least-squares lines of at least three values, found exactly by going through all divisions
    (Bellman 1961). Raises Refusal for fewer than three values.
    """
    y = torch.tensor(values, dtype=torch.float64)
    n = len(y)
    if n < 3:
        raise Refusal(f"{n} values have no pieces; give 3 or more")
    cost = line_costs(y)
    best, cut = cost[0][None], torch.zeros(1, n, dtype=torch.long)
    for _ in range(1, min(most, n // 3)):
        through = best[-1][:-1, None] + cost[1:]  # piece begins at i + 1, ends at j
        lowest, where = through.min(0)
        best, cut = torch.cat((best, lowest[None])), torch.cat((cut, where[None] + 1))
    ends = best[:, -1].clamp(min=1e-12 * float(y.square().sum()) + 1e-300)
    scores = n * (ends / n).log() + 3 * torch.arange(1, len(ends) + 1) * math.log(n)
    return traced(cut, int(scores.argmin()), n)


def traced(cut: Tensor, pieces: int, n: int) -> list[int]:
    """Where each piece begins, read off the table of best cuts."""
    begins, end = [], n - 1
    for piece in range(pieces, 0, -1):
        begins.append(int(cut[piece, end]))
        end = begins[-1] - 1
    return [0, *reversed(begins)]


def line_costs(y: Float[Tensor, "n"]) -> Float[Tensor, "n n"]:
    """The squared error of the best line from i to j, infinite for fewer than three values."""
    n = len(y)
    x = torch.arange(n, dtype=y.dtype)
    y = y - y.mean()
    moments = torch.stack((torch.ones_like(x), x, y, x * x, x * y, y * y))
    sums = torch.cat((moments.new_zeros(6, 1), moments.cumsum(1)), 1)
    count, sx, sy, sxx, sxy, syy = sums[:, None, 1:] - sums[:, :-1, None]
    safe = count.clamp(min=1)
    vx, vy, cov = sxx - sx * sx / safe, syy - sy * sy / safe, sxy - sx * sy / safe
    cost = (vy - cov * cov / vx.clamp(min=0.5)).clamp(min=0)
    return torch.where(count >= 3, cost, torch.inf)


class Phases(NamedTuple):
    """The steps at which memorisation, circuit formation and cleanup end."""

    memorised: int
    formed: int
    cleaned: int

    @property
    def in_order(self) -> bool:
        """Whether they come one after the other, as the paper has it."""
        return 0 < self.memorised < self.formed < self.cleaned


def phases(steps: Sequence[int], test: Sequence[float], excluded: Sequence[float]) -> Phases:
    """From the curves of test loss and excluded loss, in nats.

    Memorisation ends where the excluded loss is lowest, circuit formation where the test loss has gone a tenth of its
    way down from its highest (in logarithms), cleanup where it has gone nine tenths. Raises Refusal for a network that
    did not grok: whose test loss never falls to a tenth.
    """
    logs = [math.log(max(loss, 1e-12)) for loss in test]
    top = max(range(len(logs)), key=logs.__getitem__)
    if min(logs[top:]) > logs[top] - math.log(10):
        raise Refusal(
            f"the test loss falls from {test[top]:.3g} to {min(test[top:]):.3g} only, which is no grokking; "
            "train longer"
        )
    low = min(logs[top:])
    formed = fallen(logs, top, low, FALLEN)
    memorised = min(range(formed + 1), key=excluded.__getitem__)
    return Phases(steps[memorised], steps[formed], steps[fallen(logs, top, low, 1 - FALLEN)])


def fallen(logs: Sequence[float], top: int, low: float, share: float) -> int:
    """The last place before which the curve was above this share of its way down, after its highest."""
    level = logs[top] - share * (logs[top] - low)
    first = next(i for i in range(top, len(logs)) if logs[i] < level)
    above = [i for i in range(top, first) if logs[i] >= level]
    return above[-1] + 1 if above else first
