"""Graphs as the JSON that circuit-tracer writes and Neuronpedia shows, out and in.

https://github.com/safety-research/circuit-tracer and its graph schema, version 1: metadata, nodes and links.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from microtome.circuits.attribution_graph import Graph
from microtome.circuits.influence import Edges
from microtome.circuits.pruning import NODES, Pruned
from microtome.circuits.replacement import ERROR, FEATURE, TARGET, TOKEN, Node
from microtome.core.errors import Refusal

SCHEMA = 1
TYPES = {
    FEATURE: "cross layer transcoder",
    ERROR: "mlp reconstruction error",
    TOKEN: "embedding",
    TARGET: "logit",
}
KINDS = {words: kind for kind, words in TYPES.items()}
EVERY = ("metadata", "nodes", "links")
OF_NODE = ("node_id", "layer", "ctx_idx", "feature_type")
OF_LINK = ("source", "target", "weight")


def write_graph(
    pruned: Pruned,
    path: Path,
    *,
    slug: str,
    scan: str,
    decode: Callable[[int], str] = str,
    prompt: str = "",
    node_threshold: float = NODES,
) -> None:
    """What was kept of a graph, as JSON. `scan` names the model, `decode` gives a token's text."""
    path.write_text(json.dumps(plain_graph(pruned, slug, scan, decode, prompt, node_threshold), indent=1) + "\n")


def plain_graph(
    pruned: Pruned, slug: str, scan: str, decode: Callable[[int], str], prompt: str, node_threshold: float
) -> dict[str, Any]:
    """The same as plain values."""
    graph = pruned.kept()
    names, ranks = names_of(graph.nodes), pruned.rank[pruned.nodes].tolist()
    texts = [decode(token) for token in graph.tokens]
    likeliest = next((i for i, n in enumerate(graph.nodes) if n.kind == TARGET), -1)
    nodes = [
        plain_node(node, name, rank, float(graph.weights[i]), decode) | {"is_target_logit": i == likeliest}
        for i, (node, name, rank) in enumerate(zip(graph.nodes, names, ranks, strict=True))
    ]
    edges = zip(*(x.tolist() for x in (graph.edges.sources, graph.edges.targets, graph.edges.weights)), strict=True)
    return {
        "metadata": {
            "slug": slug, "scan": scan, "transcoder_list": [], "prompt_tokens": texts,
            "prompt": prompt or "".join(texts), "node_threshold": node_threshold, "schema_version": SCHEMA,
        },
        "qParams": {"pinnedIds": [], "supernodes": [], "linkType": "both", "clickedId": "", "sg_pos": ""},
        "nodes": nodes,
        "links": [{"source": names[s], "target": names[t], "weight": w} for s, t, w in edges],
    }  # fmt: skip


def plain_node(node: Node, name: str, rank: float, weight: float, decode: Callable[[int], str]) -> dict[str, Any]:
    target = node.kind == TARGET
    words = decode(node.index) if target and node.index >= 0 else None
    return {
        "node_id": name,
        "feature": feature_number(node),
        "layer": "E" if node.kind == TOKEN else str(node.layer + target),
        "ctx_idx": node.position,
        "feature_type": TYPES[node.kind],
        "token_prob": weight,
        "is_target_logit": False,
        "run_idx": 0,
        "reverse_ctx_idx": 0,
        "jsNodeId": page_name(node),
        "clerp": (node.label if words is None else f'Output "{words}" (p={weight:.3f})') if target else "",
        "influence": None if target else rank,
        "activation": node.activity if node.kind == FEATURE else None,
    }


def feature_number(node: Node) -> int:
    """Of a component, Cantor's pairing of layer and number; of others, what circuit-tracer puts there."""
    if node.kind == FEATURE:
        total = node.layer + node.index
        return total * (total + 1) // 2 + node.index
    return {ERROR: -1, TOKEN: node.position, TARGET: node.index}[node.kind]


