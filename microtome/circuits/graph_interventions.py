"""Does a graph foretell what happens? Nodes are taken away or scaled in the network, and the effect is compared.

Foretold is the effect along all paths of the graph, every component taken to answer in proportion. Measured is what the
network does: with its attention held as the graph has it, or with all of it free to change.
Ameisen et al. 2025, Circuit Tracing, "Evaluating mechanistic faithfulness": Spearman .72 between the two.
"""

from abc import ABC
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from microtome.circuits.active import Reading
from microtome.circuits.attribution_graph import Graph
from microtome.circuits.replacement import FEATURE, TARGET, Replacement
from microtome.circuits.targets import Target
from microtome.core.edit import Edit, add, patch
from microtome.core.effects import effects
from microtome.core.errors import Refusal
from microtome.core.measure import Measure
from microtome.core.model import Model, Resumable
from microtome.core.site import Site
from microtome.core.trace import Trace

Group = tuple[int, ...]  # nodes that are changed together: a supernode
Change = Mapping[int, float]  # by how much each of some nodes is multiplied: {3: 0, 7: 2} takes one away for another


class Agreement(ABC):
    """Two columns of numbers, foretold and measured, and how well they agree."""

    predicted: Float[Tensor, "rows"]
    measured: Float[Tensor, "rows"]

    @property
    def pearson(self) -> float:
        """The correlation of the two; nan where one of them is the same for all."""
        return correlation(self.predicted, self.measured)

    @property
    def spearman(self) -> float:
        """The correlation of their ranks."""
        return correlation(rank(self.predicted), rank(self.measured))


@dataclass(frozen=True, eq=False)
class Comparison(Agreement):
    """What a target's activity was foretold to change by, and what it changed by, for each change of nodes."""

    changes: list[Change]
    predicted: Float[Tensor, "changes"]
    measured: Float[Tensor, "changes"]


@dataclass(frozen=True, eq=False)
class Reaction(Agreement):
    """What each of some nodes was foretold to change by, and what it changed by, under one change of others.

    Of a component it is the activity, of a target the value that the graph explains (`before` is what it was).
    """

    nodes: list[int]
    before: Float[Tensor, "nodes"]
    predicted: Float[Tensor, "nodes"]
    measured: Float[Tensor, "nodes"]

    def among(self, which: Sequence[bool]) -> "Reaction":
        """Some of the nodes."""
        kept: Bool[Tensor, "nodes"] = torch.tensor(which, dtype=torch.bool)
        some = [n for n, keep in zip(self.nodes, which, strict=True) if keep]
        return Reaction(some, self.before[kept], self.predicted[kept], self.measured[kept])


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


class Addition(NamedTuple):
    """What is added to the network at one position of a site so that one node writes another multiple."""

    site: Site
    position: int
    vector: Float[Tensor, "d"]
    times: float


def additions(replacement: Replacement, changes: Change) -> Iterator[Addition]:
    """What makes these nodes write so many times as much, wherever they write."""
    for written in replacement.written.values():
        for ends in written:
            hit = torch.isin(ends.nodes, torch.tensor(list(changes)))
            found = zip(ends.nodes[hit].tolist(), ends.positions[hit].tolist(), ends.vectors[hit], strict=True)
            for node, position, vector in found:
                yield Addition(ends.site, position, vector, changes[node] - 1.0)


def interventions(replacement: Replacement, changes: Change) -> list[Edit]:
    """What these nodes wrote, made so many times as large, as edits of the network itself."""
    return [add(a.vector, a.times, a.site.at(pos=a.position)) for a in additions(replacement, changes)]


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
    for change in each or [{}]:
        refuse_silent(replacement, change)
    cells = [(*interventions(replacement, c), *hold) for c in each]
    moved = effects(model, replacement.inputs, cells, value_of(target.reading)).moved[:, 0]
    predicted = torch.stack([foretold(graph, c)[number] for c in each])
    return Comparison(each, predicted, moved)


