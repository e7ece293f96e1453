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
from microtome.circuits.influence import Edges, Scores
from microtome.circuits.pruning import NODES, Pruned, graph_scores, graph_scores_as_circuit_tracer, left_out
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
    transcoders: Sequence[str] = (),
    about: Mapping[str, Any] | None = None,
) -> None:
    """What was kept of a graph, as JSON. `scan` names the model, `decode` gives a token's text.

    `transcoders` names the dictionaries, and `about` is further metadata. Beyond circuit-tracer's own, metadata hold
    `scores` (see `scores_of`), `dropped` (by node, the magnitude of what was left out of its row) and `unexplored`.
    """
    plain = plain_graph(pruned, slug, scan, decode, prompt, node_threshold)
    plain["metadata"] |= {"transcoder_list": list(transcoders), **(about or {})}
    path.write_text(json.dumps(plain, indent=1) + "\n")


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
            "scores": scores_of(pruned),
            "dropped": {n: d for n, d in zip(names, graph.edges.dropped.tolist(), strict=True) if d},
            "unexplored": [n for n, i in zip(names, unexplored(graph), strict=True) if i],
        },
        "qParams": {"pinnedIds": [], "supernodes": [], "linkType": "both", "clickedId": "", "sg_pos": ""},
        "nodes": nodes,
        "links": [{"source": names[s], "target": names[t], "weight": w} for s, t, w in edges],
    }  # fmt: skip


def scores_of(pruned: Pruned) -> dict[str, dict[str, float]]:
    """Both scores of the whole graph and of what was kept, as the paper defines them and as circuit-tracer prints them.

    `left_out` is the share of what is read that was dropped or cut.
    """
    whole, kept = pruned.graph, pruned.kept()
    return {
        "whole": plain_scores(graph_scores(whole)) | {"left_out": left_out(whole)},
        "whole_as_circuit_tracer": plain_scores(graph_scores_as_circuit_tracer(whole)),
        "kept": plain_scores(graph_scores(kept)) | {"left_out": left_out(kept)},
        "kept_as_circuit_tracer": plain_scores(graph_scores_as_circuit_tracer(kept)),
    }


def plain_scores(found: Scores) -> dict[str, float]:
    return {"replacement": found.replacement, "completeness": found.completeness}


def unexplored(graph: Graph) -> list[bool]:
    """The components whose own sources were not worked out."""
    return (graph.which(FEATURE) & ~graph.explored).tolist()


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
    """A graph from such JSON, with its nodes in the order of `Graph`.

    What was pruned before it was written is unknown, but for how much it was, where this package wrote the file.
    Raises Refusal for a file that is no such graph.
    """
    held = read_plain(path)
    order = list(TYPES.values())
    rows = sorted(held["nodes"], key=lambda row: order.index(row["feature_type"]))
    number = {row["node_id"]: i for i, row in enumerate(rows)}
    nodes = [node_of(row) for row in rows]
    links = [link for link in held["links"] if link["source"] in number and link["target"] in number]
    edges = Edges(
        torch.tensor([number[link["target"]] for link in links], dtype=torch.long),
        torch.tensor([number[link["source"]] for link in links], dtype=torch.long),
        torch.tensor([float(link["weight"]) for link in links]),
        torch.tensor([float(held["metadata"].get("dropped", {}).get(row["node_id"], 0.0)) for row in rows]),
    )
    ends = set(held["metadata"].get("unexplored", ()))
    reads = [n.kind in (FEATURE, TARGET) and row["node_id"] not in ends for n, row in zip(nodes, rows, strict=True)]
    explored = torch.tensor(reads, dtype=torch.bool)
    weights = torch.tensor([float(row.get("token_prob") or 0.0) for row in rows])
    tokens = [n.index for n in sorted((n for n in nodes if n.kind == TOKEN), key=lambda n: n.position)]
    texts = tuple(held["metadata"].get("prompt_tokens", ()))
    return Graph(nodes, edges, torch.zeros(len(nodes)), explored, weights, tokens, 0.0, texts)


def read_plain(path: Path) -> dict[str, Any]:
    try:
        held = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise Refusal(f"{path} is no JSON ({error}); give a graph as circuit-tracer writes it") from None
    refuse_other(held, path)
    return held


def numbers_of(path: Path, graph: Graph) -> dict[str, int]:
    """The number in `graph` of every node that is named in a file of it.

    Raises Refusal where the file has a node that the graph has not: it is of another prompt, model or dictionary.
    """
    places: dict[tuple[str, int, int, int], list[int]] = {}
    for number, node in enumerate(graph.nodes):
        places.setdefault(place_of(node), []).append(number)
    numbers: dict[str, int] = {}
    for row in read_plain(path)["nodes"]:
        node = node_of(row)
        alike = places.get(place_of(node))
        if not alike:
            raise Refusal(
                f"{path.name} has the node {row['node_id']!r}, which this model and its dictionaries do not have on "
                "this prompt; they have changed since, so write the graph again"
            )
        numbers[row["node_id"]] = alike.pop(nearest(node, [graph.nodes[number] for number in alike]))
    return numbers


def nearest(node: Node, alike: Sequence[Node]) -> int:
    """Which of several of one name: the one with its activity; of errors and tokens, which have none, the first."""
    off = [abs(other.activity - node.activity) if node.kind == FEATURE else 0.0 for other in alike]
    return off.index(min(off))


def place_of(node: Node) -> tuple[str, int, int, int]:
    return node.kind, node.layer, node.position, 0 if node.kind == ERROR else node.index


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
