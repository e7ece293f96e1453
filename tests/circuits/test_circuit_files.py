"""Circuits come back from the benchmark's files as they were written, and as others wrote them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from microtome.circuits.circuit_files import as_mib, grouped, read_mib, ungrouped, write_mib
from microtome.circuits.edges import Anatomy, EdgeGraph
from microtome.core.errors import Refusal


def graph(anatomy: Anatomy, generator: torch.Generator) -> EdgeGraph:
    scores = torch.randn(anatomy.possible.shape, generator=generator) * anatomy.possible
    return EdgeGraph.of(anatomy, scores[None]).top(20).connected()


@pytest.mark.parametrize("parallel", [False, True])
def test_what_is_written_is_read(parallel: bool, generator: torch.Generator, tmp_path: Path) -> None:
    made = graph(Anatomy(3, 2, 2, parallel), generator)
    write_mib(made, tmp_path / "made.json", d_model=8)
    again = read_mib(tmp_path / "made.json")
    assert again.anatomy == made.anatomy
    assert torch.equal(again.kept, made.kept)
    torch.testing.assert_close(again.scores, made.scores)


def test_grouped_keys_are_shared_out(generator: torch.Generator) -> None:
    made = graph(Anatomy(2, 4, 2), generator)
    held = as_mib(made, 8)["edges"]
    assert len(held) == int(Anatomy(2, 4, 4).possible.sum())
    for group in (0, 1):
        for kind in "kv":
            mine = [held[f"input->a1.h{h}<{kind}>"] for h in (2 * group, 2 * group + 1)]
            assert sum(e["score"] for e in mine) == pytest.approx(made[f"input->a1.h{group}<{kind}>"], abs=1e-6)
    assert sum(e["score"] for e in held.values()) == pytest.approx(float(made.scores.sum()), abs=1e-4)


def test_groups_that_were_shared_out_come_together_again(generator: torch.Generator) -> None:
    made = graph(Anatomy(2, 4, 2), generator)
    again = grouped(ungrouped(made), 2)
    assert again.anatomy == made.anatomy
    assert torch.equal(again.kept, made.kept)
    torch.testing.assert_close(again.scores, made.scores)
    with pytest.raises(Refusal, match="4 keys and values of 4 heads make no 3 groups"):
        grouped(ungrouped(made), 3)


def test_a_node_is_in_the_graph_if_an_edge_of_it_is(generator: torch.Generator) -> None:
    anatomy = Anatomy(2, 2, 2)
    kept = torch.zeros_like(anatomy.possible)
    kept[anatomy.place(anatomy.named("input->a0.h1<v>"))] = kept[anatomy.place(anatomy.named("a0.h1->logits"))] = True
    nodes = as_mib(replace(graph(anatomy, generator), kept=kept), 8)["nodes"]
    assert {n for n, v in nodes.items() if v["in_graph"]} == {"input", "a0.h1", "logits"}


def test_a_published_circuit_goes_there_and_back(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "circuit-prompts" / "mib" / "ioi-eap-ig.circuit.json"
    theirs = json.loads(path.read_text())
    write_mib(read_mib(path), tmp_path / "ours.json", d_model=theirs["cfg"]["d_model"])
    ours = json.loads((tmp_path / "ours.json").read_text())
    assert ours["cfg"] == theirs["cfg"]
    assert ours["nodes"].keys() == theirs["nodes"].keys()
    assert all(e["in_graph"] == theirs["edges"][n]["in_graph"] for n, e in ours["edges"].items())
    found, wanted = (torch.tensor([side["edges"][n]["score"] for n in theirs["edges"]]) for side in (ours, theirs))
    assert torch.equal(found, wanted)


def test_files_that_are_no_circuits_are_refused(generator: torch.Generator, tmp_path: Path) -> None:
    held = as_mib(graph(Anatomy(1, 2, 2), generator), 8)
    path = tmp_path / "circuit.json"

    def refused(changed: object, why: str) -> None:
        path.write_text(json.dumps(changed))
        with pytest.raises(Refusal, match=why):
            read_mib(path)

    refused({"nodes": {}}, "is damaged; give a file with cfg, nodes and edges")
    refused(
        {**held, "edges": {n: e for n, e in held["edges"].items() if n != "m0->logits"}}, "lacks 1 edges .m0->logits."
    )
    refused({**held, "edges": held["edges"] | {"m7->logits": {"score": 1}}}, "has 1 others .m7->logits.")
    refused({**held, "edges": held["edges"] | {"m0->logits": {"score": None}}}, "scores the edge m0->logits None")
    with pytest.raises(Refusal, match="is missing"):
        read_mib(tmp_path / "nowhere.json")
