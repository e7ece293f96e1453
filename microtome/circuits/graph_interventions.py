"""Does a graph foretell what happens? Nodes are taken away or scaled in the network, and the effect is compared.

Foretold is the effect along all paths of the graph, every component taken to answer in proportion. Measured is what the
network does: with its attention held as the graph has it, or with all of it free to change.
Ameisen et al. 2025, Circuit Tracing, "Evaluating mechanistic faithfulness": Spearman .72 between the two.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.circuits.active import Reading
from microtome.circuits.attribution_graph import Graph
from microtome.circuits.replacement import FEATURE, Replacement
from microtome.circuits.targets import Target
from microtome.core.edit import Edit, add, patch
from microtome.core.effects import effects
from microtome.core.errors import Refusal
from microtome.core.measure import Measure
from microtome.core.model import Resumable
from microtome.core.trace import Trace

Group = tuple[int, ...]  # nodes that are changed together: a supernode
Change = Mapping[int, float]  # by how much each of some nodes is multiplied: {3: 0, 7: 2} takes one away for another


@dataclass(frozen=True, eq=False)
class Comparison:
    """What a target's activity was foretold to change by, and what it changed by, for each change of nodes."""

    changes: list[Change]
    predicted: Float[Tensor, "changes"]
    measured: Float[Tensor, "changes"]

    @property
    def pearson(self) -> float:
        """The correlation of the two; nan where one of them is the same for all."""
        return correlation(self.predicted, self.measured)

    @property
    def spearman(self) -> float:
        """The correlation of their ranks."""
        return correlation(rank(self.predicted), rank(self.measured))


def foretold(graph: Graph, changes: Change) -> Float[Tensor, "nodes"]:
    """By how much each node's activity would change if these nodes wrote so many times as much (0 takes one away).

    A component answers in proportion to what it reads, and what was not explored does not answer.
    """
    fixed = torch.zeros(len(graph), dtype=torch.bool)
    fixed[list(changes)] = True
    set_to = torch.zeros(len(graph))
    set_to[list(changes)] = torch.tensor([by - 1.0 for by in changes.values()])
    answering = graph.which(FEATURE) & ~fixed & (graph.activity != 0)
    share, moved = set_to, torch.zeros(len(graph))
    for _ in range(len(graph)):
        moved = graph.edges.forth(share)
        new = torch.where(answering, moved / graph.activity.masked_fill(~answering, 1.0), set_to)
        if torch.equal(new, share):
            break
        share = new
    return moved


def interventions(replacement: Replacement, changes: Change) -> list[Edit]:
    """What these nodes wrote, made so many times as large, as edits of the network itself."""
    made: list[Edit] = []
    for written in replacement.written.values():
        for ends in written:
            hit = torch.isin(ends.nodes, torch.tensor(list(changes)))
            found = zip(ends.nodes[hit].tolist(), ends.positions[hit].tolist(), ends.vectors[hit], strict=True)
            made += [add(vector, changes[node] - 1.0, ends.site.at(pos=p)) for node, p, vector in found]
    return made


def held_attention(replacement: Replacement) -> list[Edit]:
    """Attention as it was on the prompt."""
    return [patch(site, replacement.clean) for site in replacement.patterns]


def compare(
    model: Resumable,
    replacement: Replacement,
    graph: Graph,
    target: Target,
    changes: Sequence[int | Group | Change],
    *,
    by: float = 0.0,
    hold: Sequence[Edit] = (),
) -> Comparison:
    """Make each change by itself in the replacement's model, and see what that does to a target of its graph.

    A change is a node or a group of nodes, all multiplied `by` the same, or a mapping from node to its own multiple.

    `hold` are edits that are made with every change: `held_attention(replacement)` keeps attention as the graph has it.
    Raises Refusal for nodes that write nothing, and a target that the graph does not have.
    """
    each = [change_of(c, by) for c in changes]
    number = next((i for i, node in enumerate(graph.nodes) if node.label == target.label), None)
    if number is None:
        raise Refusal(f"the graph has no target {target.label!r}; build it with the same targets")
    last = len(replacement.nodes)
    beyond = [n for c in each for n in c if not 0 <= n < last]
    if beyond or not each:
        raise Refusal(f"node {beyond[0] if beyond else 'none'} writes nothing; choose from 0 to {last - 1}")
    cells = [(*interventions(replacement, c), *hold) for c in each]
    moved = effects(model, replacement.inputs, cells, value_of(target.reading)).moved[:, 0]
    predicted = torch.stack([foretold(graph, c)[number] for c in each])
    return Comparison(each, predicted, moved)


def change_of(given: int | Group | Change, by: float) -> Change:
    if isinstance(given, Mapping):
        return given
    return dict.fromkeys((given,) if isinstance(given, int) else given, by)


def value_of(reading: Reading) -> Measure:
    """What is read, as a measure."""

    def of(trace: Trace) -> Tensor:
        return trace[reading.site][:, reading.position] @ reading.vector + reading.offset

    return Measure(of, (reading.site,), f"what is read at {reading.site}")


def correlation(a: Float[Tensor, "n"], b: Float[Tensor, "n"]) -> float:
    a, b = (x.double() - x.double().mean() for x in (a, b))
    return float((a @ b) / (a.norm() * b.norm()))


def rank(x: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """Ranks, those of equal values shared."""
    below = (x[None] < x[:, None]).sum(1)
    equal = (x[None] == x[:, None]).sum(1)
    return below + (equal - 1) / 2
