"""Chains that wander about a minimum, all of them in one program: stochastic gradient Langevin dynamics.

w' = w - rate / 2 (n beta grad L(w) + localisation (w - w*)) + N(0, rate)

They sample the tempered posterior exp(-n beta L(w) - localisation |w - w*|^2 / 2) about w*. Welling and Teh 2011; as
used by Lau et al. 2023, The Local Learning Coefficient (arXiv 2308.12108), Algorithm 1.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.func import functional_call

from microtome.core.errors import Refusal

Weights = dict[str, Tensor]  # each with a leading `chain` axis
ALWAYS = repeat(None)  # batches for a loss that is over all data and needs none


@runtime_checkable
class Loss(Protocol):
    """The loss of many settings of the weights at once, each with a leading `chain` axis, on one batch."""

    def __call__(self, weights: Weights, batch: Any) -> Float[Tensor, "chains"]: ...


def of_module(module: nn.Module, loss: Callable[[Any, Any], Float[Tensor, ""]], takes: Callable[[Any], Any]) -> Loss:
    """The loss of a module, made to take many weights at once: `loss(module(takes(batch)), batch)` for each chain."""

    def one(weights: Weights, batch: Any) -> Tensor:
        return loss(functional_call(module, weights, (takes(batch),)), batch)

    return torch.func.vmap(one, in_dims=(0, None))


@dataclass(frozen=True)
class Langevin:
    """How chains move. `temper` is n beta, of n samples usually n / log n (see `tempering`).

    `rate` is the step's variance; `localisation` pulls back to where chains began. With `adjusted`, each proposal is
    accepted as Metropolis and Hastings would, so that no step is too long to be true: for losses over all data.
    """

    temper: float
    rate: float = 1e-5
    localisation: float = 1.0
    adjusted: bool = False


def tempering(n: int) -> float:
    """n beta at Watanabe's inverse temperature 1 / log n: n / log n."""
    if n < 2:
        raise Refusal(f"{n} samples have no temperature 1 / log n; give 2 or more")
    return n / math.log(n)


class Seen(NamedTuple):
    """One step: how much higher each chain's loss is than where it began, on the same batch, and its acceptance."""

    excess: Float[Tensor, "chains"]
    acceptance: Float[Tensor, "chains"]


