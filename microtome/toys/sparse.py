"""Inputs whose features are mostly zero: what a toy is given, whole batches for every seed at once.

Elhage et al. 2022, Toy Models of Superposition: each feature is zero with probability S, else uniform. Features may
come in sets that are on and off together (correlated), or of which one at most is on (anti-correlated).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from microtome.core.errors import Refusal


@dataclass(frozen=True)
class Sparse:
    """Vectors of `features` numbers, each zero but with `probability`, and then uniform from `low` to `high`.

    `probability` is one number, or a tensor that broadcasts against (*seeds, 1, features): a sparsity for each seed or
    each feature. `seeds` draws each seed its own rows; without, all share them. In `sets` of so many consecutive
    features they are `"together"` (all on or all off) or `"apart"` (at most one on, each still with `probability`).
    """

    features: int
    probability: float | Tensor
    low: float = 0.0
    high: float = 1.0
    seeds: int | None = None
    sets: int = 1
    within: Literal["together", "apart"] = "together"

    def __post_init__(self) -> None:
        chance = torch.as_tensor(self.probability)
        if not ((chance > 0) & (chance <= 1)).all():
            raise Refusal(f"features are on with probability {self.probability}; give numbers above 0, at most 1")
        if self.features % self.sets:
            raise Refusal(f"{self.features} features cannot be in sets of {self.sets}; give a divisor")
        if self.within == "apart" and self.sets * chance.max() > 1:
            raise Refusal(
                f"at most one of {self.sets} features is on, so none can be on with probability "
                f"{chance.max().item():g}; give at most {1 / self.sets:g}"
            )

    def draw(self, rows: int, generator: torch.Generator) -> Float[Tensor, "*seeds rows features"]:
        """So many rows (for each seed). The same state of the generator draws the same."""
        lead = () if self.seeds is None else (self.seeds,)
        shape, device = (*lead, rows, self.features), generator.device
        values = torch.rand(shape, generator=generator, device=device) * (self.high - self.low) + self.low
        return values * self._on(shape, generator)

    def batches(self, size: int, n: int, generator: torch.Generator) -> Iterator[Float[Tensor, "*seeds size features"]]:
        """The rows of `n` batches, for `fit`."""
        return (self.draw(size, generator) for _ in range(n))

    def _on(self, shape: tuple[int, ...], generator: torch.Generator) -> Bool[Tensor, "*seeds rows features"]:
        device = generator.device
        chance = torch.as_tensor(self.probability, device=device)
        if self.sets == 1:
            return torch.rand(shape, generator=generator, device=device) < chance
        one = torch.rand(*shape[:-1], shape[-1] // self.sets, generator=generator, device=device)
        one = one.repeat_interleave(self.sets, -1)  # one draw for each set
        if self.within == "together":
            return one < chance
        start = chance * (torch.arange(shape[-1], device=device) % self.sets)  # each has a stretch of the unit interval
        return (one >= start) & (one < start + chance)
