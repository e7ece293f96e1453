"""Edge attribution is the derivative of the exact effect of an edge; along a path it comes near the effect itself."""

import pytest
import torch

from microtome.circuits.circuit_run import CircuitRun, exact_edges
from microtome.circuits.edge_attribution import edge_attribution
from microtome.circuits.feeling import segments
from microtome.circuits.gradient_paths import AlongActivations, AlongInputs, AtClean, CleanCorrupt, ends_of
from microtome.circuits.wiring import wiring
from microtome.core.errors import Refusal
from microtome.core.linear import Coordinates
from microtome.core.measure import Measure, activity
from tests.circuits.pairs_of_tokens import JOINED, MEASURE, one_row, pairs
from tests.models import zoo

PATHS = [AtClean(), CleanCorrupt(), AlongInputs(2), AlongActivations(2)]
STEP = 1e-3  # some families' norms work in single precision whatever they are given
MIXED = "mixtral"  # its experts work in single precision alone


@pytest.mark.parametrize("name", [n for n in JOINED if n != MIXED])
def test_it_is_the_derivative_of_the_effect_of_each_edge(name: str) -> None:
    model, (clean, corrupt) = zoo.model(name, torch.float64), pairs(name, ragged=False)
    found = edge_attribution(model, clean, corrupt, MEASURE)
    run, possible = CircuitRun(wiring(model, clean), clean, corrupt, MEASURE), found.anatomy.possible
    w, r = possible.nonzero().T
    w, r = w[::5], r[::5]
    cells = torch.arange(len(w))
    with torch.no_grad():
        less, more = (possible.double().repeat(len(w), 1, 1) for _ in range(2))
        less[cells, w, r] -= STEP
        more[cells, w, r] += STEP
        expected = ((run(less) - run(more)) / (2 * STEP)).T
    torch.testing.assert_close(found.each[:, w, r], expected, rtol=5e-3, atol=5e-3 * float(expected.abs().max()))


@pytest.mark.parametrize("path", PATHS, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("name", ["gpt2", "gemma2", "gptj"])
@pytest.mark.parametrize("left", [False, True])
def test_a_batch_of_ragged_pairs_is_each_pair_alone(path, name: str, left: bool) -> None:
    model, (clean, corrupt) = zoo.model(name), pairs(name, left=left)
    found = edge_attribution(model, clean, corrupt, MEASURE, path)
    for row in range(3):
        measure = Measure(lambda t, r=row: difference(t, r), MEASURE.reads, "one row")
        alone = edge_attribution(model, one_row(clean, row), one_row(corrupt, row), measure, path)
        torch.testing.assert_close(found.each[row], alone.each[0], rtol=1e-5, atol=1e-5)


def difference(trace, row: int) -> torch.Tensor:
    logits = trace[MEASURE.reads[0]]
    return logits[:, 5 + row] - logits[:, 8 + row]


@pytest.mark.parametrize("path", PATHS, ids=lambda p: type(p).__name__)
def test_a_prompt_against_itself_has_no_effects(path) -> None:
    clean, _ = pairs("llama")
    assert not edge_attribution(zoo.model("llama"), clean, clean, MEASURE, path).each.any()
    assert exact_edges(zoo.model("llama"), clean, clean, MEASURE).each.abs().max() < 1e-6


@pytest.mark.parametrize("name", ["gpt2", "gemma2", "qwen3", "gpt_neox"])
def test_of_what_is_linear_it_is_the_effect(name: str) -> None:
    """What goes straight into the last stream, measured there: one path, no bend."""
    model, (clean, corrupt) = zoo.model(name), pairs(name)
    last = model.site("resid_post.1")
    measure = activity(Coordinates(last, 32)[3])
    found = [f(model, clean, corrupt, measure) for f in (edge_attribution, exact_edges)]
    torch.testing.assert_close(found[0].each[..., -1], found[1].each[..., -1], rtol=1e-4, atol=1e-5)
    assert found[1].each[..., -1].abs().max() > 0.01


def test_memory_bounds_change_no_score(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (clean, corrupt) = zoo.model("gemma2"), pairs("gemma2")
    whole = edge_attribution(model, clean, corrupt, MEASURE, AlongInputs(2))
    monkeypatch.setattr("microtome.circuits.edge_attribution.HELD_BYTES", 0)
    monkeypatch.setattr("microtome.circuits.edge_attribution.BLOCK_BYTES", 1)
    wired = wiring(model, clean, keep=False)
    torch.testing.assert_close(
        edge_attribution(model, clean, corrupt, MEASURE, AlongInputs(2), wired=wired).each,
        whole.each,
        rtol=1e-4,
        atol=1e-6,
    )


@pytest.mark.parametrize("path", PATHS, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("name", ["gpt2", "gemma2", "gptj", "qwen3"])
def test_segments_change_no_score(path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, (clean, corrupt) = zoo.model(name), pairs(name)
    whole = edge_attribution(model, clean, corrupt, MEASURE, path)
    monkeypatch.setattr("microtome.circuits.feeling.KEPT_BYTES", 0)
    point = next(path.points(wiring(model, clean), ends_of(wiring(model, clean), clean, corrupt)))
    apart = segments(wiring(model, clean), point)
    assert [s.first for s in apart[1:]] == [s.last for s in apart[:-1]]
    assert len(apart) == (1 if path.needs_activations and point.layer != -1 else 2)
    torch.testing.assert_close(
        edge_attribution(model, clean, corrupt, MEASURE, path).each, whole.each, rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("in_segments", [False, True])
def test_a_measure_of_an_early_site_is_refused(in_segments: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, (clean, corrupt) = zoo.model("gpt2"), pairs("gpt2")
    measure = activity(Coordinates(model.site("resid_post.0"), 32)[3])
    if in_segments:
        monkeypatch.setattr("microtome.circuits.feeling.KEPT_BYTES", 0)
    with pytest.raises(Refusal, match="does not depend on resid_post.1; edges need a measure of the logits"):
        edge_attribution(model, clean, corrupt, measure)


def test_a_path_needs_a_step() -> None:
    clean, corrupt = pairs("gpt2")
    with pytest.raises(Refusal, match="a path of 0 steps has no points"):
        edge_attribution(zoo.model("gpt2"), clean, corrupt, MEASURE, AlongInputs(0))
