"""Dead latents begun anew from what the dictionary explains worst.  Bricken et al. 2023, Towards Monosemanticity.

fit(sae, batches, Reconstruction() + 0.01 * Sparsity(), engine=Resampling(every=25_000_000, dead_after=12_500_000))
"""

from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import normalize

from microtome.core.errors import Refusal
from microtome.core.fit import Adam, Engine, quickest
from microtome.core.fit import Objective as AnyObjective
from microtome.dictionaries.coder import LinearCoder
from microtome.dictionaries.objectives import Attempt


@runtime_checkable
class HoldsMoments(Engine, Protocol):
    """An engine that shows Adam's two running means for each weight, by the weight's name."""

    @property
    def moments(self) -> Mapping[str, tuple[Tensor, Tensor]]:
        """The two running means of Adam, by the name of the weight."""
        ...


@dataclass(frozen=True)
class Resampling:
    """When to revive, in tokens: after each `every`, those that were silent for the last `dead_after` of them.

    None is revived after `last` tokens, so that what was begun anew has time to learn; by default there is no end. The
    encoder's new row has `gain` times the mean length of the living. `engine` makes the steps between.

    Raises Refusal for times that cannot be.
    """

    every: int
    dead_after: int
    last: int | None = None
    gain: float = 0.2
    seed: int = 0
    engine: Callable[[nn.Module, AnyObjective, Adam], Engine] = quickest

    def __post_init__(self):
        if not 0 < self.dead_after <= self.every:
            raise Refusal(
                f"dead_after is {self.dead_after} and every is {self.every}; a latent must be silent for at least one "
                "token, and at most since the last resampling"
            )

    def __call__(self, learned: nn.Module, objective: AnyObjective, adam: Adam) -> Engine:
        """The engine for `fit`. Raises Refusal for what has no single encoder and decoder."""
        inner = self.engine(learned, objective, adam)
        if not isinstance(learned, LinearCoder) or not isinstance(inner, HoldsMoments):
            raise Refusal(
                f"{type(learned).__name__} under {type(inner).__name__} has no latents to resample; use a dictionary "
                "with one encoder and one decoder"
            )
        return ResamplingEngine(inner, learned, self)


class ResamplingEngine:
    """Another engine's steps; in between, dead latents are begun anew from rows of the batch.

    The paper draws inputs from a subset of 819,200; here they are drawn from one batch, so at most as many latents are
    revived at a time as it has rows. Its loss is taken to be the squared error.
    """

    def __init__(self, inner: HoldsMoments, coder: LinearCoder, when: Resampling):
        self.inner, self.coder, self.when = inner, coder, when
        self.generator = torch.Generator().manual_seed(when.seed)
        self.rows = self.resampled = 0  # tokens seen, latents begun anew
        self.fired = torch.zeros(len(coder), dtype=torch.bool, device=coder.W_enc.device)

    @property
    def moments(self) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Those of the engine that makes the steps."""
        return self.inner.moments

    def step(self, batch: Sized, lr: float) -> Mapping[str, Tensor]:
        """A step of the engine inside; then, when it is time, latents that never fired begin anew."""
        parts = self.inner.step(batch, lr)
        before, self.rows = self.rows, self.rows + len(batch)
        if self.when.last is None or self.rows <= self.when.last:
            self._watch(batch, before)
        return parts

    @torch.no_grad()
    def _watch(self, batch: Sized, before: int) -> None:
        """Count who fires, as long as it matters, and resample when it is time."""
        due = before // self.when.every < self.rows // self.when.every
        if not due and self.rows % self.when.every <= self.when.every - self.when.dead_after:
            return
        attempt = Attempt(self.coder, batch)
        self.fired[attempt.codes.entries().components] = True
        if due:
            self._begin_anew((~self.fired).nonzero()[:, 0], attempt)
            self.fired.zero_()

    def _begin_anew(self, dead: Int[Tensor, "dead"], attempt: Attempt) -> None:
        chosen = drawn(row_losses(attempt), len(dead), self.generator)
        dead = dead[: len(chosen)]
        if not len(dead):
            return
        coder = self.coder
        length = coder.W_enc[self.fired].norm(dim=1).mean() if self.fired.any() else 1.0
        coder.W_enc[dead] = self.when.gain * length * normalize(rows(coder.read(attempt.x))[chosen], dim=1)
        coder.W_dec[dead] = normalize(rows(coder.aim(attempt.target))[chosen], dim=1)
        coder.b_enc[dead] = 0.0
        for name, pair in self.moments.items():
            if name in ("W_enc", "W_dec", "b_enc") or name.startswith("activation."):
                for moment in pair:
                    moment[dead] = 0.0
        self.resampled += len(dead)

    def state_dict(self) -> dict[str, Any]:
        """The state of the engine inside, what has fired, and chance."""
        return {
            "inner": self.inner.state_dict(), "rows": self.rows, "resampled": self.resampled,
            "fired": self.fired, "generator": self.generator.get_state(),
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises Refusal for the state of another kind of engine."""
        if "inner" not in state:
            raise Refusal("this state was saved without resampling; give fit the engine it had, or begin anew")
        self.inner.load_state_dict(state["inner"])
        self.rows, self.resampled = state["rows"], state["resampled"]
        self.fired.copy_(state["fired"])
        self.generator.set_state(state["generator"])


def rows(x: Float[Tensor, "... d"]) -> Float[Tensor, "rows d"]:
    """The last axis as it is, all others as one."""
    return x.reshape(-1, x.shape[-1])


def row_losses(attempt: Attempt) -> Float[Tensor, "rows"]:
    """The squared error of each row, summed over the written sites."""
    squares = attempt.error.pow(2).sum(-1)
    return squares.sum(0).flatten() if len(attempt.dictionary.writes) > 1 else squares.flatten()


def drawn(losses: Float[Tensor, "rows"], count: int, generator: torch.Generator) -> Int[Tensor, "chosen"]:
    """Rows drawn without repetition, with probability as the square of their loss: `count`, or all that have any."""
    chances = losses.double().cpu().pow(2)
    count = min(count, int((chances > 0).sum()))
    if not count:
        return torch.zeros(0, dtype=torch.long, device=losses.device)
    return torch.multinomial(chances / chances.sum(), count, generator=generator).to(losses.device)
