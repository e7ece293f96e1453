"""Directions that are sums of few others are told by a small dictionary; directions of chance are not."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from microtome.core.codes import DenseCodes
from microtome.core.linear import Linear
from microtome.evals.decomposability import ACTIVE, FEWEST, NARROWER, decomposed, explained
from tests.evals.examined import RESID

WIDE = 32


class Known(Linear):
    """A dictionary whose best codes are had by least squares."""

    def encode(self, x: Tensor) -> DenseCodes:
        return DenseCodes(x @ torch.linalg.pinv(self.directions().write[:, 0]))


def told(rows: Tensor, parts: Tensor) -> float:
    """What is explained by a dictionary of these parts, whatever it is to be learned from."""
    asked = []

    def learn(given: Tensor, width: int, k: int) -> Linear:
        asked.append((len(given), width, k))
        return Known(RESID, RESID, parts)

    sums = decomposed(Linear(RESID, RESID, rows), learn, torch.Generator().manual_seed(0))
    assert sums is not None and asked == [(len(rows) - -(-len(rows) // 5), len(rows) // NARROWER, ACTIVE)]
    assert len(sums) == -(-len(rows) // 5)
    return float(explained(sums.sum(0)))


def test_what_is_made_of_others_is_told(generator: torch.Generator) -> None:
    parts = normalize(torch.randn(6, WIDE, generator=generator), dim=1)
    made = torch.rand(FEWEST, 6, generator=generator) @ parts
    assert told(made, parts) > 0.999
    assert told(torch.randn(FEWEST, WIDE, generator=generator), parts) < 0.5


def test_too_few_directions_are_left_out() -> None:
    few = Linear(RESID, RESID, torch.eye(WIDE))
    assert decomposed(few, lambda *_: few, torch.Generator()) is None
