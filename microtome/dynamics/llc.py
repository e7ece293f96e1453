"""How degenerate a minimum is: the local learning coefficient, with flags that say when it is no number at all.

lambda = n beta (E_w[L(w)] - L(w*)), w from chains about w*, beta = 1 / log n

Half the number of weights where a minimum is regular, less where it is degenerate. Lau et al. 2023, The Local Learning
Coefficient (arXiv 2308.12108), Definition 1; health checks after its Appendix on diagnosing chains.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.errors import Refusal
from microtome.dynamics.chains import ALWAYS, Chains, Langevin, Loss

SURE = 4.0  # standard errors that a drift or a sign must be from nothing to be flagged
DRIFTS = 0.1  # of the coefficient itself
ACCEPTED = 0.5  # least mean acceptance of adjusted chains


@dataclass(frozen=True)
class LearningCoefficient:
    """What chains found. `value` refuses where the chains are not healthy; `estimate` is what they say all the same.

    `excess` is by how much the loss was higher than where the chains began, after burning in.
    """

    excess: Float[Tensor, "chains steps"]
    temper: float
    acceptance: float

    @property
    def per_chain(self) -> Float[Tensor, "chains"]:
        """The estimate of every chain."""
        return self.temper * self.excess.double().mean(1)

    @property
    def estimate(self) -> float:
        """The mean over chains."""
        return float(self.per_chain.mean())

    @property
    def error(self) -> float:
        """The standard error of the estimate, from the spread between chains."""
        return float(self.per_chain.std() / math.sqrt(len(self.per_chain)))

    @property
    def flags(self) -> list[str]:
        """Why the estimate is not to be believed; empty where nothing speaks against it."""
        if not self.excess.isfinite().all():
            lost = int((~self.excess.isfinite().all(1)).sum())
            return [f"{lost} of {len(self.excess)} chains diverged; make the rate smaller"]
        return [said for said in (self._negative(), self._drift(), self._refused()) if said]

    @property
    def value(self) -> float:
        """The coefficient. Raises Refusal with the flags where there are any."""
        if self.flags:
            raise Refusal(f"the learning coefficient is no number here: {'; '.join(self.flags)}")
        return self.estimate

    def _negative(self) -> str:
        if self.estimate > -SURE * self.error and self.estimate >= 0:
            return ""
        return (
            f"it is negative ({self.estimate:.3g}), so the loss is lower nearby: train to a minimum, "
            "or raise localisation"
        )

    def _drift(self) -> str:
        """The second half of the chains against the first, chain by chain."""
        half = self.excess.shape[1] // 2
        if half < 1:
            return ""
        moved = self.temper * (self.excess[:, half:].double().mean(1) - self.excess[:, :half].double().mean(1))
        size, error = float(moved.mean()), float(moved.std() / math.sqrt(len(moved)))
        if abs(size) <= max(SURE * error, DRIFTS * abs(self.estimate)):
            return ""
        return f"it still drifts (by {size:+.3g} from the first half to the second): burn in for longer"

    def _refused(self) -> str:
        if self.acceptance >= ACCEPTED:
            return ""
        return f"only {self.acceptance:.0%} of the steps were accepted; make the rate smaller"


def learning_coefficient(
    loss: Loss,
    at: Mapping[str, Tensor],
    how: Langevin,
    *,
    batches: Iterable[Any] = ALWAYS,
    chains: int = 20,
    steps: int = 1000,
    burn: int = 500,
    generator: torch.Generator,
) -> LearningCoefficient:
    """Let chains wander from `at`: `burn` steps unseen, then `steps`. All chains see the same batches.

    Raises Refusal where the batches end before.
    """
    walk = Chains(loss, at, how, chains=chains, generator=generator)
    seen = [each for _, each in zip(range(burn + steps), walk.steps(batches), strict=False)]
    if len(seen) < burn + steps:
        raise Refusal(f"the batches ended after {len(seen)} steps of {burn + steps}; give more, or repeat them")
    kept = seen[burn:]
    acceptance = float(torch.stack([s.acceptance for s in kept]).mean())
    return LearningCoefficient(torch.stack([s.excess for s in kept], 1), how.temper, acceptance)
