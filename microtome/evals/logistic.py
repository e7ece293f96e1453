"""Logistic regression, on rows that may stand for many equal ones."""

# pyright: reportUnknownMemberType=false

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

DECAY = 1e-4  # of |w|² / 2 beside the mean loss in nats, inputs in units of their standard deviation
NARROW = 64  # numbers a row up to which Newton's method is the quicker


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

    A row counts `times` times. At most `steps` steps, by Newton's method where few numbers are read, else by L-BFGS.
    """
    times = x.new_ones(len(x)) if times is None else times
    share = times / times.sum()
    centre = share @ x
    spread = (share @ (x - centre).square()).sqrt().clamp(min=1e-8)
    scaled, wanted = (x - centre) / spread, has.to(x.dtype)
    rate = (share @ wanted).clamp(1e-6, 1 - 1e-6).logit()
    search = newton if x.shape[1] <= NARROW else quasi_newton
    weight, bias = search(scaled, wanted, share, rate, decay, steps)
    back = weight / spread[:, None]
    found = Logistic(back, bias - centre @ back, torch.zeros_like(rate))
    return Logistic(found.weight, found.bias, best_thresholds(found.logits(x), has, times))


def newton(
    x: Float[Tensor, "rows d"],
    wanted: Float[Tensor, "rows labels"],
    share: Float[Tensor, "rows"],
    rate: Float[Tensor, "labels"],
    decay: float,
    steps: int,
) -> tuple[Float[Tensor, "d labels"], Float[Tensor, "labels"]]:
    """Each label by itself, in double precision, every step halved until the loss falls."""
    ones = torch.cat((x, torch.ones_like(x[:, :1])), 1).double()
    price = torch.full((ones.shape[1],), decay, dtype=torch.float64)
    price[-1] = 0.0
    found = []
    for has, start in zip(wanted.double().unbind(1), rate.double(), strict=True):
        now = torch.zeros_like(price)
        now[-1] = start
        found.append(descended(ones, has, share.double(), price, now, steps))
    whole = torch.stack(found, 1).to(x.dtype)
    return whole[:-1], whole[-1]


def descended(
    x: Float[Tensor, "rows d"],
    has: Float[Tensor, "rows"],
    share: Float[Tensor, "rows"],
    price: Float[Tensor, "d"],
    now: Float[Tensor, "d"],
    steps: int,
) -> Float[Tensor, "d"]:
    """Newton's steps on one label's loss, until one gains less than 1e-10 nats."""

    def loss(w: Tensor) -> Tensor:
        logits = x @ w
        return share @ (F.softplus(logits) - has * logits) + (price * w * w).sum() / 2

    least = loss(now)
    for _ in range(steps):
        said = torch.sigmoid(x @ now)
        slope = x.T @ (share * (said - has)) + price * now
        curve = x.T @ ((share * said * (1 - said))[:, None] * x) + torch.diag(price + 1e-10)
        step = torch.linalg.solve(curve, slope)
        ahead = [now - t * step for t in (1, 0.5, 0.1, 0.01)]
        tried = [(value, w) for w in ahead if (value := loss(w)) < least - 1e-10]
        if not tried:
            return now
        least, now = tried[0]
    return now


def quasi_newton(
    x: Float[Tensor, "rows d"],
    wanted: Float[Tensor, "rows labels"],
    share: Float[Tensor, "rows"],
    rate: Float[Tensor, "labels"],
    decay: float,
    steps: int,
) -> tuple[Float[Tensor, "d labels"], Float[Tensor, "labels"]]:
    """All labels together, by L-BFGS."""
    weight = x.new_zeros(x.shape[1], wanted.shape[1]).requires_grad_()
    bias = rate.clone().requires_grad_()
    search = torch.optim.LBFGS([weight, bias], max_iter=steps, history_size=10, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        each = F.binary_cross_entropy_with_logits(x @ weight + bias, wanted, reduction="none")
        total = (share @ each).sum() + decay * weight.square().sum() / 2
        total.backward()
        return total

    with torch.enable_grad():
        search.step(loss)
    return weight.detach(), bias.detach()


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