def refuse_silent(replacement: Replacement, change: Change) -> None:
    """Raises Refusal for a change of nothing, and of nodes that write nothing."""
    last = len(replacement.nodes)
    beyond = [node for node in change if not 0 <= node < last]
    if beyond or not change:
        raise Refusal(f"node {beyond[0] if beyond else 'none'} writes nothing; choose from 0 to {last - 1}")


@torch.no_grad()
def react(
    model: Model,
    replacement: Replacement,
    graph: Graph,
    targets: Sequence[Target],
    change: Change,
    watched: Sequence[int],
    *,
    hold: Sequence[Edit] = (),
) -> Reaction:
    """Make one change in the replacement's model, and see what it does to some components and targets of its graph.

    `targets` are those that the graph was built with, in order. A component that falls silent has activity 0, which the
    graph, being linear, may overshoot. Raises Refusal for a change of nodes that write nothing, and for watched nodes
    that read nothing (errors and tokens).
    """
    refuse_silent(replacement, change)
    refuse_deaf(graph, watched)
    readings = {n: targets[n - len(replacement.nodes)].reading for n in watched if n >= len(replacement.nodes)}
    used = {graph.nodes[n].dictionary for n in watched if n not in readings}
    sites = [s for i in used for s in replacement.dictionaries[i].reads] + [r.site for r in readings.values()]
    read = list({s.name: s for s in sites}.values())
    trace = model.run(replacement.inputs, read=read, edit=[*interventions(replacement, change), *hold])
    arrived = without(trace, list(additions(replacement, change)))
    active = {i: active_in(arrived, replacement, i) for i in used}

    def now(number: int) -> float:
        node = graph.nodes[number]
        if number in readings:
            return float(value_of(readings[number])(arrived))
        return active[node.dictionary].get((node.position, node.index), 0.0)

    before = graph.activity[list(watched)]
    after = torch.tensor([now(n) for n in watched])
    return Reaction(list(watched), before, foretold(graph, change)[list(watched)], after - before)


def refuse_deaf(graph: Graph, watched: Sequence[int]) -> None:
    """Raises Refusal for a node to watch that reads nothing."""
    deaf = next((n for n in watched if graph.nodes[n].kind not in (FEATURE, TARGET)), None)
    if deaf is not None:
        raise Refusal(f"{graph.nodes[deaf]} reads nothing, so nothing happens to it; watch components and targets")


def without(trace: Trace, added: Sequence[Addition]) -> Trace:
    """What arrived at each site, before anything was added there: components answer to that."""
    arrived = {name: trace[name].clone() for name in trace}
    for a in added:
        if a.site.name in arrived:
            arrived[a.site.name][0, a.position] -= a.times * a.vector
    return Trace(trace.inputs, arrived, {s.name: s for s in trace.sites})


def active_in(trace: Trace, replacement: Replacement, number: int) -> dict[tuple[int, int], float]:
    """The activity of one dictionary's components in a run, by position and component; silent ones are left out."""
    rows, components, values = (x.tolist() for x in trace.codes(replacement.dictionaries[number]).entries())
    return {(row, component): value for row, component, value in zip(rows, components, values, strict=True)}


def change_of(given: int | Group | Change, by: float) -> Change:
    """What was asked for as a factor for each node."""
    if isinstance(given, Mapping):
        return given
    return dict.fromkeys((given,) if isinstance(given, int) else given, by)


def value_of(reading: Reading) -> Measure:
    """What is read, as a measure."""

    def of(trace: Trace) -> Tensor:
        return trace[reading.site][:, reading.position] @ reading.vector + reading.offset

    return Measure(of, (reading.site,), f"what is read at {reading.site}")


def correlation(a: Float[Tensor, "n"], b: Float[Tensor, "n"]) -> float:
    """Pearson's, over all entries; not a number where either does not vary."""
    a, b = (x.double() - x.double().mean() for x in (a, b))
    return float((a @ b) / (a.norm() * b.norm()))


def rank(x: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """Ranks, those of equal values shared."""
    below = (x[None] < x[:, None]).sum(1)
    equal = (x[None] == x[:, None]).sum(1)
    return below + (equal - 1) / 2