def page_name(node: Node) -> str:
    match node.kind:
        case "feature":
            return f"{node.layer}_{node.index}-0"
        case "error":
            return f"{node.layer}_{node.position}-0"
        case "token":
            return f"E_{node.index}-{node.position}"
        case _:
            return f"L_{node.index}-{node.position}"


def name_of(node: Node) -> str:
    match node.kind:
        case "feature":
            return f"{node.layer}_{node.index}_{node.position}"
        case "error":
            return f"0_{node.layer}_{node.position}"
        case "token":
            return f"E_{node.index}_{node.position}"
        case _:
            return f"{node.layer + 1}_{node.index}_{node.position}"


def names_of(nodes: Sequence[Node]) -> list[str]:
    """circuit-tracer's name of each node; where it gives two the same (an error and component 0), numbered ones."""
    seen: Counter[str] = Counter()
    names: list[str] = []
    for node in nodes:
        name = name_of(node)
        names.append(f"{name}-{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return names


# ---------------------------------------------------------------- in


def read_graph(path: Path) -> Graph:
    """A graph from such JSON, with its nodes in the order of `Graph`. What was pruned before it was written is unknown.

    Raises Refusal for a file that is no such graph.
    """
    try:
        held = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise Refusal(f"{path} is no JSON ({error}); give a graph as circuit-tracer writes it") from None
    refuse_other(held, path)
    order = list(TYPES.values())
    rows = sorted(held["nodes"], key=lambda row: order.index(row["feature_type"]))
    number = {row["node_id"]: i for i, row in enumerate(rows)}
    nodes = [node_of(row) for row in rows]
    links = [link for link in held["links"] if link["source"] in number and link["target"] in number]
    edges = Edges(
        torch.tensor([number[link["target"]] for link in links], dtype=torch.long),
        torch.tensor([number[link["source"]] for link in links], dtype=torch.long),
        torch.tensor([float(link["weight"]) for link in links]),
        torch.zeros(len(nodes)),
    )
    explored = torch.tensor([n.kind in (FEATURE, TARGET) for n in nodes], dtype=torch.bool)
    weights = torch.tensor([float(row.get("token_prob") or 0.0) for row in rows])
    tokens = [n.index for n in sorted((n for n in nodes if n.kind == TOKEN), key=lambda n: n.position)]
    texts = tuple(held["metadata"].get("prompt_tokens", ()))
    return Graph(nodes, edges, torch.zeros(len(nodes)), explored, weights, tokens, 0.0, texts)


def refuse_other(held: Any, path: Path) -> None:
    if not isinstance(held, Mapping) or any(part not in held for part in EVERY):
        raise Refusal(f"{path} is no attribution graph: it lacks one of {', '.join(EVERY)}; give circuit-tracer's JSON")
    version = held["metadata"].get("schema_version", SCHEMA)
    if version != SCHEMA:
        raise Refusal(f"{path} has version {version} of the schema of graphs; version {SCHEMA} is read here")
    for rows, wanted in ((held["nodes"], OF_NODE), (held["links"], OF_LINK)):
        lacking = next((name for row in rows for name in wanted if name not in row), None)
        if lacking:
            raise Refusal(f"a node or link of {path} has no {lacking!r}; give a graph as circuit-tracer writes it")
    other = next((row["feature_type"] for row in held["nodes"] if row["feature_type"] not in KINDS), None)
    if other:
        raise Refusal(f"{path} has a node of the type {other!r}; {', '.join(map(repr, KINDS))} are known")


def node_of(row: Mapping[str, Any]) -> Node:
    kind, position = KINDS[row["feature_type"]], int(row["ctx_idx"])
    layer = -1 if row["layer"] == "E" else int(row["layer"]) - (kind == TARGET)
    index = 0 if kind == ERROR else int(row["node_id"].split("_")[1])
    activity = float(row.get("activation") or 0.0)
    return Node(kind, layer, position, index, activity, label=row.get("clerp") or "")
