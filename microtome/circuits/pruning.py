"""The part of a graph that carries most of the influence: first nodes, then the edges among them.

Ameisen et al. 2025, Circuit Tracing, appendix "Graph pruning": thresholds .8 for nodes and .98 for edges.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from microtome.circuits.attribution_graph import Graph
from microtome.circuits.influence import Scores, influence, scores, scores_as_circuit_tracer
from microtome.circuits.replacement import ERROR, FEATURE, TARGET, TOKEN
from microtome.core.errors import Refusal

NODES, EDGES = 0.8, 0.98


@dataclass(frozen=True, eq=False)
class Pruned:
    """Which nodes and edges stay. `rank` is the share of all influence that a node and those with more have."""

    graph: Graph
    nodes: Bool[Tensor, "nodes"]
    edges: Bool[Tensor, "edges"]
    rank: Float[Tensor, "nodes"]

    def kept(self) -> Graph:
        """What is left, as a graph of its own: what was cut counts as dropped."""
        return self.graph.restricted(self.nodes, self.edges)


def prune(
    graph: Graph, nodes: float = NODES, edges: float = EDGES, *, protect: tuple[str, ...] = (ERROR, TOKEN, TARGET)
) -> Pruned:
    """Keep the fewest nodes, then edges, that carry these shares of the influence; then whatever hangs loose goes.

    Nodes of the kinds in `protect` always stay; circuit-tracer protects tokens and targets alone. A component stays
    only with an edge in and an edge out, an error that is not protected only with one out.
    """
    for name, share in (("nodes", nodes), ("edges", edges)):
        if not 0 < share <= 1:
            raise Refusal(f"{name} is {share}; give the share of influence to keep, above 0 and at most 1")
    reached = influence(graph.edges.shares(), graph.weights)
    protected = graph.which(*protect)
    kept = (reached >= least(reached, nodes)) | protected
    among = kept[graph.edges.targets] & kept[graph.edges.sources]
    found = graph.edges.among(among).shares(dropped_too=False)
    carried = found.weights * (influence(found, graph.weights) + graph.weights)[found.targets]
    staying = torch.zeros_like(among)
    staying[among] = carried >= least(carried, edges)
    kept, staying = without_loose_ends(graph, kept, staying, protected)
    return Pruned(graph, kept, staying, ranks(reached))


def least(amounts: Tensor, share: float) -> float:
    """The smallest amount that is still needed to reach this share of their sum, the largest first."""
    if not len(amounts):
        return 0.0
    ordered = amounts.sort(descending=True).values
    shares = ordered.cumsum(0) / ordered.sum().clamp(min=1e-30)
    return float(ordered[min(int(torch.searchsorted(shares, share)), len(ordered) - 1)])


def ranks(amounts: Float[Tensor, "nodes"]) -> Float[Tensor, "nodes"]:
    """For each node, the share of the whole that it and those with more make up."""
    ordered = amounts.sort(descending=True)
    shares = ordered.values.cumsum(0) / ordered.values.sum().clamp(min=1e-30)
    return torch.empty_like(amounts).index_copy(0, ordered.indices, shares)


def without_loose_ends(graph: Graph, nodes: Tensor, edges: Tensor, protected: Tensor) -> tuple[Tensor, Tensor]:
    """Take away components and errors that lead nowhere and components that come from nowhere, until none is left."""
    features = graph.which(FEATURE) & graph.explored
    while True:
        edges = edges & nodes[graph.edges.targets] & nodes[graph.edges.sources]
        leads = torch.zeros_like(nodes).index_fill(0, graph.edges.sources[edges], True)
        comes = torch.zeros_like(nodes).index_fill(0, graph.edges.targets[edges], True)
        now = nodes & (leads | protected) & (comes | ~features)
        if torch.equal(now, nodes):
            return nodes, edges
        nodes = now


def graph_scores(graph: Graph) -> Scores:
    """Replacement and completeness score as the paper defines them; see `influence.scores`."""
    unexplained = graph.which(ERROR) | (graph.which(FEATURE) & ~graph.explored)
    return scores(graph.edges, graph.weights, graph.which(TOKEN), unexplained)


def graph_scores_as_circuit_tracer(graph: Graph) -> Scores:
    """The same two as circuit-tracer prints them; see `influence.scores_as_circuit_tracer`."""
    return scores_as_circuit_tracer(graph.edges, graph.weights, graph.which(TOKEN), graph.which(ERROR), graph.explored)


def left_out(graph: Graph) -> float:
    """The share of what targets and components read, each counted by its influence, that was dropped or cut.

    It counts as error: completeness, this and the share that is read from errors and unexplored components add up to 1.
    """
    shares = graph.edges.shares()
    reading = (graph.weights + influence(shares, graph.weights)) * graph.explored
    return float((reading * shares.dropped).sum() / reading.sum().clamp(min=1e-10))
