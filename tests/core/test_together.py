"""Fits on one stream are the fits by themselves, and one that fails leaves the others alone."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from microtome.core.errors import NotFinite, Refusal
from microtome.core.fit import fit
from microtome.core.schedule import WarmUp
from microtome.core.site import Site
from microtome.core.together import together
from microtome.dictionaries.activation_functions import BatchTopK, ReLU, TopK
from microtome.dictionaries.objectives import AuxK, Reconstruction
from microtome.dictionaries.sae import SAE
from microtome.dictionaries.sparsity import Sparsity


def batches(count: int = 10) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(32, 8, generator=generator) for _ in range(count)]


def sae(width: int, activation: nn.Module, seed: int = 1) -> SAE:
    return SAE(Site("x"), 8, width, activation, generator=torch.Generator().manual_seed(seed))


FITS: dict[str, Callable[[], fit]] = {
    "topk": lambda: fit(sae(24, TopK(3)), [], Reconstruction() + AuxK(24, dead_after=60), lr=1e-2),
    "again": lambda: fit(sae(24, TopK(3), 2), [], Reconstruction() + AuxK(24, dead_after=60), lr=3e-3),
    "relu": lambda: fit(sae(16, ReLU()), [], Reconstruction() + 0.01 * Sparsity(), schedule=WarmUp(4)),
    "batch": lambda: fit(sae(12, BatchTopK(2)), [], Reconstruction(), clip=1.0),
}


def weights(each: fit) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in each.learned.state_dict().items()}


def same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, wanted[name]) for name, value in found.items())


def test_together_is_each_alone_bit_for_bit() -> None:
    run = together({name: make() for name, make in FITS.items()}, batches())
    found = list(run)
    for name, make in FITS.items():
        alone = make()
        assert [alone.step(batch) for batch in batches()] == [steps[name] for steps in found]
        assert same(weights(run[name]), weights(alone))


def test_each_batch_is_made_once() -> None:
    made = []

    def stream():
        for batch in batches(3):
            made.append(batch)
            yield batch

    assert len(list(together([make() for make in FITS.values()], stream()))) == len(made) == 3


def diverges(learned: nn.Module, batch: Tensor) -> dict[str, Tensor]:
    diverges.calls += 1
    loss = learned.b_dec.sum()
    return {"loss": loss / 0 if diverges.calls == 4 else loss}


def test_one_that_is_not_finite_is_stopped_and_named_while_the_others_go_on_unchanged() -> None:
    diverges.calls = 0
    run = together({"bad": fit(sae(4, ReLU()), [], diverges), "good": FITS["topk"]()}, batches())
    found = list(run)
    assert [set(steps) for steps in found] == [{"bad", "good"}] * 3 + [{"good"}] * 7
    assert list(run.stopped) == ["bad"] and run.stopped["bad"].startswith("step 4: the loss is")
    assert run["bad"].index == 3 and all(value.isfinite().all() for value in weights(run["bad"]).values())
    alone = FITS["topk"]()
    assert [alone.step(batch) for batch in batches()] == [steps["good"] for steps in found]


def test_where_every_fit_has_stopped_that_is_an_error_that_names_each() -> None:
    run = together({name: FITS[name]() for name in ("topk", "relu")}, [torch.full((4, 8), torch.nan)])
    with pytest.raises(NotFinite, match=r"every fit has stopped; topk: step 1: .*; relu: step 1: the loss is nan"):
        list(run)


@pytest.mark.parametrize("stop", [1, 4, 9])
def test_all_of_them_resume_bit_for_bit(stop: int) -> None:
    whole = together({name: make() for name, make in FITS.items()}, batches())
    steps = list(whole)
    first = together({name: make() for name, make in FITS.items()}, batches()[:stop])
    list(first)
    second = together({name: make() for name, make in FITS.items()}, batches()[stop:])
    second.load_state_dict(first.state_dict())
    assert list(second) == steps[stop:]
    assert all(same(weights(second[name]), weights(whole[name])) for name in FITS)


def test_one_that_was_stopped_stays_stopped() -> None:
    diverges.calls = 3
    run = together({"bad": fit(sae(4, ReLU()), [], diverges), "good": FITS["topk"]()}, batches(1))
    list(run)
    again = together({"bad": fit(sae(4, ReLU()), [], diverges), "good": FITS["topk"]()}, batches(1))
    again.load_state_dict(run.state_dict())
    assert [set(steps) for steps in again] == [{"good"}] and again.stopped == run.stopped


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(Refusal, match="there is nothing to fit; give at least one fit"):
        together([], [])
    one = FITS["relu"]()
    with pytest.raises(Refusal, match="the fits a and b share weights or an objective; make one for each"):
        together({"a": one, "b": fit(one.learned, [], Reconstruction())}, [])
    run = together([one], [])
    with pytest.raises(Refusal, match="that state is of the fits topk, and here are 0; give the same"):
        run.load_state_dict(together({"topk": FITS["topk"]()}, []).state_dict())
