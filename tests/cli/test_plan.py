"""What is planned is what happens: bytes on disk and in memory, to the headers of the files."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from microtome.cli import plan as command
from microtome.cli.plan import Pace, Plan, Sizes, hours, plan, timed
from microtome.core.errors import Refusal
from microtome.core.fit import fit
from microtome.core.inputs import Tokens
from microtome.core.site import Site
from microtome.dictionaries.activation_functions import TopK
from microtome.dictionaries.normalisation import UnitMeanSquare
from microtome.dictionaries.objectives import AuxK, Reconstruction
from microtome.dictionaries.sae import SAE
from microtome.models.hooked import HookedModel
from microtome.models.load import load
from microtome.store.checkpoint import save_state
from microtome.store.harvest import harvest
from microtome.store.quantised import CODECS, codec_named

HEADER = 4096  # bytes of a file's header, at most


@pytest.fixture(scope="module")
def model(llama_folder: Path) -> HookedModel:
    return load(llama_folder, verify=False)


@pytest.mark.parametrize("stored", CODECS)
def test_the_bytes_on_disk_are_those_that_a_harvest_writes(stored: str, model: HookedModel, tmp_path: Path) -> None:
    ids = Tokens.of(torch.randint(200, (6, 20)))
    codec = codec_named(stored)
    acts = harvest(model, [ids] * 4, model.site("resid_post.1"), 400, tmp_path, stored=codec)
    written = sum(path.stat().st_size for path in tmp_path.glob("*.safetensors"))
    wanted = Sizes(acts.width, 1, len(acts), codec).disk
    assert len(acts) == 400 and wanted <= written <= wanted + HEADER


def test_the_bytes_in_memory_are_those_of_the_tensors_and_a_checkpoint_holds_them(tmp_path: Path) -> None:
    d, width = 24, 96
    x = [torch.randn(64, d) for _ in range(2)]
    sae = SAE(Site("x"), d, width, TopK(4), UnitMeanSquare.of(x[0]))
    learning = fit(sae, x, Reconstruction() + AuxK(width))
    list(learning)
    sizes = Sizes(d, width, 1, codec_named("bfloat16"))
    weights = list(sae.parameters())
    moments = [moment for pair in learning.engine.moments.values() for moment in pair]
    assert sizes.parameters == bytes_of(weights) and 2 * sizes.parameters == bytes_of(moments)
    kept = [*sae.state_dict().values(), *moments, *learning.objective.state_dict().values()]
    assert sizes.checkpoint == bytes_of(kept)
    save_state(learning.state_dict(), tmp_path / "state")
    assert sizes.checkpoint <= (tmp_path / "state").stat().st_size <= sizes.checkpoint + HEADER
    assert sizes.training - sizes.checkpoint == bytes_of([sae.W_enc.bfloat16()])


def bytes_of(tensors: list[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def test_time_is_counted_after_the_first_and_multiplied(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 6.0, 6.0])
    monkeypatch.setattr(command.time, "perf_counter", lambda: next(clock))
    pace = timed(iter([100, 150, 200, 250, 300]))
    assert pace == Pace(100, 6.0)
    assert hours("harvest", 1_000_000, pace, "rows in").amount == pytest.approx(1_000_000 * 0.06 / 3600)


def test_a_plan_is_made_shown_and_written(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(command, "ENOUGH", 0.05)
    asked = {"site": "resid_post.1", "tokens": 1e6, "width": 64, "k": 4, "batch": 64, "stored": "int8"}
    one = plan(str(llama_folder), **asked, json=tmp_path / "plan.json")
    assert Plan.read(tmp_path) == one and one.d == 16
    three = plan(str(llama_folder), **asked, dictionaries=3)
    amounts, thrice = ({e.name: e.amount for e in each.estimates} for each in (one, three))
    assert amounts["activations on disk"] == 1e6 * (16 + 4)
    assert thrice["memory to train"] == 3 * amounts["memory to train"]
    assert all(e.amount > 0 and e.how for e in one.estimates)
    assert "activations on disk" in capsys.readouterr().out


@pytest.mark.parametrize(
    "asked, said",
    [
        ({"k": 9, "width": 8}, "k is 9, more than the 8 components there would be; lower --k or raise --width"),
        ({"tokens": 0.0}, "--tokens is 0; give at least 1"),
        ({"stored": "int4"}, "no way of storing rows is called 'int4'; there are bfloat16, int8, float32"),
        ({"site": "resid_pots.1"}, "resid_pots.1"),
    ],
)
def test_what_cannot_be_planned_is_refused(asked: dict, said: str, llama_folder: Path) -> None:
    with pytest.raises(Refusal, match=said):
        plan(str(llama_folder), **asked)
