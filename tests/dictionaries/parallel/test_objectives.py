"""What is dead or strongest over many ranks, and what divides."""

import pytest
import torch

from microtome.core.errors import Refusal
from microtome.core.rows import Rows
from microtome.dictionaries.objectives import AuxK, Reconstruction
from microtome.dictionaries.parallel.group import ALONE, Group
from microtome.dictionaries.parallel.mesh import Mesh
from microtome.dictionaries.parallel.objectives import kth_largest, over_ranks, rows_of, spread, strongest
from microtome.dictionaries.sparsity import Sparsity

MESH = Mesh(None, ALONE, ALONE, ALONE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("k", [1, 3, 9, 20])
def test_the_kth_largest_is_found_bit_by_bit(dtype: torch.dtype, k: int) -> None:
    values = torch.randn(50, 12).relu().to(dtype)
    ordered = values.sort(1, descending=True).values
    expected = (values >= ordered[:, [k - 1]] if k <= 12 else torch.ones_like(values, dtype=torch.bool)) & (values > 0)
    assert torch.equal(strongest(values, k, ALONE), expected)


def test_of_nothing_nothing_is_strongest() -> None:
    assert strongest(torch.zeros(3, 0), 2, ALONE).shape == (3, 0)
    assert kth_largest(torch.tensor([[5, 9, 7]]), 2, ALONE).tolist() == [[7]]


def test_rows_are_divided_once_each_and_in_order() -> None:
    x = torch.arange(22.0).view(11, 2)
    parts = [rows_of(Rows({"a": x}), Group(None, 3, rank)) for rank in range(3)]
    assert torch.equal(torch.cat([part["a"] for part in parts]), x)
    with pytest.raises(Refusal, match="a batch of 2 rows does not divide over 3 ranks; make it larger"):
        rows_of(x[:2], Group(None, 3, 0))


def test_the_spread_is_the_summed_squared_distance_from_the_mean() -> None:
    x = torch.randn(2, 9, 4)
    torch.testing.assert_close(spread(x, ALONE), sum(((y - y.mean(0)) ** 2).sum() for y in x))


def test_terms_that_ranks_do_not_know_are_refused() -> None:
    assert over_ranks(0.5 * (Reconstruction() + AuxK(4)), MESH)
    with pytest.raises(Refusal, match="Sparsity is not known among ranks; use Reconstruction and AuxK"):
        over_ranks(Reconstruction() + 0.1 * Sparsity(), MESH)
