"""The bench says what each way of a step takes, in a process of its own, and which of them `fit` takes."""

import json
from pathlib import Path

import pytest
import torch

from microtome.cli import bench_sae, timing
from microtome.cli.bench_sae import AUTOGRAD, SELECTION, Point, activations, alone, engine_of, learner, time_sae
from microtome.cli.main import WRONG, main
from microtome.cli.timing import Timing, compared, peak_memory
from microtome.core.errors import Refusal
from microtome.core.fit import Adam, Autograd, fit
from microtome.dictionaries.kernels.engine import SparseEngine, available

SMALL = Point(d_in=16, width=96, k=4, batch=40, repeats=1)


def test_there_is_a_row_for_each_way_and_the_first_is_the_one_that_fit_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_sae, "alone", bench_sae.row)
    found = time_sae(SMALL)
    ways = [f"sae step, {name}" for name in [*reversed(available()), AUTOGRAD]]
    assert [t.name for t in found] == [*ways, SELECTION]
    assert [t.used for t in found] == [True, *[False] * len(ways)]
    for t in found[:-1]:
        assert t.floor_share == pytest.approx(t.floor_ms / t.step_ms)
        assert t.tokens_per_second == pytest.approx(40 / t.step_ms * 1e3)


def test_each_row_is_made_in_its_own_way() -> None:
    sae, objective = learner(SMALL)
    assert isinstance(engine_of(None, sae, objective, Adam()), Autograd)
    for make in available().values():
        engine = engine_of(make, sae, objective, Adam())
        assert isinstance(engine, SparseEngine) and type(engine.kernels) is type(make(engine.weights, 4))


def test_dead_latents_are_dead_at_the_first_step() -> None:
    point = Point(16, 96, 4, 40, 1, dead=0.25)
    sae, objective = learner(point)
    assert fit(sae, [], objective).step(activations(point)[0]).parts["auxk"] > 0


def test_a_row_is_timed_in_a_process_of_its_own_and_arguments_reach_it() -> None:
    found = alone(SMALL)
    assert found.name == "sae step, autograd" and found.step_ms > 0 and 1e7 < found.peak_memory_bytes < 2e9


def test_the_peak_is_taken_before_what_the_step_is_held_against() -> None:
    held: list[torch.Tensor] = []
    before = peak_memory()
    found = compared("small", lambda: None, "large", lambda: held.append(torch.ones(40_000_000)), 1, 1)
    assert found.peak_memory_bytes < before + 40_000_000 < peak_memory()


def test_medians_of_turns_without_what_is_beside_the_question(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = {"step": 5.0, "beside": 3.0, "bound": 1.0}
    monkeypatch.setattr(timing, "seconds", lambda call: taken[call()])
    found = compared("x", lambda: "step", "y", lambda: "bound", 10, 3, lambda: "beside")
    assert (found.step_ms, found.floor_ms, found.floor_share, found.tokens_per_second) == (2000, 1000, 0.5, 5)


def test_activations_are_the_same_every_time_and_as_many_as_asked_for() -> None:
    point = Point(8, 20, 2, 1100, 1)
    one, other = activations(point), activations(point)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True)) and one[0].shape == (1100, 8)
    assert not torch.equal(one[0], one[1])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"k": 97}, "k is 97 with 96 latents"), ({"batch": 0}, "d_in, batch and repeats are 16, 0 and 1"), ({"dead": 1.0}, "dead is 1")],
)  # fmt: skip
def test_nonsense_is_refused(wrong: dict, said: str) -> None:
    with pytest.raises(Refusal, match=said):
        time_sae(Point(**{"d_in": 16, "width": 96, "k": 4, "batch": 40, "repeats": 1, **wrong}))


def test_a_row_that_does_not_survive_is_said_in_one_sentence() -> None:
    with pytest.raises(
        Refusal, match=r"the row 'autograd' could not be timed: \w+Error.*; try a smaller width or batch"
    ):
        alone(Point(16, 2**44, 4, 40, 1))  # more latents than any memory holds


def test_the_command_writes_its_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_sae, "alone", bench_sae.row)
    sizes = ["--d-in", "16", "--width", "96", "--k", "4", "--batch", "40", "--repeats", "1"]
    assert main(["bench", "sae", *sizes, "--json", str(tmp_path / "found.json")]) == 0
    found = [Timing(**row) for row in json.loads((tmp_path / "found.json").read_text())]
    assert sum(t.used for t in found) == 1
    assert main(["bench", "sae", "--k", "0"]) == WRONG
