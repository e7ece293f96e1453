"""The sparse engine makes the step that autograd makes, whatever the kernels, and goes on bit for bit."""

from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor

from microtome.core.errors import NotFinite, Refusal
from microtome.core.fit import Adam, Autograd, fit
from microtome.core.rows import Rows
from microtome.core.site import Site
from microtome.dictionaries.activation_functions import ReLU, TopK
from microtome.dictionaries.constraints import Free
from microtome.dictionaries.kernels import engine
from microtome.dictionaries.kernels.engine import SparseEngine, available, flattened, offered, task_of
from microtome.dictionaries.normalisation import LayerNorm, Unchanged, UnitMeanSquare, Whitening
from microtome.dictionaries.objectives import AuxK, Objective, Reconstruction
from microtome.dictionaries.sae import SAE
from microtome.store.checkpoint import load_state, save_state

D, N, K, ROWS = 24, 100, 5, 37
NEAR = {torch.float64: {"rtol": 1e-9, "atol": 1e-9}, torch.float32: {"rtol": 1e-3, "atol": 1e-4}}


def batches(count: int = 10, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    g = torch.Generator().manual_seed(5)
    return [(3 + 2 * torch.randn(ROWS, D, generator=g)).to(dtype) for _ in range(count)]


def autoencoder(dtype: torch.dtype = torch.float32, normalised: bool = True, **given: object) -> SAE:
    units = UnitMeanSquare.of(batches(1)[0]) if normalised else Unchanged(D)
    g = torch.Generator().manual_seed(1)
    return SAE(Site("x"), D, N, **{"activation": TopK(K), "normalisation": units, **given}, generator=g).to(dtype)


def objective(kind: str = "auxk") -> Objective:
    aux = AuxK(N, dead_after=2 * ROWS, k_aux=7)  # from the third step on some latents are dead
    return {
        "plain": Reconstruction(),
        "auxk": Reconstruction() + aux,
        "few dead": Reconstruction() + AuxK(N, dead_after=2 * ROWS, k_aux=N),  # all of them may be active
        "scaled": 2.0 * (0.5 * Reconstruction() + 3.0 * aux) + 0.25 * Reconstruction(),
    }[kind]


def silent(given: Objective) -> Tensor:
    return torch.cat([term.silent for term, _ in flattened(given) if isinstance(term, AuxK)] or [torch.zeros(1)])


@pytest.mark.parametrize("kind", ["plain", "auxk", "few dead", "scaled"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("normalised", [True, False])
def test_its_steps_are_those_of_autograd(
    kind: str, dtype: torch.dtype, normalised: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "fast_bfloat16", lambda device: False)  # AuxK's products too are of full precision
    data = batches(8, dtype)
    sparse = fit(autoencoder(dtype, normalised), data, objective(kind), lr=3e-3, engine=offered)
    dense = fit(autoencoder(dtype, normalised), data, objective(kind), lr=3e-3, engine=Autograd)
    assert isinstance(sparse.engine, SparseEngine)
    revived = 0.0
    for mine, theirs in zip(sparse, dense, strict=True):
        revived += mine.parts.get("auxk", 0.0)
        assert mine.parts.keys() == theirs.parts.keys()
        for name, part in mine.parts.items():
            assert part == pytest.approx(theirs.parts[name], rel=NEAR[dtype]["rtol"])
        for name, value in dense.learned.state_dict().items():
            torch.testing.assert_close(sparse.learned.state_dict()[name], value, **NEAR[dtype])
    assert torch.equal(silent(sparse.objective), silent(dense.objective))
    assert (revived > 0) == (kind != "plain")


@pytest.mark.parametrize("name", available())
def test_every_set_of_kernels_that_works_here_makes_the_same_steps(name: str) -> None:
    def made(sae: SAE, given: Objective, adam: Adam) -> SparseEngine:
        return SparseEngine(sae, task_of(given), adam, available()[name])

    one = fit(autoencoder(), batches(8), objective(), lr=3e-3, engine=made)
    other = fit(autoencoder(), batches(8), objective(), lr=3e-3, engine=Autograd)
    for mine, theirs in zip(one, other, strict=True):
        assert mine.loss == pytest.approx(theirs.loss, rel=2e-3)
    assert torch.equal(silent(one.objective), silent(other.objective))


@pytest.mark.parametrize("name", available())
@pytest.mark.parametrize("stop", [1, 5])
def test_a_resumed_fit_is_an_uninterrupted_one_bit_for_bit(name: str, stop: int, tmp_path: Path) -> None:
    def learning(data: list[Tensor]) -> fit:
        return fit(
            autoencoder(), data, objective(), lr=3e-3,
            engine=lambda sae, given, adam: SparseEngine(sae, task_of(given), adam, available()[name]),
        )  # fmt: skip

    whole, first, second = learning(batches()), learning(batches()), learning(batches()[stop:])
    steps = list(whole)
    list(islice(first, stop))
    save_state(first.state_dict(), tmp_path / "state.safetensors")
    second.load_state_dict(load_state(tmp_path / "state.safetensors"))
    assert list(second) == steps[stop:]
    for key, value in whole.learned.state_dict().items():
        assert torch.equal(value, second.learned.state_dict()[key]), key
    assert torch.equal(silent(whole.objective), silent(second.objective))


def test_values_that_are_not_finite_leave_weights_and_counts_untouched() -> None:
    run = fit(autoencoder(), batches(4), objective(), lr=3e-3, engine=offered)
    list(run)
    before = {k: v.clone() for k, v in (run.learned.state_dict() | run.objective.state_dict()).items()}
    with pytest.raises(NotFinite, match=r"step 5: the loss is nan; lower lr \(now 0.003\)"):
        run.step(torch.full((4, D), torch.nan))
    after = run.learned.state_dict() | run.objective.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in after.items())
    assert run.engine.steps == run.index == 4


def test_what_others_do_to_the_weights_is_noticed() -> None:
    one, other = (fit(autoencoder(), [], objective(), lr=3e-3, engine=offered) for _ in range(2))
    with torch.no_grad():
        for run in (one, other):
            run.learned.W_enc.copy_(run.learned.W_enc.flip(0))
    other.engine.kernels.reload()
    assert one.step(batches(1)[0]) == other.step(batches(1)[0])
    one.learned.double()
    with pytest.raises(Refusal, match="moved or cast after its fit began"):
        one.step(batches(1)[0])


def test_rows_of_sites_are_read_at_its_own() -> None:
    given = batches(1)[0]
    one, other = (fit(autoencoder(), [], objective(), engine=offered) for _ in range(2))
    assert one.step(given) == other.step(Rows({"y": given + 1, "x": given}))


@pytest.mark.parametrize(
    "sae",
    [
        autoencoder(activation=ReLU()),
        autoencoder(activation=TopK(N + 1)),
        autoencoder(normalisation=LayerNorm(D)),
        autoencoder(normalisation=Whitening(D)),
        autoencoder(constraint=Free()),
        autoencoder().requires_grad_(False),
    ],
    ids=["relu", "k too large", "units of a token", "whitening", "free rows", "frozen"],
)
def test_what_it_does_not_know_is_left_to_autograd(sae: SAE) -> None:
    assert offered(sae, objective(), Adam()) is None


def test_other_objectives_and_clipping_are_left_to_autograd() -> None:
    class Other(Reconstruction.__base__):
        def terms(self, attempt: object) -> dict[str, Tensor]:
            return {}

    two = AuxK(N) + AuxK(N)
    for unknown in (Other(), Reconstruction() + Other(), AuxK(N), Reconstruction() + two, lambda learned, batch: {}):
        assert offered(autoencoder(), unknown, Adam()) is None
    assert offered(autoencoder(), objective(), Adam(clip=1.0)) is None
    assert offered(autoencoder(), objective(), Adam()) is not None


def test_the_state_of_another_kind_of_engine_is_refused() -> None:
    autograd = fit(autoencoder(), batches(1), objective(), engine=Autograd)
    list(autograd)
    with pytest.raises(Refusal, match="saved by another engine; give fit engine=Autograd, or begin anew"):
        fit(autoencoder(), [], objective(), engine=offered).load_state_dict(autograd.state_dict())
