"""Where a decoder's rows must stay while it learns."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Constraint(ABC):
    """Puts weights back where they must be, after every step."""

    @abstractmethod
    def hold(self, weights: Float[Tensor, "n d"]) -> None:
        """Change the weights in place."""


class UnitRows(Constraint):
    """Rows of length 1: without it a penalty on activity is evaded by long rows. Bricken et al. 2023."""

    @torch.no_grad()
    def hold(self, weights: Float[Tensor, "n d"]) -> None:
        weights.copy_(nn.functional.normalize(weights, dim=1))


class Free(Constraint):
    """Any length: for penalties that weigh activity by the length of what it writes (Anthropic, April 2024)."""

    def hold(self, weights: Float[Tensor, "n d"]) -> None:
        pass
