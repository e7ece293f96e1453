"""A circuit that was set by hand, and whether the methods that look for circuits find it.

Every edge of the network (`toys/planted.py`) is known to belong or not. A method that scores edges is judged by the
area under its ROC curve: how often an edge of the circuit is scored above another one. In the spirit of InterpBench
(Gupta et al. 2024, arXiv 2407.14494). Exact patching recomputes the network with one edge at a time as on the corrupt
prompt; path patching (Goldowsky-Dill et al. 2023, arXiv 2304.05969) edits what the one reader reads, in a run of the
network; ACDC (Conmy et al. 2023, arXiv 2304.14997) leaves out what it can; EAP and EAP-IG estimate by gradients.
"""

# pyright: reportUnknownMemberType=false

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from microtome.circuits.acdc import acdc
from microtome.circuits.circuit_run import CircuitRun, exact_edges
from microtome.circuits.edge_attribution import edge_attribution
from microtome.circuits.edges import ROLES, Reader
from microtome.circuits.games import NodeGame
from microtome.circuits.gradient_paths import AlongActivations, AlongInputs
from microtome.circuits.wiring import Wiring, wiring
from microtome.core.area import area
from microtome.core.edit import Edit, fill
from microtome.core.effects import effects
from microtome.core.trace import Trace
from microtome.data.pairs import Pairs
from microtome.notebook.page import Sentence, Table
from microtome.store.records import Claim
from microtome.studies.chart import Chart, Series
from microtome.studies.study import Report, Setting, Study, Watch, at_least, at_most
from microtome.toys.planted import planted, planted_pairs

BENCH, HANNA = "Gupta et al. 2024, arXiv 2407.14494", "Hanna et al. 2024, arXiv 2403.17806"
EXACT = "true by construction"
LEAST = 1e-6  # what is drawn of scores below it


@dataclass(frozen=True)
class Size:
    """How many pairs of prompts, the steps of integrals, and ACDC's thresholds in logits."""

    pairs: int = 64
    steps: int = 10
    thresholds: tuple[float, ...] = (3.0, 1.0, 0.1, 0.01)


FULL, QUICK = Size(), Size(pairs=24, steps=5, thresholds=(1.0, 0.01))


class Method(NamedTuple):
    """One way to look, its score of every edge that there can be, and the least area that is asked of it."""

    name: str
    scores: Float[Tensor, "edges"]
    least: float
    source: str


class PlantedCircuit(Study):
    name = "planted"
    paper = "Gupta et al. 2024, InterpBench, arXiv 2407.14494"
    question = "Do the methods that look for circuits find one that was set by hand?"

    def __init__(self, quick: Size = QUICK, full: Size = FULL) -> None:
        self.quick, self.full = quick, full

    def run(self, setting: Setting, watch: Watch) -> Report:
        size = self.quick if setting.quick else self.full
        model, circuit = planted(setting.device)
        pairs = planted_pairs(size.pairs, torch.Generator().manual_seed(setting.seed))
        wired = wiring(model, pairs.clean)
        watch.say(f"{int(wired.anatomy.possible.sum())} edges, {len(circuit)} of them planted; {pairs}")
        truth = members(wired, circuit)
        methods = found(wired, pairs, size)
        nodes = float(area(of_nodes(wired, pairs).abs(), written_by(wired, circuit)))
        return Report(claims(methods, truth, nodes), (Sentence(said(methods, truth)), chart(methods, truth),
                      table(wired, methods, truth)))  # fmt: skip


STUDY = PlantedCircuit()


def members(wired: Wiring, circuit: frozenset[str]) -> Bool[Tensor, "edges"]:
    """Which of the edges that there can be belong to the circuit."""
    anatomy = wired.anatomy
    found = torch.zeros_like(anatomy.possible)
    for name in circuit:
        found[anatomy.place(anatomy.named(name))] = True
    return found[anatomy.possible]


def written_by(wired: Wiring, circuit: frozenset[str]) -> Bool[Tensor, "nodes"]:
    """Which heads and MLPs are in the circuit, by what their edges say; the embedding left out."""
    names = {name.partition("->")[0] for name in circuit}
    return torch.tensor([str(w) in names for w in wired.anatomy.writers[1:]])


# ---------------------------------------------------------------- the methods


def found(wired: Wiring, pairs: Pairs, size: Size) -> list[Method]:
    """Every method's score of every edge."""
    given = (wired.model, pairs.clean, pairs.corrupt, pairs.logit_difference())
    possible = wired.anatomy.possible
    inputs, activations = AlongInputs(size.steps), AlongActivations(size.steps)
    return [
        Method("exact patching", exact_edges(*given, wired=wired).scores[possible], 1.0, BENCH),
        Method("path patching", path_patched(wired, pairs), 1.0, BENCH),
        Method("ACDC", kept_at(wired, pairs, size.thresholds), 1.0, BENCH),
        Method("EAP-IG, inputs", edge_attribution(*given, inputs, wired=wired).scores[possible], 1.0, HANNA),
        Method("EAP-IG, activations", edge_attribution(*given, activations, wired=wired).scores[possible], 1.0, HANNA),
        Method("EAP", edge_attribution(*given, wired=wired).scores[possible], 0.9, HANNA),
    ]


@torch.no_grad()
def path_patched(wired: Wiring, pairs: Pairs) -> Float[Tensor, "edges"]:
    """What the measure gains when what one reader reads is changed by what one writer writes otherwise.

    The clean run with one edit: a head's queries are those of its stream with the corrupt writing in it, and so on.
    """
    changes, anatomy = all_changes(wired, pairs), wired.anatomy
    sites = [s for la in wired.layers for s in (la.q, la.k, la.v, la.mlp_in, la.post)]
    clean = wired.model.run(pairs.clean, read=sites)
    places = anatomy.possible.nonzero().tolist()
    edits = [reading_otherwise(wired, clean, anatomy.readers[r], changes[w]) for w, r in places]
    return effects(wired.model, pairs.clean, edits, pairs.logit_difference()).moved.mean(1)


