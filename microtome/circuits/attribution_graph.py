"""Attribution graphs: who wrote how much of what everyone read, on one prompt.

An edge from s to t is what s wrote times the derivative of what t reads, through the frozen network alone: past all
other components, which are sources themselves. So the edges into a node, and its bias, add up to its activity before
its nonlinearity. Ameisen et al. 2025, Circuit Tracing (Transformer Circuits); Dunefsky et al. 2024 (arXiv 2406.11944).
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from microtome.circuits.active import Reading
from microtome.circuits.influence import Edges, influence
from microtome.circuits.replacement import TARGET, TOKEN, Node, Replacement
from microtome.circuits.targets import Target, Targets, TopLogits
from microtome.core.component import Dictionary
from microtome.core.errors import Refusal
from microtome.core.inputs import Inputs
from microtome.core.model import Model

INCOMPLETE = 1e-2  # of the largest number that was added up: what is more than this is no rounding
EDGE_BYTES = 20  # two numbers of a node and a weight


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes in the order components, errors, tokens, targets; the direct effects between them; what those leave out.

    `bias` is what each node reads when no node writes. `explored` says which nodes' sources were worked out: all,
    unless only the most influential were asked for. `incomplete` is the worst difference between a node's activity and
    what its edges and bias add up to, over the largest of these.
    """

    nodes: list[Node]
    edges: Edges
    bias: Float[Tensor, "nodes"]
    explored: Bool[Tensor, "nodes"]
    weights: Float[Tensor, "nodes"]
    tokens: list[int]
    incomplete: float = 0.0
    texts: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.nodes)

    def which(self, *kinds: str) -> Bool[Tensor, "nodes"]:
        """The nodes of these kinds."""
        return torch.tensor([node.kind in kinds for node in self.nodes])

    @property
    def activity(self) -> Float[Tensor, "nodes"]:
        """How strongly each node is there."""
        return torch.tensor([node.activity for node in self.nodes])

    def into(self, node: int) -> list[tuple[int, float]]:
        """(source, weight) of every edge into a node, the largest first."""
        hit = self.edges.targets == node
        found = zip(self.edges.sources[hit].tolist(), self.edges.weights[hit].tolist(), strict=True)
        return sorted(found, key=lambda edge: -abs(edge[1]))

    def dense(self) -> Float[Tensor, "targets sources"]:
        """Every edge, zeros included: for small graphs."""
        return self.edges.dense()

    def restricted(self, nodes: Bool[Tensor, "nodes"], edges: Bool[Tensor, "edges"]) -> "Graph":
        """Some nodes and some of the edges among them; what the others carried counts as dropped."""
        number = nodes.cumsum(0) - 1
        kept = edges & nodes[self.edges.targets] & nodes[self.edges.sources]
        lost = torch.zeros(len(self)).index_add(0, self.edges.targets[~kept], self.edges.weights[~kept].abs())
        found = Edges(
            number[self.edges.targets[kept]], number[self.edges.sources[kept]], self.edges.weights[kept],
            (self.edges.dropped + lost)[nodes],
        )  # fmt: skip
        some = [node for node, keep in zip(self.nodes, nodes.tolist(), strict=True) if keep]
        return replace(
            self, nodes=some, edges=found, bias=self.bias[nodes], explored=self.explored[nodes],
            weights=self.weights[nodes],
        )  # fmt: skip


def attribute(
    model: Model,
    inputs: Inputs,
    dictionaries: Sequence[Dictionary],
    targets: Targets | None = None,
    *,
    most: int | None = None,
    drop: float = 0.0,
    together: int = 8,
    constant_at: Sequence[int] = (0,),
    through_mlps: bool = False,
    memory: int | None = None,
) -> Graph:
    """The attribution graph of one prompt.

    `most` components are explored, those with most influence on the targets first; the others stay as sources that are
    not explained themselves. `drop` is the share of each node's incoming weight, smallest edges first, that need not be
    kept. `together` products are made in one backward pass: memory grows with it, and not with the number of nodes.
    `memory` is the bytes that may be used, by default what is free. `constant_at` and `through_mlps` are those of
    `Replacement`. Raises Refusal for a graph that would not fit, and for a network that freezing does not make linear.
    """
    wanted = targets or TopLogits()
    also = [model.site(name) for name in wanted.reads]
    replacement = Replacement(
        model, inputs, dictionaries, constant_at=constant_at, through_mlps=through_mlps, also=also
    )
    return graph_of(replacement, wanted, most=most, drop=drop, together=together, memory=memory)


