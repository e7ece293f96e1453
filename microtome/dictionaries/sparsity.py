"""What keeps few components active, where the activation does not itself: penalties on how many, or on how much."""

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.codes import DenseCodes
from microtome.core.errors import Refusal
from microtome.dictionaries.activation_functions import JumpReLU, Pre
from microtome.dictionaries.objectives import Attempt, Objective


class Sparsity(Objective):
    """The mean summed activity, each component weighted by the length of what it writes.

    With rows of length 1 this is the L1 penalty of Bricken et al. 2023; with free rows that of Anthropic's April 2024
    update. `power` p < 1 comes nearer to counting: sum of activity^p (Karvonen et al. 2024, arXiv 2408.00113).
    """

    def __init__(self, power: float = 1.0):
        super().__init__()
        self.power = power

    def terms(self, attempt: Attempt) -> dict[str, Float[Tensor, ""]]:
        entries = attempt.selected.entries()
        sizes = entries.values.abs() * attempt.coder.lengths[entries.components]
        return {"sparsity": sizes.pow(self.power).sum() / attempt.codes.shape.numel()}


class Annealed(Objective):
    """Sparsity whose power falls from 1 to `last` between two steps, its weight kept so that its size does not jump.

    p-annealing: Karvonen et al. 2024 (arXiv 2408.00113, section 4.1).
    """

    step: Tensor
    weight: Tensor

    def __init__(self, start: int, stop: int, last: float = 0.2):
        super().__init__()
        self.start, self.stop, self.last = start, stop, last
        self.register_buffer("step", torch.zeros((), dtype=torch.long))
        self.register_buffer("weight", torch.ones(()))

    def power(self, step: int) -> float:
        """The exponent at a step: 1 before `start`, `last` from `stop` on, a line between."""
        share = min(1.0, max(0.0, (step - self.start) / (self.stop - self.start)))
        return 1.0 + share * (self.last - 1.0)

    def terms(self, attempt: Attempt) -> dict[str, Float[Tensor, ""]]:
        step = int(self.step)
        now, before = self.power(step), self.power(max(0, step - 1))
        found = Sparsity(now).terms(attempt)["sparsity"]
        if now != before:
            was = Sparsity(before).terms(attempt)["sparsity"].detach()
            self.weight *= (was / found.detach()).nan_to_num(1.0)
        self.step += 1
        return {"sparsity": self.weight * found}


def jumps(attempt: Attempt) -> list[tuple[Pre, JumpReLU, Tensor]]:
    """Pre-activations, activation and lengths of every group of components with thresholds."""
    lengths = attempt.coder.lengths
    found, start = [], 0
    for pre, activation in attempt.readings:
        if not isinstance(activation, JumpReLU):
            raise Refusal(f"{type(activation).__name__} has no thresholds to learn; use JumpReLU with this objective")
        found.append((pre, activation, lengths[start : start + len(pre.bias)]))
        start += len(pre.bias)
    return found


class L0(Objective):
    """The mean number of active components, its pseudo-gradient moving the thresholds.  arXiv 2407.14435, eq. 9."""

    def terms(self, attempt: Attempt) -> dict[str, Float[Tensor, ""]]:
        return {"l0": l0(attempt)}


def l0(attempt: Attempt) -> Float[Tensor, ""]:
    """The mean number of components that are active."""
    fired = [activation.fires(pre).sum() for pre, activation, _ in jumps(attempt)]
    return torch.stack(fired).sum() / attempt.codes.shape.numel()


class TargetL0(Objective):
    """(L0 / target - 1)²: thresholds move until so many components are active.  arXiv 2407.14435, appendix G."""

    def __init__(self, target: float):
        super().__init__()
        self.target = target

    def terms(self, attempt: Attempt) -> dict[str, Float[Tensor, ""]]:
        return {"l0": (l0(attempt) / self.target - 1).pow(2)}


class TanhL0(Objective):
    """The sum of tanh(c activity length), which saturates where a component is clearly active.

    Anthropic, January 2025 update (Circuits Updates): with c = 4. `PreActivation` belongs to it.
    """

    def __init__(self, c: float = 4.0):
        super().__init__()
        self.c = c

    def terms(self, attempt: Attempt) -> dict[str, Float[Tensor, ""]]:
        counted = [
            torch.tanh(self.c * activation.amount(pre) * lengths.detach()).sum()
            for pre, activation, lengths in jumps(attempt)
        ]
        return {"l0": torch.stack(counted).sum() / attempt.codes.shape.numel()}


class PreActivation(Objective):
    """The sum of max(0, threshold - pre) length: pulls silent latents up to their thresholds, so that few stay dead.

    Anthropic, January 2025 update (Circuits Updates).
    """

    def terms(self, attempt: Attempt) -> dict[str, Float[Tensor, ""]]:
        missing = [
            (torch.relu(activation.thresholds - pre.values) * lengths.detach()).sum()
            for pre, activation, lengths in jumps(attempt)
        ]
        return {"pre_activation": torch.stack(missing).sum() / attempt.codes.shape.numel()}


class Frequency(Objective):
    """The sum over components of max(0, frequency / most - 1)²: none may be active on nearly every token.

    After the penalty that Gemma Scope 2 adds to the quadratic L0 loss; the gradient moves thresholds.
    """

    def __init__(self, most: float = 0.1):
        super().__init__()
        self.most = most

    def terms(self, attempt: Attempt) -> dict[str, Float[Tensor, ""]]:
        found = [
            torch.relu(activation.fires(pre).reshape(-1, len(pre.bias)).mean(0) / self.most - 1).pow(2).sum()
            for pre, activation, _ in jumps(attempt)
        ]
        return {"frequency": torch.stack(found).sum()}


class GateAlone(Objective):
    """What trains the gate of a gated dictionary: the gate's own activity must be sparse, and must reconstruct alone.

    sum of max(0, pre), and the variance that the frozen decoder leaves unexplained with max(0, pre) as its codes.
    Rajamanoharan et al. 2024 (arXiv 2404.16014, eq. 8). `sparsity` is the weight of the first of the two.
    """

    def __init__(self, sparsity: float):
        super().__init__()
        self.sparsity = sparsity

    def terms(self, attempt: Attempt) -> dict[str, Float[Tensor, ""]]:
        gate = torch.cat([torch.relu(pre.values) for pre, _ in attempt.readings], -1)
        alone = attempt.coder.frozen_decode(attempt.coder.resized(DenseCodes(gate), attempt.x))
        missed = (attempt.target - alone - attempt.past.detach()).pow(2).sum() / attempt.variance
        summed = (gate * attempt.coder.lengths.detach()).sum() / gate.shape[:-1].numel()
        return {"sparsity": self.sparsity * summed, "gate": missed}