def all_changes(wired: Wiring, pairs: Pairs) -> list[Float[Tensor, "batch pos d"]]:
    """Of each writer, what it writes on the corrupt prompts less what it writes on the clean ones."""
    first = wired.layers[0].pre
    sites = [first, *(site for layer in wired.layers for site in (layer.z, layer.mlp_out))]
    clean, corrupt = (wired.model.run(side, read=sites) for side in (pairs.clean, pairs.corrupt))
    changes = [corrupt[first] - clean[first]]
    for i, layer in enumerate(wired.layers):
        heads = torch.einsum("bphe,hed->hbpd", corrupt[layer.z] - clean[layer.z], wired.writing(i))
        changes += [*heads, corrupt[layer.mlp_out] - clean[layer.mlp_out]]
    return changes


def reading_otherwise(wired: Wiring, clean: Trace, reader: Reader, change: Float[Tensor, "batch pos d"]) -> Edit:
    """One reader reads its stream with a change added. There are no norms in this network: projections say it all."""
    if reader.kind not in ROLES:
        site = wired.layers[-1].post if reader.kind == "logits" else wired.layers[reader.layer].mlp_in
        return fill(site, clean[site] + change)
    layer, role = wired.layers[reader.layer], ROLES.index(reader.kind)
    site = (layer.q, layer.k, layer.v)[role]
    moved = change @ wired.reading(reader.layer)[role][reader.head].T
    return fill(site.at(head=reader.head), clean[site][:, :, reader.head] + moved)


def kept_at(wired: Wiring, pairs: Pairs, thresholds: Sequence[float]) -> Float[Tensor, "edges"]:
    """The largest threshold at which ACDC keeps an edge; 0 where it never does."""
    run, possible = CircuitRun(wired, pairs.clean, pairs.corrupt, pairs.logit_difference()), wired.anatomy.possible
    kept = [acdc(run, threshold).kept[possible] * threshold for threshold in thresholds]
    return torch.stack(kept).amax(0)


def of_nodes(wired: Wiring, pairs: Pairs) -> Float[Tensor, "nodes"]:
    """What the measure gains when one head or MLP as a whole holds what it holds on the corrupt prompt."""
    game = NodeGame.resampled(wired.model, pairs.clean, pairs.corrupt, pairs.logit_difference())
    kept = ~torch.eye(len(game.units), dtype=torch.bool)
    return (game(kept) - game(torch.ones_like(kept[:1]))).mean(1)


# ---------------------------------------------------------------- what they show


def claims(methods: list[Method], truth: Bool[Tensor, "edges"], nodes: float) -> tuple[Claim, ...]:
    return (
        *(at_least(f"area under the ROC curve, edges, {m.name}", m.least, float(area(m.scores.abs(), truth)),
                   source=m.source) for m in methods),
        at_least("area under the ROC curve, heads and MLPs, exact patching", 1.0, nodes, source=EXACT),
        at_most("exact and path patching differ by at most, in logits", 1e-4,
                float((methods[0].scores - methods[1].scores).abs().max()), source=EXACT),
        at_most("largest exact effect of an edge outside the circuit, in logits", 1e-4,
                float(methods[0].scores[~truth].abs().max()), source=EXACT),
    )  # fmt: skip


def said(methods: list[Method], truth: Bool[Tensor, "edges"]) -> str:
    return (
        f"{int(truth.sum())} of {len(truth)} edges are planted. One of them, from the input to the second MLP, is past "
        "a threshold on every clean prompt: its gradient there is zero, so plain EAP cannot see it and gradients along "
        f"a path do. Corrupting it alone moves the logit difference by {missed(methods, truth):+.2f}."
    )


def missed(methods: list[Method], truth: Bool[Tensor, "edges"]) -> float:
    """The exact effect of the edge of the circuit that plain EAP scores least."""
    exact, plain = methods[0].scores[truth], methods[-1].scores[truth]
    return float(exact[plain.abs().argmin()])


def chart(methods: list[Method], truth: Bool[Tensor, "edges"]) -> Chart:
    """Scores from the largest to the smallest; hollow points are edges that were not planted."""
    drawn: list[Series] = []
    for colour, method in enumerate(methods):
        size = method.scores.abs().clamp(min=LEAST)
        order = size.argsort(descending=True, stable=True)
        rank = torch.arange(1, len(order) + 1)
        inside = truth[order]
        ranks, sizes = ([x[here].tolist() for here in (inside, ~inside)] for x in (rank, size[order]))
        drawn += [
            Series(method.name, ranks[0], sizes[0], colour, "points"),
            Series("", ranks[1], sizes[1], colour, "hollow"),
        ]
    title = f"Scores of all edges by rank; hollow: not planted; {LEAST:g} stands for anything less"
    return Chart(title, "rank", "score, logits", drawn)


def table(wired: Wiring, methods: list[Method], truth: Bool[Tensor, "edges"]) -> Table:
    """The planted edges with every method's score."""
    names = [f"{wired.anatomy.writers[w]}->{wired.anatomy.readers[r]}" for w, r in wired.anatomy.possible.nonzero()]
    rows = [[names[i], *(f"{float(m.scores[i]):+.3f}" for m in methods)] for i in truth.nonzero()[:, 0].tolist()]
    return Table(("edge", *(m.name for m in methods)), rows, "The circuit", numeric=tuple(range(1, len(methods) + 1)))
