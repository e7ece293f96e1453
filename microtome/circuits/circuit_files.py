"""Circuits in the files of the Mechanistic Interpretability Benchmark (MIB, arXiv 2504.13151), as EAP-IG writes them.

    {"cfg": {n_layers, n_heads, parallel_attn_mlp, d_model},
     "nodes": {"a0.h1": {"in_graph"}, ...}, "edges": {"a0.h1->a1.h2<q>": {"score", "in_graph"}, ...}}

The format knows no grouped keys: every query head has a key and a value edge of its own.
"""

import json
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from microtome.circuits.edges import Anatomy, EdgeGraph
from microtome.core.errors import Refusal
from microtome.store.whole import reading, whole

REMEDY = "give a file with cfg, nodes and edges, as the benchmark's EAP-IG writes it"


def read_mib(path: Path) -> EdgeGraph:
    """The circuit of a file, with one score an edge. Raises Refusal where it is none, or lacks an edge."""
    with reading(path, REMEDY):
        held = json.loads(path.read_text())
        cfg, edges = held["cfg"], held["edges"]
        layers, heads, parallel = int(cfg["n_layers"]), int(cfg["n_heads"]), bool(cfg["parallel_attn_mlp"])
    anatomy = Anatomy(layers, heads, heads, parallel)
    wanted = list(named_edges(anatomy))
    refuse_others(path, edges, [name for name, _ in wanted])
    scores, kept = torch.zeros(anatomy.possible.shape), torch.zeros_like(anatomy.possible)
    for name, place in wanted:
        scores[place], kept[place] = scored(path, name, edges[name]), bool(edges[name].get("in_graph", True))
    return replace(EdgeGraph.of(anatomy, scores[None], path.stem), kept=kept)


def named_edges(anatomy: Anatomy) -> list[tuple[str, tuple[int, int]]]:
    """Every possible edge by its name, with its writer and reader."""
    writers, readers = list(map(str, anatomy.writers)), list(map(str, anatomy.readers))
    return [(f"{writers[w]}->{readers[r]}", (w, r)) for w, r in anatomy.possible.nonzero().tolist()]


def refuse_others(path: Path, edges: dict[str, Any], wanted: list[str]) -> None:
    """Raises Refusal for a file whose edges are not those of its own cfg."""
    missing, unknown = sorted(set(wanted) - set(edges)), sorted(set(edges) - set(wanted))
    if missing or unknown:
        said = f"lacks {len(missing)} edges ({missing[0]})" if missing else f"has {len(unknown)} others ({unknown[0]})"
        raise Refusal(f"{path} {said} of the {len(wanted)} that its cfg describes; {REMEDY}")


def scored(path: Path, name: str, edge: dict[str, Any]) -> float:
    """The score of one edge. Raises Refusal for what is no finite number."""
    score = edge.get("score")
    if not isinstance(score, int | float) or not isfinite(score):
        raise Refusal(f"{path} scores the edge {name} {score!r}, which is no finite number; score it anew")
    return float(score)


def write_mib(graph: EdgeGraph, path: Path, *, d_model: int) -> None:
    """Write a circuit. Where keys are grouped, each query head of a group has an equal part of its edges' scores."""
    with whole(path) as partial:
        partial.write_text(json.dumps(as_mib(graph, d_model)))


def as_mib(graph: EdgeGraph, d_model: int) -> dict[str, Any]:
    """The graph as MIB's JSON has it; heads that share keys and values have an edge each."""
    graph = ungrouped(graph)
    anatomy, scores, kept = graph.anatomy, graph.scores, graph.kept
    nodes = dict.fromkeys(map(str, anatomy.writers), False) | {"logits": False}
    edges: dict[str, Any] = {}
    for name, place in named_edges(anatomy):
        edges[name] = {"score": float(scores[place]), "in_graph": bool(kept[place])}
        if kept[place]:
            writer, _, reader = name.partition("->")
            nodes[writer] = nodes[reader.partition("<")[0]] = True
    cfg = {
        "n_layers": anatomy.layers, "n_heads": anatomy.heads, "parallel_attn_mlp": anatomy.parallel, "d_model": d_model,
    }  # fmt: skip
    return {"cfg": cfg, "nodes": {n: {"in_graph": inside} for n, inside in nodes.items()}, "edges": edges}


def ungrouped(graph: EdgeGraph) -> EdgeGraph:
    """With a key and a value for every query head. A group's score is shared out, so that sums stay as they were."""
    anatomy = graph.anatomy
    groups = anatomy.heads // anatomy.kv_heads
    if groups == 1:
        return graph
    times = torch.tensor([groups if reader.kind in ("k", "v") else 1 for reader in anatomy.readers])

    def spread(x: Tensor) -> Tensor:
        return x.repeat_interleave(times, -1)

    each = spread(graph.each / times)
    return EdgeGraph(
        Anatomy(anatomy.layers, anatomy.heads, anatomy.heads, anatomy.parallel), each, spread(graph.kept), graph.label
    )


def grouped(graph: EdgeGraph, kv_heads: int) -> EdgeGraph:
    """With so many keys and values a layer: those of a group's query heads are one, and their scores are added up.

    Raises Refusal where the heads cannot be divided into so many groups.
    """
    whole_anatomy = graph.anatomy
    if whole_anatomy.kv_heads == kv_heads:
        return graph
    if whole_anatomy.kv_heads != whole_anatomy.heads or whole_anatomy.heads % kv_heads:
        raise Refusal(
            f"{whole_anatomy.kv_heads} keys and values of {whole_anatomy.heads} heads make no {kv_heads} groups; "
            "give a circuit of a network of this shape"
        )
    anatomy = replace(whole_anatomy, kv_heads=kv_heads)
    places = {reader: place for place, reader in enumerate(anatomy.readers)}
    size = whole_anatomy.heads // kv_heads
    into = torch.tensor(
        [places[r._replace(head=r.head // size) if r.kind in ("k", "v") else r] for r in whole_anatomy.readers]
    )

    def together(x: Tensor) -> Tensor:
        return x.new_zeros(*x.shape[:-1], len(anatomy.readers)).index_add(-1, into, x)

    return EdgeGraph(anatomy, together(graph.each), together(graph.kept.float()) > 0, graph.label)
