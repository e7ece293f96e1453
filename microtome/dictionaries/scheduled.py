"""An objective whose weight follows a schedule: sparsity that comes in slowly, so that latents find a use first."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.dictionaries.objectives import Attempt, Objective


class Scheduled(Objective):
    """Another objective times schedule(step).  Reconstruction() + Scheduled(0.01 * Sparsity(), WarmUp(5000))

    It counts its steps itself, so that a fit which is resumed goes on where the schedule was.
    """

    step: Tensor

    def __init__(self, part: Objective, schedule: Callable[[int], float]):
        super().__init__()
        self.part, self.schedule = part, schedule
        self.register_buffer("step", torch.zeros((), dtype=torch.long))

    def terms(self, attempt: Attempt) -> dict[str, Float[Tensor, ""]]:
        by = self.schedule(int(self.step))
        self.step += 1
        return {name: by * term for name, term in self.part.terms(attempt).items()}
