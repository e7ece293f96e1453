"""A fit that was stopped and goes on equals one that was never stopped, bit for bit."""

from functools import partial
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor

from microtome.core.errors import NotFinite, Refusal
from microtome.core.fit import Autograd, fit
from microtome.core.site import Site
from microtome.dictionaries.activation_functions import ReLU, TopK
from microtome.dictionaries.objectives import AuxK, Reconstruction
from microtome.dictionaries.sae import SAE
from microtome.store.checkpoint import load_state, save_state


def batches(count: int = 12) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(32, 8, generator=generator) for _ in range(count)]


def learning(data: list[Tensor], **settings: object) -> fit:
    sae = SAE(Site("x"), 8, 24, TopK(3), generator=torch.Generator().manual_seed(1))
    return fit(
        sae, data, Reconstruction() + AuxK(24, dead_after=60), lr=1e-2, schedule=lambda step: 1 / (1 + step), **settings
    )


@pytest.mark.parametrize("stop", [1, 5, 11])
def test_a_resumed_fit_is_an_uninterrupted_one_bit_for_bit(stop: int, tmp_path: Path) -> None:
    whole = learning(batches())
    steps = list(whole)
    first = learning(batches())
    list(islice(first, stop))
    save_state(first.state_dict(), tmp_path / "state.safetensors")
    second = learning(batches()[stop:])
    second.load_state_dict(load_state(tmp_path / "state.safetensors"))
    assert list(second) == steps[stop:]
    for name, value in whole.learned.state_dict().items():
        assert torch.equal(value, second.learned.state_dict()[name]), name
    assert torch.equal(whole.objective.state_dict()["parts.1.silent"], second.objective.state_dict()["parts.1.silent"])


def test_learning_makes_the_loss_smaller_and_counts_rows() -> None:
    x = batches(1) * 40
    steps = list(fit(learning([]).learned, x, Reconstruction(), lr=1e-2))
    assert steps[-1].loss < 0.7 * steps[0].loss
    assert [s.index for s in steps] == list(range(1, 41)) and steps[-1].rows == 40 * 32


def test_values_that_are_not_finite_leave_the_weights_untouched() -> None:
    run = learning(batches(2))
    list(run)
    before = {name: value.clone() for name, value in run.learned.state_dict().items()}
    with pytest.raises(
        NotFinite, match=r"step 3: the loss is nan; lower lr \(now 0.00333333\), or look for bad inputs"
    ):
        run.step(torch.full((4, 8), torch.nan))
    assert all(torch.equal(value, before[name]) for name, value in run.learned.state_dict().items())
    assert run.index == 2


def test_clipping_bounds_what_one_step_can_do() -> None:
    class Pulled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.at = torch.nn.Parameter(torch.zeros(3))

    def steep(learned: Pulled, batch: Tensor) -> dict[str, Tensor]:
        return {"pull": 1e4 * (learned.at * batch[0]).sum()}

    pulled = Pulled()
    list(fit(pulled, [torch.ones(1, 3)], steep, clip=1.0))
    torch.testing.assert_close(pulled.at.grad.norm(), torch.tensor(1.0))


def test_the_schedule_is_a_factor_on_the_learning_rate_and_the_constraint_holds_after_every_step() -> None:
    run = learning(batches(3), engine=Autograd)
    for step in run:
        assert run.engine.optimiser.param_groups[0]["lr"] == pytest.approx(1e-2 / step.index)
        torch.testing.assert_close(run.learned.W_dec.norm(dim=1), torch.ones(24))


def test_in_half_precision_the_masters_and_moments_stay_whole() -> None:
    def dense(precision: torch.dtype | None) -> fit:
        sae = SAE(Site("x"), 8, 24, ReLU(), generator=torch.Generator().manual_seed(1))
        return fit(sae, batches(1) * 30, Reconstruction(), lr=1e-2, engine=partial(Autograd, precision=precision))

    low, full = dense(torch.bfloat16), dense(None)
    found, wanted = list(low), list(full)
    kept = [*low.learned.parameters(), *(m for pair in low.engine.moments.values() for m in pair)]
    assert {tensor.dtype for tensor in kept} == {torch.float32} and len(kept) == 3 * 4
    assert found != wanted  # it is in use
    assert found[-1].loss == pytest.approx(wanted[-1].loss, rel=0.1)


def test_the_state_of_another_engine_is_refused() -> None:
    run = learning([], engine=Autograd)
    with pytest.raises(Refusal, match="this state was saved by another engine; give fit the same, or begin anew"):
        run.engine.load_state_dict({"steps": 3, "moments": {}})