class Chains:
    """Chains begun at one place. The last of their rows stays there: every batch's own baseline."""

    def __init__(
        self, loss: Loss, at: Mapping[str, Tensor], how: Langevin, *, chains: int, generator: torch.Generator
    ) -> None:
        if chains < 1:
            raise Refusal(f"{chains} chains are none; give 1, or more to see their spread")
        self.loss, self.how, self.generator = loss, how, generator
        self.begun = {name: w.detach() for name, w in at.items()}
        self.weights = {n: w.expand(chains + 1, *w.shape).clone() for n, w in self.begun.items()}
        self.moves = torch.ones(chains + 1, dtype=torch.bool, device=generator.device)
        self.moves[-1] = False

    def steps(self, batches: Iterable[Any]) -> Iterator[Seen]:
        """Endlessly, or as long as there are batches."""
        move = self._adjusted if self.how.adjusted else self._plain
        for batch in batches:
            yield move(batch)

    def _plain(self, batch: Any) -> Seen:
        losses, gradients = self._feel(self.weights, batch)
        self.weights = self._proposed(self.weights, gradients)
        return Seen(self._excess(losses), losses.new_ones(len(losses) - 1))

    def _adjusted(self, batch: Any) -> Seen:
        here, slope = self._feel(self.weights, batch)
        wanted = self._proposed(self.weights, slope)
        there, slope_there = self._feel(wanted, batch)
        gain = self._energy(self.weights, here) - self._energy(wanted, there)
        detail = self._toward(wanted, self.weights, slope_there) - self._toward(self.weights, wanted, slope)
        odds = (gain + detail).nan_to_num(-torch.inf, posinf=-torch.inf).clamp(max=0).exp()
        taken = torch.rand(odds.shape, generator=self.generator, device=odds.device) < odds
        self.weights = {n: torch.where(over(taken, w), wanted[n], w) for n, w in self.weights.items()}
        return Seen(self._excess(torch.where(taken, there, here)), odds[:-1])

    def _feel(self, weights: Weights, batch: Any) -> tuple[Float[Tensor, "rows"], Weights]:
        """The loss of each row, and the slope of its energy."""
        leaves = {n: w.detach().requires_grad_() for n, w in weights.items()}
        losses = self.loss(leaves, batch)
        slopes = torch.autograd.grad(losses.sum(), list(leaves.values()))
        pulled = (w - self.begun[n] for n, w in weights.items())
        each = zip(leaves, slopes, pulled, strict=True)
        return losses.detach(), {n: self.how.temper * g + self.how.localisation * p for n, g, p in each}

    def _proposed(self, weights: Weights, slopes: Weights) -> Weights:
        def moved(w: Tensor, slope: Tensor) -> Tensor:
            noise = torch.randn(w.shape, generator=self.generator, dtype=w.dtype, device=w.device)
            step = math.sqrt(self.how.rate) * noise - self.how.rate / 2 * slope
            return torch.where(over(self.moves, w), w + step, w)

        return {n: moved(w, slopes[n]) for n, w in weights.items()}

    def _energy(self, weights: Weights, losses: Float[Tensor, "rows"]) -> Float[Tensor, "rows"]:
        away = squared({n: w - self.begun[n] for n, w in weights.items()})
        return self.how.temper * losses + self.how.localisation / 2 * away

    def _toward(self, origin: Weights, goal: Weights, slopes: Weights) -> Float[Tensor, "rows"]:
        """The log density of proposing `goal` from `origin`, up to a constant."""
        missed = {n: goal[n] - w + self.how.rate / 2 * slopes[n] for n, w in origin.items()}
        return -squared(missed) / (2 * self.how.rate)

    def _excess(self, losses: Float[Tensor, "rows"]) -> Float[Tensor, "chains"]:
        return losses[:-1] - losses[-1]


def over(rows: Bool[Tensor, "rows"], like: Tensor) -> Tensor:
    """A choice of rows that spreads over the other axes."""
    return rows.view(-1, *[1] * (like.ndim - 1))


def squared(weights: Weights) -> Float[Tensor, "rows"]:
    """The squared length of each row, over all weights."""
    return torch.stack([w.flatten(1).square().sum(1) for w in weights.values()]).sum(0)


def calibrated(
    loss: Loss,
    at: Mapping[str, Tensor],
    how: Langevin,
    batch: Any = None,
    *,
    acceptance: float = 0.9,
    generator: torch.Generator,
    tries: int = 16,
    steps: int = 60,
) -> Langevin:
    """The same, at the largest rate (to a factor of two) whose mean acceptance is at least `acceptance`.

    Chains wander on one batch for a while at each rate, after as many steps to leave their beginning. Raises Refusal
    where none of the `tries` rates will do, from `how.rate` on downwards or upwards.
    """
    accepted = {}
    rate = how.rate
    for _ in range(tries):
        trial = Chains(loss, at, replace(how, rate=rate, adjusted=True), chains=8, generator=generator)
        seen = [s.acceptance for _, s in zip(range(2 * steps), trial.steps(repeat(batch)), strict=False)]
        accepted[rate] = float(torch.stack(seen[steps:]).mean())
        good = accepted[rate] >= acceptance
        rate = rate * 2 if good else rate / 2
        if rate in accepted:
            return replace(how, rate=rate if accepted[rate] >= acceptance else rate / 2)
    tried = f"{min(accepted):.3g} to {max(accepted):.3g}"
    raise Refusal(f"no rate from {tried} is accepted about {acceptance:.0%} of the time; begin with another rate")
