"""The weights of logistic regressions: where the mean loss and the price of large weights together are least."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from microtome.core.errors import NotFinite

NARROW = 64  # numbers a row up to which Newton's method is the quicker


def least_loss(
    x: Float[Tensor, "rows d"],
    wanted: Float[Tensor, "rows labels"],
    share: Float[Tensor, "rows"],
    *,
    decay: float,
    steps: int,
) -> tuple[Float[Tensor, "d labels"], Float[Tensor, "labels"]]:
    """Weights and biases, one regression for each label, whose logits are x @ weights + biases.

    What is least is the mean loss in nats, a row counted by its share of 1, plus `decay` * |w|^2 / 2; biases are free.
    `wanted` is 0 or 1. At most `steps` steps, by Newton's method where few numbers are read, else by L-BFGS. Raises
    NotFinite.
    """
    bad = ~x.isfinite().all(1)
    if bad.any():
        raise NotFinite(f"{int(bad.sum())} of {len(x)} rows are not finite; leave them out, or mend the activations")
    search = newton if x.shape[1] <= NARROW else quasi_newton
    return search(x, wanted, share, decay, steps)


def base_rates(wanted: Float[Tensor, "rows labels"], share: Float[Tensor, "rows"]) -> Float[Tensor, "labels"]:
    """The biases that are best where all weights are zero: where a search begins."""
    return (share @ wanted).clamp(1e-6, 1 - 1e-6).logit()


def newton(
    x: Float[Tensor, "rows d"],
    wanted: Float[Tensor, "rows labels"],
    share: Float[Tensor, "rows"],
    decay: float,
    steps: int,
) -> tuple[Float[Tensor, "d labels"], Float[Tensor, "labels"]]:
    """Each label by itself, in double precision, every step halved until the loss falls."""
    ones = torch.cat((x, torch.ones_like(x[:, :1])), 1).double()
    price = ones.new_full((ones.shape[1],), decay)
    price[-1] = 0.0
    found = []
    for has, start in zip(wanted.double().unbind(1), base_rates(wanted, share).double(), strict=True):
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
        step: Tensor = torch.linalg.solve(curve, slope)
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
    decay: float,
    steps: int,
) -> tuple[Float[Tensor, "d labels"], Float[Tensor, "labels"]]:
    """All labels together, by L-BFGS."""
    weight = x.new_zeros(x.shape[1], wanted.shape[1]).requires_grad_()
    bias = base_rates(wanted, share).requires_grad_()
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
