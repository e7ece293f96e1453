"""Graphs out as circuit-tracer writes them, and in again."""

import json
from pathlib import Path

import pytest
import torch

from microtome.circuits.attribution_graph import Graph, attribute
from microtome.circuits.graph_files import names_of, numbers_of, read_graph, write_graph
from microtome.circuits.pruning import graph_scores, graph_scores_as_circuit_tracer, left_out, prune
from microtome.circuits.replacement import ERROR, FEATURE, TARGET, TOKEN, Node
from microtome.circuits.targets import TopLogits
from microtome.core.errors import Refusal
from microtome.core.inputs import Tokens
from microtome.dictionaries.formats.circuit_tracer import CircuitTracer
from microtome.dictionaries.formats.format import Source
from microtome.models.load import load
from tests.circuits.sets import prompt, transcoders
from tests.models import zoo


def test_it_writes_the_file_that_circuit_tracer_wrote(shared_data: Path, tmp_path: Path) -> None:
    """Every field of every node, and every link, at its thresholds .8 and .95; order and rounding aside."""
    folder = shared_data / "sae-fixtures/circuit-tracer"
    wanted = json.loads((folder / "tinystories-lily-park.json").read_text())
    model = load(shared_data / "tinystories-656k-hf", verify=False)
    ids = [int(row["node_id"].split("_")[1]) for row in wanted["nodes"] if row["feature_type"] == "embedding"]
    texts = wanted["metadata"]["prompt_tokens"]
    words = dict(zip(ids, texts, strict=True))
    words |= {row["feature"]: row["clerp"].split('"')[1] for row in wanted["nodes"] if row["feature_type"] == "logit"}
    graph = attribute(model, Tokens.of([ids]), CircuitTracer().load(Source(folder)).dictionaries, TopLogits(most=5))
    meta = wanted["metadata"]
    write_graph(
        prune(graph, 0.8, 0.95, protect=(TOKEN, TARGET)), tmp_path / "graph.json", slug=meta["slug"],
        scan=meta["scan"], decode=words.__getitem__, prompt=meta["prompt"],
    )  # fmt: skip
    found = json.loads((tmp_path / "graph.json").read_text())
    assert {name: found["metadata"][name] for name in wanted["metadata"]} == wanted["metadata"]
    assert found["qParams"] == wanted["qParams"]
    assert len(found["nodes"]) == len(wanted["nodes"])
    for mine, theirs in zip(*(by_name(g["nodes"]) for g in (found, wanted)), strict=True):
        assert set(mine) == set(theirs)
        for name, value in theirs.items():
            assert mine[name] == (pytest.approx(value, abs=1e-4) if isinstance(value, float) else value)
    links = [{(l["source"], l["target"]): l["weight"] for l in g["links"]} for g in (found, wanted)]
    assert links[0] == pytest.approx(links[1], abs=1e-4)


def by_name(nodes: list[dict]) -> list[dict]:
    return sorted(nodes, key=lambda row: row["node_id"])


@pytest.fixture(scope="module")
def graph() -> Graph:
    return attribute(zoo.model("llama"), prompt(), transcoders(zoo.model("llama")))


def test_what_is_written_and_read_is_the_same_graph(graph: Graph, tmp_path: Path) -> None:
    pruned = prune(graph, 0.9, 0.95)
    write_graph(pruned, tmp_path / "graph.json", slug="a", scan="llama")
    found, wanted = read_graph(tmp_path / "graph.json"), pruned.kept()
    assert [(n.kind, n.layer, n.position, n.index) for n in found.nodes] == [
        (n.kind, n.layer, n.position, n.index) for n in wanted.nodes
    ]
    assert torch.allclose(found.dense(), wanted.dense()) and torch.allclose(found.weights, wanted.weights)
    assert found.tokens == wanted.tokens and list(found.texts) == [str(t) for t in wanted.tokens]


def test_scores_survive_the_file_with_what_was_dropped_and_not_explored(tmp_path: Path) -> None:
    model = zoo.model("llama")
    pruned = prune(attribute(model, prompt(), transcoders(model), most=20, drop=0.05), 0.9, 0.95)
    write_graph(pruned, tmp_path / "graph.json", slug="a", scan="llama", transcoders=["mine"], about={"more": 1})
    found, kept = read_graph(tmp_path / "graph.json"), pruned.kept()
    metadata = json.loads((tmp_path / "graph.json").read_text())["metadata"]
    assert graph_scores(found) == pytest.approx(graph_scores(kept), abs=1e-5)
    assert graph_scores_as_circuit_tracer(found) == pytest.approx(graph_scores_as_circuit_tracer(kept), abs=1e-5)
    assert left_out(found) == pytest.approx(left_out(kept), abs=1e-5) and left_out(found) > left_out(pruned.graph) > 0
    assert list(metadata["scores"]["kept"].values()) == pytest.approx([*graph_scores(kept), left_out(kept)])
    assert list(metadata["scores"]["whole"].values())[:2] == pytest.approx(graph_scores(pruned.graph))
    assert metadata["unexplored"] and (metadata["transcoder_list"], metadata["more"]) == (["mine"], 1)


def test_the_nodes_of_a_file_are_found_again_in_their_graph(graph: Graph, tmp_path: Path) -> None:
    pruned = prune(graph, 0.7, 0.9, protect=(TOKEN, TARGET))
    write_graph(pruned, tmp_path / "graph.json", slug="a", scan="llama")
    numbers = numbers_of(tmp_path / "graph.json", graph)
    assert list(numbers.values()) == pruned.nodes.nonzero()[:, 0].tolist()
    assert list(numbers) == names_of(pruned.kept().nodes)
    other = attribute(zoo.model("llama"), Tokens.of([[9, 8, 7, 6, 5, 4, 3]]), transcoders(zoo.model("llama")))
    with pytest.raises(Refusal, match="write the graph again"):
        numbers_of(tmp_path / "graph.json", other)


def test_a_recorded_graph_is_read(shared_data: Path) -> None:
    found = read_graph(shared_data / "sae-fixtures/circuit-tracer/tinystories-lily-park.json")
    assert [int(found.which(kind).sum()) for kind in (FEATURE, ERROR, TOKEN, TARGET)] == [9, 3, 11, 5]
    assert len(found.edges) == 127 and found.tokens[0] == 1


def test_an_error_and_component_0_have_names_of_their_own() -> None:
    names = names_of([Node(FEATURE, 0, 9, 0, 1.0), Node(ERROR, 0, 9, 0, 1.0)])
    assert names == ["0_0_9", "0_0_9-1"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is no JSON"),
        ("[]", "is no attribution graph"),
        ('{"metadata": {"schema_version": 7}, "nodes": [], "links": []}', "version 7"),
        ('{"metadata": {}, "nodes": [{"node_id": "a"}], "links": []}', "has no 'layer'"),
        (
            '{"metadata": {}, "nodes": [{"node_id": "a", "layer": "0", "ctx_idx": 0, "feature_type": "lorsa"}], "links": []}',
            "type 'lorsa'",
        ),
    ],
)
def test_other_files_are_refused(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(Refusal, match=words):
        read_graph(tmp_path / "other.json")
