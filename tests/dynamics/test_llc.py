"""The learning coefficient where it is known, and the flags of chains that say nothing."""

from itertools import count

import pytest
import torch
from torch import Tensor

from microtome.core.errors import Refusal
from microtome.dynamics.chains import Langevin, calibrated, tempering
from microtome.dynamics.llc import LearningCoefficient, learning_coefficient

WHERE = {"w": torch.zeros(1, dtype=torch.float64)}


def power(k: int):
    return lambda weights, batch: weights["w"].pow(2 * k).sum(1)


@pytest.mark.parametrize("k", [1, 3])
def test_a_power_of_one_weight(k: int, generator: torch.Generator) -> None:
    """w^2k has the coefficient 1 / 2k."""
    how = Langevin(tempering(10_000), rate=1e-3, localisation=0.1, adjusted=True)
    how = calibrated(power(k), WHERE, how, generator=generator, steps=25)
    found = learning_coefficient(power(k), WHERE, how, chains=400, steps=150, burn=100, generator=generator)
    assert found.flags == []
    assert found.value == pytest.approx(1 / (2 * k), abs=0.03)


def test_a_regular_minimum_has_half_its_weights(generator: torch.Generator) -> None:
    """Also by plain chains on batches of many."""
    x = torch.randn(4000, 3, generator=generator)

    def linear(weights: dict[str, Tensor], batch: Tensor) -> Tensor:
        return torch.einsum("bi,ci->cb", batch, weights["w"]).square().mean(1) / 2

    batches = (x[torch.randint(4000, (500,), generator=generator)] for _ in count())
    how = Langevin(tempering(4000), rate=2e-4, localisation=0.1)
    found = learning_coefficient(
        linear, {"w": torch.zeros(3)}, how, batches=batches, chains=50, steps=250, burn=150, generator=generator
    )
    assert found.value == pytest.approx(1.5, abs=0.12)


def test_where_the_loss_falls_nearby_there_is_no_value(generator: torch.Generator) -> None:
    def slope(weights: dict[str, Tensor], batch: object) -> Tensor:
        return weights["w"].sum(1)

    found = learning_coefficient(slope, WHERE, Langevin(10.0, rate=1e-2), steps=200, generator=generator)
    assert any("negative" in flag for flag in found.flags)
    with pytest.raises(Refusal, match="no number here: it is negative .* train to a minimum"):
        _ = found.value


def test_chains_that_diverge_say_how_many(generator: torch.Generator) -> None:
    found = learning_coefficient(power(2), WHERE, Langevin(1e4, rate=1.0), steps=50, burn=20, generator=generator)
    assert found.flags == ["20 of 20 chains diverged; make the rate smaller"]
    with pytest.raises(Refusal, match="20 of 20 chains diverged"):
        _ = found.value


def test_chains_still_on_their_way_are_flagged(generator: torch.Generator) -> None:
    how = Langevin(1e3, rate=1e-6, localisation=0.1)
    found = learning_coefficient(power(1), WHERE, how, chains=400, steps=200, burn=0, generator=generator)
    assert any("still drifts" in flag and "burn in for longer" in flag for flag in found.flags)


def test_refused_steps_are_flagged(generator: torch.Generator) -> None:
    how = Langevin(1e3, rate=1.0, localisation=0.1, adjusted=True)
    found = learning_coefficient(power(1), WHERE, how, steps=200, burn=100, generator=generator)
    assert any("of the steps were accepted" in flag for flag in found.flags)


def test_error_is_the_spread_between_chains() -> None:
    excess = torch.tensor([[1.0, 3.0], [2.0, 2.0], [0.0, 1.0]])
    found = LearningCoefficient(excess, temper=2.0, acceptance=1.0)
    assert found.estimate == pytest.approx(3.0)
    assert found.error == pytest.approx(float(torch.tensor([4.0, 4.0, 1.0]).std() / 3**0.5))


def test_batches_that_end_early_are_refused(generator: torch.Generator) -> None:
    with pytest.raises(Refusal, match="ended after 2 steps of 1500; give more"):
        learning_coefficient(power(1), WHERE, Langevin(1.0), batches=[0, 1], generator=generator)
