"""Variance divided among settings, where it is known what moved the figure."""

from itertools import product

import pytest

from microtome.core.errors import Refusal
from microtome.dynamics.spread import spread


def test_the_variance_goes_to_the_setting_that_made_it() -> None:
    runs = {(seed, rate): 10 * rate + 0.0 * seed for seed, rate in product(range(3), (0.1, 0.2))}
    found = spread(("seed", "rate"), runs)
    assert found.shares == pytest.approx({"seed": 0.0, "rate": 1.0}) and found.left == pytest.approx(0)
    both = spread(("seed", "rate"), {k: v + k[0] for k, v in runs.items()})
    assert sum(both.shares.values()) == pytest.approx(1) and both.shares["seed"] == pytest.approx(8 / 11)
    crossed = spread(("a", "b"), {(0, 0): 1.0, (1, 1): 1.0, (0, 1): -1.0, (1, 0): -1.0})
    assert crossed.left == pytest.approx(1)
    assert spread(("a",), {(0,): 2.0, (1,): 2.0}).shares == {"a": 0.0}


def test_a_grid_with_holes_is_refused() -> None:
    with pytest.raises(Refusal, match="3 runs are not all 4 combinations of a, b; run the others too"):
        spread(("a", "b"), {(0, 0): 1.0, (1, 1): 1.0, (0, 1): 1.0})
