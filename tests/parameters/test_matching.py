"""Against what is known: a truth scores as one, and each way of missing it is seen."""

import pytest
import torch

from microtome.core.errors import Refusal
from microtome.parameters.matching import alive, columns, dense_error, identity_error, one_hot


def truth() -> tuple[torch.Tensor, torch.Tensor]:
    weight = torch.randn(2, 5) + 0.1
    return torch.einsum("oi,ic->coi", weight, torch.eye(5)), weight


def test_the_truth_is_solved_and_a_lost_feature_is_not() -> None:
    parts, weight = truth()
    assert columns(parts, weight).solved
    lost = columns(torch.cat((parts[1:], 1e-3 * parts[:1])), weight)
    assert lost.mmcs == pytest.approx(1, abs=1e-4) and lost.worst > 0.9 and not lost.solved  # the cosine sees nothing
    assert columns(0.89 * parts, weight).ml2r == pytest.approx(0.89, abs=1e-4)
    assert columns(parts, weight, chosen=torch.zeros(5)).mmcs == 0


def test_errors_of_importance_are_counted() -> None:
    right = torch.zeros(4, 9)
    right[range(4), [3, 1, 7, 0]] = 1
    assert identity_error(right) == 0 and alive(right) == 4
    right[0, 8] = 0.5  # another part
    right[1, 1] = 0.5  # not sure
    assert identity_error(right) == 2
    assert identity_error(torch.zeros(4, 3)) == 4
    dense = torch.tensor([[1.0, 0.95, 0.0], [0.2, 1.0, 0.05]])
    assert dense_error(dense, 2) == 0 and dense_error(dense, 1) == 1 and dense_error(dense, 3) == 1
    assert dense_error(dense[:, :2], 3) == 1
    assert one_hot(3, 0.5).sum() == 1.5


def test_an_empty_column_is_refused() -> None:
    with pytest.raises(Refusal, match="column 2"):
        columns(torch.rand(3, 2, 4), torch.tensor([[1.0, 1.0, 0.0, 1.0]]).repeat(2, 1))
