"""`microtome dynamics`: a folder of checkpoints as a record that the browser draws, and sentences for what is none."""

import shutil
from pathlib import Path

import pytest
import torch

from microtome.browser.dynamics import dynamics_page
from microtome.browser.runs import FoundRun
from microtome.cli.dynamics import life_curves
from microtome.cli.main import main
from microtome.core.site import Site
from microtome.dictionaries.activation_functions import ReLU
from microtome.dictionaries.files import save_dictionary
from microtome.dictionaries.sae import SAE
from microtome.dynamics.lifelines import Lives
from microtome.store.records import Dynamics, Run
from microtome.store.tensors import read_tensors, write_tensors


@pytest.fixture
def scaled(llama_folder: Path, tmp_path: Path) -> Path:
    """One model at seven checkpoints, its weights a share of themselves."""
    for step in range(7):
        folder = shutil.copytree(llama_folder, tmp_path / "run" / f"step{100 * step}")
        file = folder / "model.safetensors"
        held = read_tensors(file)
        write_tensors(file, {name: w * (1 - 0.1 * step) for name, w in held.items()})
    return tmp_path / "run"


def command(folder: Path, into: Path, stories: Path, *more: str) -> int:
    given = ["dynamics", str(folder), "--into", str(into), "--text", str(stories), "--windows", "4", "--context", "32"]
    return main([*given, *more])


def test_a_model_at_each_checkpoint_is_drawn(scaled: Path, stories: Path, tmp_path: Path) -> None:
    into = tmp_path / "out"
    assert command(scaled, into, stories, "--json", str(tmp_path / "more" / "figures.json")) == 0
    found = Dynamics.read(into)
    assert found.steps == [0, 100, 200, 300, 400, 500, 600] and Run.read(into).command == "dynamics"
    squares = found.curves["squared weights"]
    assert squares[4] == pytest.approx(0.36 * (squares[0] or 0), rel=1e-4)
    assert all(v is not None for v in (*found.curves["loss"], *found.curves["in-context score"]))
    assert found.phases[0].first == 0 and found.phases[-1].last == 600
    page = dynamics_page(FoundRun(tmp_path, into))
    assert {"loss", "in-context score"} <= {c.name for c in page.curves}
    assert [p.name for p in page.profiles] == ["length of each weight"]
    assert (tmp_path / "more" / "figures.json").is_file()


def test_what_was_measured_is_not_measured_again_unless_it_is_asked_for_otherwise(
    scaled: Path, stories: Path, tmp_path: Path
) -> None:
    into = tmp_path / "out"
    assert command(scaled, into, stories, "--measure", "loss") == 0
    (kept,) = into.glob("measured-*.jsonl")
    lines = kept.read_text()
    assert command(scaled, into, stories, "--measure", "loss") == 0 and kept.read_text() == lines
    assert command(scaled, into, stories, "--measure", "weights") == 0
    assert "loss" not in Dynamics.read(into).curves


def test_a_diverged_chain_is_no_number_and_is_said(scaled: Path, stories: Path, tmp_path: Path, capsys) -> None:
    for step in range(2, 7):
        shutil.rmtree(scaled / f"step{100 * step}")
    chains = ["--measure", "coefficient", "--chains", "2", "--steps", "4", "--burn", "2", "--rate", "1e6"]
    assert command(scaled, tmp_path / "out", stories, *chains) == 0
    found = Dynamics.read(tmp_path / "out")
    assert found.curves["learning coefficient"] == [None, None]
    assert "no number at step 0, 100" in found.about and "make the rate smaller" in found.about
    assert "no number at step" in " ".join(capsys.readouterr().out.split())


def test_components_of_dictionaries_are_followed(llama_folder: Path, stories: Path, tmp_path: Path) -> None:
    site = Site("resid_post.1", "batch pos d")
    sae = SAE(site, 16, 24, ReLU(), generator=torch.Generator().manual_seed(0))
    for step in (10, 20, 30):
        save_dictionary(sae, tmp_path / "saes" / f"step{step}")
        with torch.no_grad():
            sae.b_enc[:5] = -1e4  # these fire no more
    assert command(tmp_path / "saes", tmp_path / "out", stories, "--model", str(llama_folder)) == 0
    found = Dynamics.read(tmp_path / "out")
    alive = [v or 0 for v in found.curves["alive"]]
    assert alive[1] == alive[2] < alive[0] and found.curves["died"] == [0, alive[0] - alive[1], 0]
    assert found.curves["turned"] == [0, 0, 0]


def test_lives_are_told_as_they_were() -> None:
    ones = torch.ones(2, 3)
    density = torch.tensor([[0.5, 0.0, 0.0], [0.5, 0.2, 0.0]])
    curves = life_curves(Lives([1, 2], density, ones, ones))
    assert list(curves["alive"]) == [1, 2] and list(curves["born"]) == [1, 1] and list(curves["died"]) == [0, 0]
    assert list(curves["share of tokens on which it fires/1"]) == pytest.approx([0, 0.2])


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--measure", "loss"], "loss cannot be measured on weights alone"),
        (["--chains", "1"], "--chains is 1"),
        (["--rate", "0"], "--rate is 0"),
    ],
)
def test_what_cannot_be_measured_is_a_sentence(
    more: list[str], says: str, stories: Path, tmp_path: Path, capsys
) -> None:
    write_tensors(tmp_path / "run-5.safetensors", {"w": torch.ones(2)})
    assert command(tmp_path, tmp_path / "out", stories, *more) == 2
    assert says in capsys.readouterr().err


def test_a_folder_without_checkpoints_and_dictionaries_without_a_model_are_sentences(
    stories: Path, tmp_path: Path, capsys
) -> None:
    assert command(tmp_path, tmp_path / "out", stories) == 2
    assert "holds no checkpoints" in capsys.readouterr().err
    site = Site("resid_post.1", "batch pos d")
    for step in (1, 2):
        save_dictionary(SAE(site, 4, 6, ReLU(), generator=torch.Generator()), tmp_path / "saes" / f"step{step}")
    assert command(tmp_path / "saes", tmp_path / "out", stories) == 2
    assert "name it with --model" in capsys.readouterr().err
