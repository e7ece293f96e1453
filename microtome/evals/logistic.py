"""Logistic regression, on rows that may stand for many equal ones."""

# pyright: reportUnknownMemberType=false

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

DECAY = 1e-4  # of |w|² / 2 beside the mean loss in nats, inputs in units of their standard deviation


@dataclass(frozen=True, eq=False)
class Logistic:
    """Yes where w·x + b is above the threshold, one for each label. `x` is taken as it comes."""

    weight: Float[Tensor, "d labels"]
    bias: Float[Tensor, "labels"]
    threshold: Float[Tensor, "labels"]

    def logits(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows labels"]:
        return x @ self.weight + self.bias

    def says(self, x: Float[Tensor, "rows d"]) -> Bool[Tensor, "rows labels"]:
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

    A row counts `times` times. L-BFGS on the mean loss over rows, all labels together, for at most `steps` steps.
    """
    times = x.new_ones(len(x)) if times is None else times
    share = times / times.sum()
    centre = share @ x
    spread = (share @ (x - centre).square()).sqrt().clamp(min=1e-8)
    scaled, wanted = (x - centre) / spread, has.to(x.dtype)
    weight = torch.zeros(x.shape[1], has.shape[1], dtype=x.dtype, requires_grad=True)
    rate = (share @ wanted).clamp(1e-6, 1 - 1e-6)
    bias = rate.logit().requires_grad_()
    search = torch.optim.LBFGS([weight, bias], max_iter=steps, history_size=10, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        each = F.binary_cross_entropy_with_logits(scaled @ weight + bias, wanted, reduction="none")
        total = (share @ each).sum() + decay * weight.square().sum() / 2
        total.backward()
        return total

    with torch.enable_grad():
        search.step(loss)
    back = weight.detach() / spread[:, None]
    found = Logistic(back, bias.detach() - centre @ back, torch.zeros_like(rate))
    return Logistic(found.weight, found.bias, best_thresholds(found.logits(x), has, times))


def best_thresholds(
    logits: Float[Tensor, "rows labels"], has: Bool[Tensor, "rows labels"], times: Float[Tensor, "rows"]
) -> Float[Tensor, "labels"]:
    """Where F1 on these rows is best, halfway to the next lower logit."""
    return torch.stack([best_threshold(*both, times) for both in zip(logits.unbind(1), has.unbind(1), strict=True)])


def best_threshold(
    logits: Float[Tensor, "rows"], has: Bool[Tensor, "rows"], times: Float[Tensor, "rows"]
) -> Float[Tensor, ""]:
    falling, order = logits.sort(descending=True)
    weight = times[order].double()
    hits = (weight * has[order]).cumsum(0)
    scores = 2 * hits / (weight.cumsum(0) + hits[-1])
    next_lower = torch.cat((falling[1:], falling[-1:] - 1))
    at = torch.where(falling > next_lower, scores, -1.0).argmax()
    return (falling[at] + next_lower[at]) / 2
