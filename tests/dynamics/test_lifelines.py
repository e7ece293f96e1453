"""Lives that were written by hand: one component settles, one dies, one never lives."""

import pytest
import torch

from microtome.core.codes import Codes, DenseCodes
from microtome.core.errors import Refusal
from microtome.core.linear import Linear
from microtome.core.site import Site
from microtome.dynamics.lifelines import lives

SITE = Site("x", "batch d")


class Rectified(Linear):
    """relu(read . x)"""

    def encode(self, x: torch.Tensor) -> Codes:
        return DenseCodes((x @ self.read.T).relu())


def at(*vectors: list[float]) -> Rectified:
    return Rectified(SITE, SITE, torch.tensor(vectors))


ROWS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, 1.0]])
STEPS = [0, 10, 20, 30]
RUN = [
    at([0.0, 1.0], [1.0, 0.0], [-1.0, -1.0]),
    at([1.0, 0.0], [1.0, 0.0], [-1.0, -1.0]),
    at([1.0, 0.1], [-1.0, 0.0], [-1.0, -1.0]),
    at([1.0, 0.0], [-1.0, 0.0], [-1.0, -1.0]),
]


def test_births_deaths_and_turns() -> None:
    found = lives(RUN, STEPS, ROWS)
    assert found.born() == [10, 0, -1]
    assert found.died() == [-1, 20, -1]
    torch.testing.assert_close(found.drift()[:, 0], torch.tensor([0.0, 90.0, 5.711, 5.711]), atol=0.05, rtol=0)
    torch.testing.assert_close(found.density[:, 1], torch.tensor([0.75, 0.75, 0.0, 0.0]))


def test_checkpoints_of_different_dictionaries_are_refused() -> None:
    with pytest.raises(Refusal, match=r"have one size, not \[1, 3\]"):
        lives([RUN[0], at([1.0, 0.0])], [0, 1], ROWS)
    with pytest.raises(Refusal, match="1 dictionaries for 1 steps"):
        lives(RUN[:1], [0], ROWS)
