"""How active a component is, given its pre-activation: one axis of the grid of dictionaries.

An activation is handed the affine map and not its output, so that a sparse one need never make all the pre-activations.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from microtome.core.codes import Codes, DenseCodes, TopCodes
from microtome.core.errors import Refusal
from microtome.dictionaries.selection import top_linear


class Affine(NamedTuple):
    """pre-activations = weight x + bias"""

    weight: Float[Tensor, "n d"]
    bias: Float[Tensor, "n"]

    def __call__(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... n"]:
        return x @ self.weight.T + self.bias


class Activation(nn.Module, ABC):
    """From pre-activations to codes."""

    @abstractmethod
    def forward(self, pre: Affine, x: Float[Tensor, "... d"]) -> Codes:
        """The codes of `x` under the pre-activations `pre(x)`."""

    def settings(self) -> dict:
        """The constructor's arguments, as plain values."""
        return {}


class ReLU(Activation):
    """codes = max(0, pre)"""

    def forward(self, pre: Affine, x: Float[Tensor, "... d"]) -> Codes:
        return DenseCodes(torch.relu(pre(x)))


class TopK(Activation):
    """codes = max(0, the k largest pre-activations), all others zero.  Gao et al. 2024, arXiv 2406.04093, eq. 3."""

    def __init__(self, k: int):
        if k < 1:
            raise Refusal(f"k is {k}; at least one component must be active")
        super().__init__()
        self.k = k

    def forward(self, pre: Affine, x: Float[Tensor, "... d"]) -> Codes:
        if self.k > len(pre.bias):
            raise Refusal(f"k is {self.k}, more than the {len(pre.bias)} components there are")
        values, indices = top_linear(x.reshape(-1, x.shape[-1]), pre.weight, pre.bias, self.k)
        lead = (*x.shape[:-1], self.k)
        return TopCodes(torch.relu(values).view(lead), indices.view(lead), len(pre.bias))

    def settings(self) -> dict:
        return {"k": self.k}
