"""`microtome graph`: a graph and its figures are written, and what cannot be explained is refused."""

import json
from pathlib import Path

import pytest

from microtome.circuits.graph_files import read_graph
from microtome.cli.main import main
from microtome.dictionaries.formats.registry import write
from microtome.models.load import load
from tests.circuits.sets import transcoders


@pytest.fixture(scope="module")
def transcoder_folder(llama_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transcoders")
    write(transcoders(load(llama_folder, verify=False)), folder, "circuit_tracer")
    return folder


def test_a_graph_and_its_figures_are_written(
    llama_folder: Path, transcoder_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    into = tmp_path / "park"
    arguments = [
        "graph", str(llama_folder), "--prompt", "the cat sat", "--dictionaries", str(transcoder_folder), "--into", str(into),
        "--interventions", "4", "--logits", "3", "--json", str(tmp_path / "figures.json"),
    ]  # fmt: skip
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "completeness" in said and "graph.json" in said
    summary, graph = json.loads((into / "summary.json").read_text()), read_graph(into / "graph.json")
    assert summary == json.loads((tmp_path / "figures.json").read_text())
    assert summary["kept_nodes"] == len(graph) and summary["kept_edges"] == len(graph.edges)
    assert summary["incomplete"] < 1e-4 and len(summary["targets"]) <= 3
    assert "".join(graph.texts).endswith("the cat sat")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--prompt", "a " * 60], "tokens and"),
        (["--prompt", "the cat", "--nodes", "2"], "nodes is 2"),
        (["--prompt", "the cat", "--interventions", "-1"], "interventions is -1"),
    ],
)
def test_what_cannot_be_explained_is_refused(
    more: list[str], words: str, llama_folder: Path, transcoder_folder: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    place = ["--dictionaries", str(transcoder_folder), "--into", str(tmp_path / "out")]
    assert main(["graph", str(llama_folder), *more, *place]) == 2
    assert words in capsys.readouterr().err
