"""How a circuit is found: scores of single units, by estimate or one at a time, or a search for a set of edges."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from microtome.circuits.acdc import ACDC
from microtome.circuits.circuit_run import CircuitRun
from microtome.circuits.circuit_score import scale
from microtome.circuits.edge_attribution import edge_attribution
from microtome.circuits.edges import EdgeGraph
from microtome.circuits.games import EdgeGame, Game, NodeGame, left_out
from microtome.circuits.gradient_paths import AlongInputs, AtClean, Path
from microtome.circuits.masks import EdgeMask
from microtome.circuits.node_attribution import node_attribution
from microtome.circuits.wiring import Wiring, wiring
from microtome.cli.progress import Watcher
from microtome.core.errors import Refusal
from microtome.data.pairs import Pairs
from microtome.models.hooked import HookedModel

THRESHOLD = 0.01  # of the way from the corrupt value to the clean one
PRICE = 0.3  # of that way, squared
MASK_STEPS = 150


@dataclass(frozen=True, eq=False)
class Discovered:
    """A score for each unit and pair (what the measure gains by corrupting it alone), and what a search kept."""

    each: Float[Tensor, "pairs units"]
    kept: Bool[Tensor, "units"] | None = None

    @property
    def scores(self) -> Float[Tensor, "units"]:
        return self.each.mean(0)

    @property
    def ranked(self) -> Float[Tensor, "units"]:
        """Larger for what comes first: what a search kept, and then by the size of the score."""
        size = self.scores.abs()
        return size if self.kept is None else size + self.kept * (1 + size.max())


@dataclass(frozen=True, eq=False)
class Field:
    """Where a circuit is looked for: a model, pairs, and whether units are edges or nodes."""

    model: HookedModel
    pairs: Pairs
    edges: bool
    rows: int

    @cached_property
    def wired(self) -> Wiring:
        return wiring(self.model, self.pairs.clean)

    @cached_property
    def run(self) -> CircuitRun:
        return CircuitRun(self.wired, self.pairs.clean, self.pairs.corrupt, self.pairs.difference())

    @cached_property
    def game(self) -> Game:
        """Units that are not kept hold what they hold on the corrupt prompts."""
        if self.edges:
            return EdgeGame(self.run, self.rows)
        return NodeGame.resampled(self.model, self.pairs.clean, self.pairs.corrupt, self.pairs.difference())

    def of_edges(self, graph: EdgeGraph, *, kept: bool = False) -> Discovered:
        possible = graph.anatomy.possible
        return Discovered(graph.each[:, possible], graph.kept[possible] if kept else None)


@dataclass(frozen=True)
class Options:
    """What some methods ask for. Numbers that are None are chosen by how far apart clean and corrupt measures are."""

    steps: int
    threshold: float | None
    price: float | None
    seed: int


def estimated(field: Field, options: Options, watch: Watcher, *, steps: int = 0) -> Discovered:
    """By gradients: at the clean prompts, or at so many points on the way to the corrupt ones."""
    pairs, measure = field.pairs, field.pairs.difference()
    with watch.stage("score", len(pairs), "pairs") as advance:
        if field.edges:
            path: Path = AlongInputs(steps) if steps else AtClean()
            graph = edge_attribution(field.model, pairs.clean, pairs.corrupt, measure, path, wired=field.wired)
            found = field.of_edges(graph)
        else:
            found = Discovered(node_attribution(field.model, pairs.clean, pairs.corrupt, measure, steps=steps))
        advance(len(pairs))
    return found


def integrated(field: Field, options: Options, watch: Watcher) -> Discovered:
    if options.steps < 1:
        raise Refusal(f"--steps is {options.steps}; a path has at least 1 step, and --method eap has none")
    return estimated(field, options, watch, steps=options.steps)


def exact(field: Field, options: Options, watch: Watcher) -> Discovered:
    """One unit at a time."""
    found: list[Tensor] = []
    with watch.stage("score", len(field.game.units), field_unit(field)) as advance:
        for some in left_out(field.game):
            found.append(some)
            advance(sum(part.shape[1] for part in found))
    return Discovered(torch.cat(found, 1))


def searched(field: Field, options: Options, watch: Watcher) -> Discovered:
    """ACDC. Without a threshold, an edge stays that is worth a hundredth of what the whole network does."""
    refuse_nodes(field, "acdc")
    threshold = options.threshold if options.threshold is not None else THRESHOLD * gap(field)
    search = ACDC(field.run, threshold)
    with watch.stage("search", len(field.game.units), "edges") as advance:
        for tried, _ in enumerate(search, 1):
            advance(tried)
    return field.of_edges(search.circuit.connected(), kept=True)


def masked(field: Field, options: Options, watch: Watcher) -> Discovered:
    """Edge pruning. Without a price, keeping every edge costs .3 of the squared gap of clean and corrupt measures."""
    refuse_nodes(field, "mask")
    price = options.price if options.price is not None else PRICE * gap(field) ** 2
    generator = torch.Generator().manual_seed(options.seed)
    mask = EdgeMask(field.run, price=price, steps=MASK_STEPS, generator=generator)
    with watch.stage("fit", MASK_STEPS, "steps") as advance:
        for done, _ in enumerate(mask, 1):
            advance(done)
    return field.of_edges(mask.circuit(), kept=True)


METHODS: dict[str, Callable[[Field, Options, Watcher], Discovered]] = {
    "acdc": searched, "eap": estimated, "eap-ig": integrated, "exact": exact, "mask": masked,
}  # fmt: skip


def refuse_nodes(field: Field, method: str) -> None:
    if not field.edges:
        raise Refusal(f"--method {method} searches among edges; for --nodes take exact, eap or eap-ig")


def field_unit(field: Field) -> Literal["edges", "nodes"]:
    return "edges" if field.edges else "nodes"


def gap(field: Field) -> float:
    """How far apart the measure is with all units and with none."""
    ends = scale(field.game)
    return math.fabs(ends.whole - ends.nothing)
