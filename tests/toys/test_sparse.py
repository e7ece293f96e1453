"""How often features are on, alone and together, is what was asked for."""

import pytest
import torch

from microtome.core.errors import Refusal
from microtome.toys.sparse import Sparse

ROWS = 20_000
NEAR = 5 * (0.25 / ROWS) ** 0.5  # five standard errors of a share


def on(source: Sparse) -> torch.Tensor:
    return (source.draw(ROWS, torch.Generator().manual_seed(0)) != 0).float()


@pytest.mark.parametrize(("within", "both"), [("together", 0.2), ("apart", 0.0)])
def test_features_of_a_set_are_on_together_or_apart(within: str, both: float) -> None:
    found = on(Sparse(6, 0.2, sets=3, within=within))
    assert ((found.mean(0) - 0.2).abs() < NEAR).all()
    pairs = found.T @ found / ROWS
    assert abs(pairs[0, 1] - both) < NEAR and abs(pairs[0, 2] - both) < NEAR
    assert abs(pairs[2, 3] - 0.04) < NEAR  # of two sets


def test_each_seed_has_its_own_rows_and_its_own_sparsity() -> None:
    found = on(Sparse(3, torch.tensor([0.1, 0.6])[:, None, None], seeds=2))
    assert ((found.mean((1, 2)) - torch.tensor([0.1, 0.6])).abs() < NEAR).all()


def test_values_fill_their_range() -> None:
    x = Sparse(3, 1.0, low=-1.0).draw(ROWS, torch.Generator().manual_seed(0))
    assert -1 <= x.min() < -0.99 and 0.99 < x.max() <= 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"probability": 0.0}, "probability 0.0; give numbers above 0"),
        ({"probability": 0.2, "sets": 4}, "6 features cannot be in sets of 4"),
        ({"probability": 0.4, "sets": 3, "within": "apart"}, "give at most 0.333"),
    ],
)
def test_what_cannot_be_drawn_is_refused(settings: dict, said: str) -> None:
    with pytest.raises(Refusal, match=said):
        Sparse(6, **settings)
