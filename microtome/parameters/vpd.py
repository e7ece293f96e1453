"""Parts that hold under an adversary's masks too, and are not shared by rare mechanisms: the objective of VPD.

Goodfire 2026, Interpreting Language Model Parameters: half adversarial, half stochastic on subsets of the weights, with
powers that fall and a cost of being often important. The adversary keeps its place between steps. Here one place serves
all rows and moves by signs; the paper's has one for each row, and moves by Adam.
"""

from dataclasses import dataclass, field

import torch

from microtome.interventions.masks import Adversary
from microtome.parameters.objectives import Faithful, Lp, Minimal, Persistent, Subset, Sum
from microtome.parameters.spd import SPD


@dataclass(frozen=True)
class VPD(SPD):
    """faithful + (subset + adversarial) / 2 + `minimal` times minimality; p falls from `first` to `last`."""

    frequency: float = 0.5
    first: float = 2.0
    last: float = 0.4
    adversary: Adversary = field(default_factory=lambda: Adversary(steps=2, size=0.01))

    def objective(self, generator: torch.Generator) -> Sum:
        """The terms of the loss, with the paper's weights."""
        power = Lp(self.first, self.last, self.steps)
        enough = 0.5 * Subset() + 0.5 * Persistent(self.adversary)
        terms = self.faithful * Faithful() + enough + self.minimal * Minimal(power, self.frequency)
        return terms.of(self.distance, generator)
