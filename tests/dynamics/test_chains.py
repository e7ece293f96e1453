"""Chains about a minimum sample what they should: Gaussians exactly, one program or one by one, modules or functions."""

from itertools import repeat

import pytest
import torch
from torch import Tensor, nn

from microtome.core.errors import Refusal
from microtome.dynamics.chains import Chains, Langevin, calibrated, of_module, tempering

AT = {"w": torch.zeros(2, dtype=torch.float64)}
CURVED = torch.tensor([1.0, 4.0], dtype=torch.float64)


def bowl(weights: dict[str, Tensor], batch: object) -> Tensor:
    return (CURVED * weights["w"].square()).sum(1) / 2


def test_adjusted_chains_have_the_variance_of_the_posterior(generator: torch.Generator) -> None:
    """1 / (n beta curvature + localisation), whatever the step."""
    how = Langevin(temper=3.0, rate=0.2, localisation=2.0, adjusted=True)
    walk = Chains(bowl, AT, how, chains=400, generator=generator)
    kept = [walk.weights["w"][:-1].clone() for _, _ in zip(range(150), walk.steps(repeat(None)), strict=False)][50:]
    found = torch.stack(kept).square().mean((0, 1))
    torch.testing.assert_close(found, 1 / (3 * CURVED + 2), rtol=0.05, atol=0)


def test_plain_chains_have_the_variance_of_their_own_recursion(generator: torch.Generator) -> None:
    """w' = (1 - rate h / 2) w + noise: rate / (1 - (1 - rate h / 2)^2)."""
    how = Langevin(temper=3.0, rate=0.1, localisation=2.0)
    walk = Chains(bowl, AT, how, chains=400, generator=generator)
    kept = [walk.weights["w"][:-1].clone() for _, _ in zip(range(150), walk.steps(repeat(None)), strict=False)][50:]
    shrink = 1 - 0.1 * (3 * CURVED + 2) / 2
    torch.testing.assert_close(torch.stack(kept).square().mean((0, 1)), 0.1 / (1 - shrink**2), rtol=0.05, atol=0)


def test_the_last_row_stays_as_the_baseline_of_each_batch(generator: torch.Generator) -> None:
    def shifted(weights: dict[str, Tensor], batch: float) -> Tensor:
        return bowl(weights, None) + batch

    walk = Chains(shifted, AT, Langevin(1.0, rate=0.1), chains=3, generator=generator)
    before = [w.clone() for w in walk.weights.values()]
    first = next(walk.steps([1e6]))
    assert torch.equal(first.excess, torch.zeros(3, dtype=torch.float64)), "the batch's own loss is taken off"
    assert torch.equal(walk.weights["w"][-1], before[0][-1]) and not torch.equal(walk.weights["w"][0], before[0][0])


def test_a_module_of_many_weights_is_each_by_itself() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    x, y = torch.randn(5, 3), torch.randn(5, 2)
    loss = of_module(module, lambda out, b: (out - b[1]).square().mean(), lambda b: b[0])
    many = {n: torch.randn(6, *w.shape) for n, w in module.named_parameters()}
    found = loss(many, (x, y))
    for i in range(6):
        out = torch.func.functional_call(module, {n: w[i] for n, w in many.items()}, (x,))
        torch.testing.assert_close(found[i], (out - y).square().mean())


def test_calibration_finds_a_rate_that_is_accepted(generator: torch.Generator) -> None:
    for begun in (2e-3, 0.3):
        how = calibrated(bowl, AT, Langevin(50.0, rate=begun), generator=generator, steps=25)
        walk = Chains(bowl, AT, Langevin(50.0, rate=how.rate, adjusted=True), chains=50, generator=generator)
        seen = torch.stack([s.acceptance for _, s in zip(range(60), walk.steps(repeat(None)), strict=False)])
        assert 0.83 < seen[20:].mean() < 0.99
    with pytest.raises(Refusal, match="no rate from .* is accepted about 90% of the time; begin with another rate"):
        calibrated(bowl, AT, Langevin(50.0, rate=1e6), generator=generator, tries=3, steps=5)


def test_bad_settings_are_refused(generator: torch.Generator) -> None:
    with pytest.raises(Refusal, match="0 chains are none; give 1"):
        Chains(bowl, AT, Langevin(1.0), chains=0, generator=generator)
    with pytest.raises(Refusal, match="1 samples have no temperature"):
        tempering(1)