def each_prompt(model: Model, inputs: Inputs, dictionaries: Sequence[Dictionary], **settings: Any) -> Iterator[Graph]:
    """One graph for each row of a batch, one after the other; padding never matters."""
    for row in range(len(inputs)):
        yield attribute(model, inputs.rows(slice(row, row + 1)), dictionaries, **settings)


def graph_of(
    replacement: Replacement,
    targets: Targets,
    *,
    most: int | None = None,
    drop: float = 0.0,
    together: int = 8,
    memory: int | None = None,
) -> Graph:
    """The graph of a replacement model that is already there; see `attribute`. It reads what its targets read."""
    if not 0 <= drop < 1:
        raise Refusal(f"drop is {drop}; give the share of incoming weight that need not be kept, from 0 to below 1")
    wanted = targets.on(replacement)
    if not wanted:
        raise Refusal("there is nothing to explain: no target was named")
    refuse_backward(replacement)
    refuse_unheard(replacement)
    most = replacement.features if most is None else min(most, replacement.features)
    refuse_too_large(replacement, len(wanted), most, memory)
    return Building(replacement, wanted, drop, together).graph(most)


class Building:
    """A graph under way: the rows of the adjacency matrix that are there so far."""

    def __init__(self, replacement: Replacement, wanted: Sequence[Target], drop: float, together: int) -> None:
        self.replacement, self.drop, self.together = replacement, drop, together
        sources, last = replacement.nodes, max(n.layer for n in replacement.nodes) + 1
        made = [Node(TARGET, last, t.reading.position, t.token, t.reading.value, -1, t.label) for t in wanted]
        self.nodes = [*sources, *made]
        self.readings = dict(enumerate([*replacement.readings])) | {
            len(sources) + i: t.reading for i, t in enumerate(wanted)
        }
        self.weights = torch.zeros(len(self.nodes))
        self.weights[len(sources) :] = torch.tensor([t.weight for t in wanted])
        self.edges = Edges.none(len(self.nodes))
        self.bias = torch.zeros(len(self.nodes))
        self.explored = torch.zeros(len(self.nodes), dtype=torch.bool)
        self.zero = replacement.at_zero()
        self.incomplete = 0.0

    def graph(self, most: int) -> Graph:
        """The whole graph: targets first, then components by influence, `most` of them at the most."""
        self.explore(list(range(len(self.replacement.nodes), len(self.nodes))))
        left = most
        while left:
            chosen = self.next_ones(left if most == self.replacement.features else min(left, max(16, most // 8)))
            self.explore(chosen)
            left -= len(chosen)
        replacement = self.replacement
        tokens = [n.index for n in self.nodes if n.kind == TOKEN]
        if replacement.affine and self.incomplete > INCOMPLETE:
            raise Refusal(
                f"with patterns and norms held, this network is still not linear: a node differs by "
                f"{self.incomplete:.1e} of what was added up; a graph needs norms before each branch, not between sums"
            )
        return Graph(self.nodes, self.edges, self.bias, self.explored, self.weights, tokens, self.incomplete)

    def next_ones(self, count: int) -> list[int]:
        """The components with most influence among those not explored."""
        now = influence(self.edges.shares(), self.weights)[: self.replacement.features]
        now = now.masked_fill(self.explored[: self.replacement.features], -1.0)
        return now.topk(count).indices.sort().values.tolist()

    def explore(self, chosen: Sequence[int]) -> None:
        """Work out the rows of these nodes, those that read at one site together."""
        by_site: dict[str, list[int]] = {}
        for node in chosen:
            by_site.setdefault(self.readings[node].site.name, []).append(node)
        found = [
            self.rows(group[i : i + self.together])
            for group in by_site.values()
            for i in range(0, len(group), self.together)
        ]
        self.edges = Edges.joined([self.edges, *found])
        self.explored[list(chosen)] = True

    def rows(self, group: Sequence[int]) -> Edges:
        """The edges into some nodes that read at one site; notes how far each row is from its node's activity."""
        readings = [self.readings[node] for node in group]
        rows = self.replacement.rows(readings[0].site, readings)
        for node, reading, row in zip(group, readings, rows, strict=True):
            self.bias[node] = self.bias_of(reading, row)
            largest = max(float(row.abs().max()), abs(float(self.bias[node])), abs(reading.value))
            off = abs(float(row.sum() + self.bias[node]) - reading.value)
            self.incomplete = max(self.incomplete, off / largest if largest else 0.0)
        return Edges.of_rows(group, rows, len(self.nodes), self.drop)

    def bias_of(self, reading: Reading, row: Tensor) -> float:
        """What is read when no node writes; of a linearisation, whatever its edges leave."""
        if not self.replacement.affine:
            return reading.value - float(row.sum())
        return float(self.zero[reading.site.name][0, reading.position] @ reading.vector) + reading.offset


def refuse_backward(replacement: Replacement) -> None:
    """Raises Refusal for a dictionary of a wrong hook: one that writes before the first site that it reads."""
    order = {name: i for i, name in enumerate(replacement.sites)}
    for dictionary in replacement.dictionaries:
        first = min(dictionary.reads, key=lambda site: order.get(site.name, -1))
        early = [w for w in dictionary.writes if order.get(w.name, len(order)) < order.get(first.name, -1)]
        if early:
            raise Refusal(
                f"{type(dictionary).__name__} reads {first}, which comes after {early[0]}, where it writes; give one "
                "whose hooks are the right way round"
            )


def refuse_unheard(replacement: Replacement) -> None:
    """Raises Refusal for a dictionary that writes where nothing that is read depends on it, so that it has no edges."""
    heard = [tensor.sum() for tensor in replacement.tensors.values() if tensor.requires_grad]
    written = {w.name: d for d in replacement.dictionaries for w in d.writes if w.name in replacement.leaves}
    leaves = [replacement.leaves[name] for name in written]
    found = torch.autograd.grad(heard, leaves, retain_graph=True, allow_unused=True) if heard and leaves else ()
    for (name, dictionary), gradient in zip(written.items(), found, strict=bool(found)):
        if gradient is None:
            raise Refusal(
                f"what {type(dictionary).__name__} writes at {name} reaches nothing that is read here: a later site is "
                "held in its place, such as the output of an MLP that no dictionary writes; give transcoders that "
                "write mlp_out, or through_mlps (--through-mlps)"
            )


def refuse_too_large(replacement: Replacement, targets: int, most: int, memory: int | None) -> None:
    """Raises Refusal for a graph that `memory` bytes, or what is free, may not hold."""
    free = available() if memory is None else memory
    sources = len(replacement.nodes)
    needed = bytes_for(sources, most + targets)
    if needed <= free:
        return
    fits = free // (EDGE_BYTES * sources) - targets
    remedy = f"most={fits} would fit (--most {fits})" if fits > 0 else "no graph of it would, so give a shorter prompt"
    raise Refusal(
        f"a graph of {most} components and {sources} sources may need {needed / 1e9:.2g} GB and {free / 1e9:.2g} GB "
        f"may be used; {remedy}"
    )


def bytes_for(sources: int, rows: int) -> int:
    """The most that the edges of a graph take, every row full."""
    return EDGE_BYTES * sources * rows


def available() -> int:
    """Bytes of memory that may be had here without swapping: what is free, and what files are cached in."""
    told = Path("/proc/meminfo")
    lines = told.read_text().splitlines() if told.is_file() else []
    found = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if found is None else found
