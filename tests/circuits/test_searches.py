"""Searches for circuits: with no tolerance all is kept, with endless tolerance nothing; what is kept does the work."""

import pytest
import torch

from microtome.circuits.acdc import ACDC, acdc
from microtome.circuits.circuit_run import CircuitRun
from microtome.circuits.masks import EdgeMask
from microtome.circuits.wiring import wiring
from microtome.core.errors import Refusal
from tests.circuits.pairs_of_tokens import MEASURE, pairs
from tests.models import zoo


@pytest.fixture(scope="module")
def run() -> CircuitRun:
    model, (clean, corrupt) = zoo.model("llama"), pairs("llama")
    return CircuitRun(wiring(model, clean), clean, corrupt, MEASURE)


def test_no_trial_that_moves_less_than_the_threshold_stays(run: CircuitRun) -> None:
    search = ACDC(run, 0.02)
    trials = list(search)
    kept = {edge for edge in search.circuit}
    assert all((trial.edge in kept) == trial.stays == (abs(trial.moved) >= 0.02) for trial in trials)
    assert 0 < len(kept) < int(run.wired.anatomy.possible.sum())
    with torch.no_grad():
        value = run(search.circuit.kept[None].float())[0].mean()
    assert float(value) == pytest.approx(search.value, abs=1e-6)


def test_a_threshold_above_all_effects_leaves_nothing_and_one_below_zero_is_refused(run: CircuitRun) -> None:
    assert len(acdc(run, 1e9)) == 0
    with pytest.raises(Refusal, match="a threshold of -1.0 keeps every edge"):
        ACDC(run, -1.0)


def test_a_mask_without_a_price_pays_for_distance_alone_and_a_high_price_empties_it(run: CircuitRun) -> None:
    steps = list(EdgeMask(run, price=100.0, steps=25, lr=0.5, generator=torch.Generator().manual_seed(0)))
    assert steps[-1].kept < 0.2 < steps[0].kept
    free = EdgeMask(run, price=0.0, steps=3, generator=torch.Generator().manual_seed(0))
    assert all(step.loss == step.distance for step in free)
    assert len(free.circuit()) == int(run.wired.anatomy.possible.sum())
