"""Sparse feature circuits: which latents of many dictionaries, and which of their errors, make a network say something.

The nodes whose effect is large, the edges between them, and what is left of the measure without all others. Marks et
al. 2024, Sparse Feature Circuits (arXiv 2403.19647), sections 3.2 and 3.3.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import torch

from microtome.circuits.feature_effects import Change, FeatureNode, NodeEffects, changed, edges_between, integrated
from microtome.core.component import Dictionary
from microtome.core.errors import Refusal
from microtome.core.inputs import Inputs
from microtome.core.measure import Measure
from microtome.core.model import Model


class FeatureEdge(NamedTuple):
    """How far the upstream node moves the measure by way of the downstream one, the mean over rows."""

    up: FeatureNode
    down: FeatureNode
    effect: float


@dataclass(frozen=True)
class FeatureCircuit:
    """Nodes and edges with their mean effects, largest first."""

    nodes: dict[FeatureNode, float]
    edges: tuple[FeatureEdge, ...]


Effects = Callable[[Model, Inputs, Inputs | None, Sequence[Dictionary], Measure], NodeEffects]


def feature_circuit(
    model: Model,
    clean: Inputs,
    corrupt: Inputs | None,
    dictionaries: Sequence[Dictionary],
    measure: Measure,
    *,
    node_threshold: float,
    edge_threshold: float,
    by: Effects = integrated,
) -> FeatureCircuit:
    """Nodes whose effect is above a threshold, and edges between them above another, all in the units of the measure.

    Dictionaries are given in the order of the forward pass, one a site. An edge is what goes from one to another
    without passing the site of a third that stands between them in that order.
    """
    found = by(model, clean, corrupt, dictionaries, measure)
    nodes = {node: found.mean(node) for node in found.above(node_threshold)}
    changes = changed(model, clean, corrupt, dictionaries)
    edges = [
        edge
        for up, down in combinations(range(len(dictionaries)), 2)
        for edge in circuit_edges(model, changes, up, down, measure, list(nodes))
        if abs(edge.effect) > edge_threshold
    ]
    return FeatureCircuit(nodes, tuple(sorted(edges, key=lambda e: -abs(e.effect))))


def circuit_edges(
    model: Model, changes: Sequence[Change], up: int, down: int, measure: Measure, nodes: Sequence[FeatureNode]
) -> Iterator[FeatureEdge]:
    """The edges between the chosen nodes of two dictionaries."""
    early, late = ([n for n in nodes if n.dictionary == number] for number in (up, down))
    stop = [c.site for c in changes[up + 1 : down]]
    if not early or not late:
        return
    found = edges_between(model, changes[up], changes[down], measure, [n.component for n in late], stop)
    if found is None:
        return
    for below, table in zip(late, found.mean(1), strict=True):
        for above in early:
            yield FeatureEdge(above, below, table[-1 if above.component is None else above.component].item())


class Faithfulness(NamedTuple):
    """The measure of the whole network, of the circuit alone and of nothing, means over rows.

    `share` is (circuit - nothing) / (whole - nothing): 1 where the circuit does all (section 3.3). It may be above.
    """

    whole: float
    circuit: float
    nothing: float

    @property
    def share(self) -> float:
        """The circuit's measure from 0, no node, to 1, all. Raises Refusal where these two are the same."""
        if self.whole == self.nothing:
            raise Refusal(
                f"the measure is {self.whole:.4g} with every node and with none, so no circuit carries it; choose "
                "inputs, dictionaries or a measure that differ"
            )
        return (self.circuit - self.nothing) / (self.whole - self.nothing)


@torch.no_grad()
def faithfulness(
    model: Model,
    clean: Inputs,
    corrupt: Inputs | None,
    dictionaries: Sequence[Dictionary],
    measure: Measure,
    nodes: Sequence[FeatureNode],
) -> Faithfulness:
    """What is left of the measure with every other node at its other value. Errors count as the nodes they are."""
    changes = changed(model, clean, corrupt, dictionaries)

    def with_only(kept: Sequence[FeatureNode]) -> float:
        edits = [
            e
            for number, change in enumerate(changes)
            for e in change.all_but([n.component for n in kept if n.dictionary == number])
        ]
        return measure(model.run(clean, read=measure.reads, edit=edits)).mean().item()

    whole = measure(model.run(clean, read=measure.reads)).mean().item()
    return Faithfulness(whole, with_only(nodes), with_only([]))
