"""Graphs of several prompts as one: a component is one node wherever it was active, and effects are means over prompts.

What is merged is a graph again, to be scored and pruned as any other. Edges lead from lower sites to higher ones,
so that no circle comes of forgetting positions.
"""

from collections.abc import Sequence

import torch

from microtome.circuits.attribution_graph import Graph
from microtome.circuits.influence import Edges
from microtome.circuits.replacement import ERROR, FEATURE, TARGET, TOKEN, Node
from microtome.core.errors import Refusal

ANYWHERE = -1
ORDER = (FEATURE, ERROR, TOKEN, TARGET)
Key = tuple[str, int, int, int, str]


def key_of(node: Node) -> Key:
    """What makes two nodes one: kind, layer, dictionary and number; the label too of targets without a number."""
    return node.kind, node.layer, node.dictionary, node.index, node.label if node.kind == TARGET else ""


def merge(graphs: Sequence[Graph]) -> Graph:
    """One graph of all: activity, effects and biases added up over a prompt's positions, then averaged over prompts.

    A node that a prompt lacks counts as silent there. Raises Refusal for no graphs at all.
    """
    if not graphs:
        raise Refusal("there are no graphs to merge; give at least one")
    keys = sorted({key_of(n) for g in graphs for n in g.nodes}, key=lambda key: (ORDER.index(key[0]), key[1:]))
    number = {key: i for i, key in enumerate(keys)}
    places = [torch.tensor([number[key_of(n)] for n in g.nodes]) for g in graphs]
    share = 1 / len(graphs)

    def mean(columns: Sequence[torch.Tensor]) -> torch.Tensor:
        total = torch.zeros(len(keys))
        for column, place in zip(columns, places, strict=True):
            total.index_add_(0, place, share * column)
        return total

    activity = mean([g.activity for g in graphs]).tolist()
    nodes = [
        Node(kind, layer, ANYWHERE, index, activity[i], dictionary, label)
        for i, (kind, layer, dictionary, index, label) in enumerate(keys)
    ]
    explored = mean([g.explored.float() for g in graphs]) > 0
    edges = added([renumbered(g.edges, place, share) for g, place in zip(graphs, places, strict=True)], len(keys))
    dropped = mean([g.edges.dropped for g in graphs])
    merged = Edges(edges.targets, edges.sources, edges.weights, dropped)
    tokens = [index for kind, _, _, index, _ in keys if kind == TOKEN]
    worst = max(g.incomplete for g in graphs)
    weights = mean([g.weights for g in graphs])
    return Graph(nodes, merged, mean([g.bias for g in graphs]), explored, weights, tokens, worst)


def renumbered(edges: Edges, place: torch.Tensor, by: float) -> Edges:
    """Edges between nodes of another numbering, their weights multiplied."""
    return Edges(place[edges.targets], place[edges.sources], by * edges.weights, torch.zeros(0))


def added(parts: Sequence[Edges], nodes: int) -> Edges:
    """The sum of edges that join the same nodes."""
    pairs = torch.cat([p.targets * nodes + p.sources for p in parts])
    joined, which = pairs.unique(return_inverse=True)
    weights = torch.zeros(len(joined)).index_add(0, which, torch.cat([p.weights for p in parts]))
    return Edges(joined // nodes, joined % nodes, weights, torch.zeros(nodes))


def present(graphs: Sequence[Graph], merged: Graph) -> list[float]:
    """In what share of the prompts each node of a merged graph was there."""
    there = [{key_of(n) for n in g.nodes} for g in graphs]
    return [sum(key_of(n) in keys for keys in there) / len(graphs) for n in merged.nodes]
