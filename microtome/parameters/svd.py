"""Weights as sums over their singular vectors: the decomposition that looks at no data, against which others count."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from microtome.parameters.addresses import Address, weight_at
from microtome.parameters.decompose import Learnt, Method, Tell, silent
from microtome.parameters.decomposed import Decomposed, Factors
from microtome.parameters.source import Source


@dataclass(frozen=True)
class SVD(Method):
    """Every singular vector is a part, strongest first; all are kept on every input, as there are no gates."""

    steps: int = 0  # pyright: ignore[reportIncompatibleMethodOverride]

    def learn(
        self,
        module: nn.Module,
        addresses: Sequence[Address],
        source: Source,
        lead: tuple[int, ...],
        generator: torch.Generator,
        tell: Tell = silent,
    ) -> Learnt:
        made: dict[Address, Factors] = {}
        for address in addresses:
            weight = weight_at(module, address)
            weight = weight.expand(*lead, *weight.shape[-2:])
            left, sizes, right = torch.linalg.svd(weight, full_matrices=False)
            made[address] = Factors(right, (left * sizes[..., None, :]).mT)
        return Learnt(Decomposed(module, addresses, made), torch.zeros(lead or (1,)))
