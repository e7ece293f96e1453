"""Logistic regression, on rows that may stand for many equal ones."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from microtome.core.logistic import least_loss

DECAY = 1e-4  # of |w|² / 2 beside the mean loss in nats, inputs in units of their standard deviation


@dataclass(frozen=True, eq=False)
class Logistic:
    """Yes where w·x + b is above the threshold, one for each label. `x` is taken as it comes."""

    weight: Float[Tensor, "d labels"]
    bias: Float[Tensor, "labels"]
    threshold: Float[Tensor, "labels"]

    def logits(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows labels"]:
        """Its logits, above the threshold where it says yes."""
        return x @ self.weight + self.bias

    def says(self, x: Float[Tensor, "rows d"]) -> Bool[Tensor, "rows labels"]:
        """Whether each row has each label."""
        return self.logits(x) >= self.threshold


def logistic(
    x: Float[Tensor, "rows d"],
    has: Bool[Tensor, "rows labels"],
    times: Float[Tensor, "rows"] | None = None,
    *,
    steps: int = 60,
    decay: float = DECAY,
) -> Logistic:
    """Fit one regression for each label, and set each threshold where F1 on these rows is best.

    A row counts `times` times. At most `steps` steps (see `core.logistic.least_loss`).
    """
    times = x.new_ones(len(x)) if times is None else times
    share = times / times.sum()
    centre = share @ x
    spread = (share @ (x - centre).square()).sqrt().clamp(min=1e-8)
    scaled, wanted = (x - centre) / spread, has.to(x.dtype)
    weight, bias = least_loss(scaled, wanted, share, decay=decay, steps=steps)
    back = weight / spread[:, None]
    found = Logistic(back, bias - centre @ back, torch.zeros_like(bias))
    return Logistic(found.weight, found.bias, best_thresholds(found.logits(x), has, times))


def best_thresholds(
    logits: Float[Tensor, "rows labels"], has: Bool[Tensor, "rows labels"], times: Float[Tensor, "rows"]
) -> Float[Tensor, "labels"]:
    """Where F1 on these rows is best, halfway to the next lower logit."""
    return torch.stack([best_threshold(*both, times) for both in zip(logits.unbind(1), has.unbind(1), strict=True)])


def best_threshold(
    logits: Float[Tensor, "rows"], has: Bool[Tensor, "rows"], times: Float[Tensor, "rows"]
) -> Float[Tensor, ""]:
    """That of one label."""
    falling, order = logits.sort(descending=True)
    weight = times[order].double()
    hits = (weight * has[order]).cumsum(0)
    scores = 2 * hits / (weight.cumsum(0) + hits[-1])
    next_lower = torch.cat((falling[1:], falling[-1:] - 1))
    at = torch.where(falling > next_lower, scores, -1.0).argmax()
    return (falling[at] + next_lower[at]) / 2
