"""`microtome graph`: a graph and its figures are written, and what cannot be explained is refused."""

import json
from pathlib import Path

import pytest

from microtome.circuits.graph_files import read_graph
from microtome.cli.main import main
from microtome.cli.prompt_graph import absolute
from microtome.cli.session import LiveGraph, open_session
from microtome.core.session import GraphSession
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


@pytest.fixture(scope="module")
def run(llama_folder: Path, transcoder_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    into = tmp_path_factory.mktemp("runs") / "cat"
    place = ["--dictionaries", str(transcoder_folder), "--into", str(into), "--interventions", "3", "--logits", "2"]
    assert main(["graph", str(llama_folder), "--prompt", "the cat", *place, "--drop", "0.01"]) == 0
    return into


def test_a_run_names_its_dictionaries_and_can_be_built_again_from_its_folder(
    run: Path, llama_folder: Path, transcoder_folder: Path
) -> None:
    asked = json.loads((run / "run.json").read_text())
    assert (asked["command"], asked["model"]) == ("graph", str(llama_folder))
    assert asked["arguments"]["dictionaries"] == [str(transcoder_folder)]
    metadata = json.loads((run / "graph.json").read_text())["metadata"]
    assert metadata["transcoder_list"] == [transcoder_folder.name]
    assert metadata["interventions"]["held"]["components"] == 3
    assert 0 < metadata["scores"]["whole"]["left_out"] < metadata["scores"]["kept"]["left_out"] < 1


def test_a_path_is_remembered_as_it_is_from_anywhere_and_a_name_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("specimen", "mine"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path)
    given = ["mine", "specimen", "owner/repository"]
    assert [absolute(name) for name in given] == [str(tmp_path / "mine"), "specimen", "owner/repository"]


@pytest.fixture(scope="module")
def live(run: Path) -> LiveGraph:
    return open_session(run)  # pyright: ignore[reportReturnType]


def test_a_live_graph_answers_in_plain_values(live: LiveGraph, run: Path) -> None:
    rows = json.loads((run / "graph.json").read_text())["nodes"]
    features = [row for row in rows if row["activation"] is not None]
    first, watch = features[0]["node_id"], [row["node_id"] for row in rows]
    found = live.intervene({first: 0.0}, watch, hold_attention=True)
    assert isinstance(live, GraphSession)
    assert found.components.nodes == [row["node_id"] for row in features[1:]]
    assert found.components.before == pytest.approx([row["activation"] for row in features[1:]])
    assert len(found.targets.measured) == sum(row["feature_type"] == "logit" for row in rows) == 2
    assert any(found.targets.measured) and any(found.targets.predicted)
    assert live.intervene({first: 2.0}, watch, True).targets.predicted == pytest.approx(
        [-x for x in found.targets.predicted], abs=1e-5
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"E_0_0": 1.0}, "as much as before"), ({"nowhere": 0.0}, "no node 'nowhere'")],
)
def test_a_live_graph_refuses_in_a_sentence(live: LiveGraph, changes: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        live.intervene(changes, [], True)


def test_a_run_that_does_not_say_how_it_was_made_is_refused(run: Path, tmp_path: Path) -> None:
    told = json.loads((run / "run.json").read_text()) | {"arguments": {}}
    (tmp_path / "run.json").write_text(json.dumps(told))
    with pytest.raises(ValueError, match="write it with `microtome graph`"):
        open_session(tmp_path)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--prompt", "a " * 60], "tokens and"),
        (["--prompt", "the cat", "--nodes", "2"], "nodes is 2"),
        (["--prompt", "the cat", "--interventions", "-1"], "interventions is -1"),
        (["--prompt", "the cat", "--memory", "0.0001"], "--most"),
    ],
)
def test_what_cannot_be_explained_is_refused(
    more: list[str], words: str, llama_folder: Path, transcoder_folder: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    place = ["--dictionaries", str(transcoder_folder), "--into", str(tmp_path / "out")]
    assert main(["graph", str(llama_folder), *more, *place]) == 2
    assert words in capsys.readouterr().err
