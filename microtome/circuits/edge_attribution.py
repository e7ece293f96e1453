"""What each edge does to a measure, to first order: the writer's change times the reader's gradient.

    score(w -> r) = mean over points of <u_w(corrupt) - u_w(clean), d measure / d (what r reads)>

summed over real positions: what the measure would gain if what w writes for r alone were the corrupt prompt's. Syed et
al. 2023, Attribution Patching Outperforms Automated Circuit Discovery (arXiv 2310.10348): gradients at the clean
prompt. Hanna et al. 2024, Have Faith in Faithfulness (arXiv 2403.17806): gradients averaged along a path.

What heads add to the stream is made of their z, and what readers feel of gradients at their queries, keys and values,
which are as wide as a head: both for one layer and a few pairs at a time, and never for all heads of the network
(unless that is small). So each place of each pair is made wide once for every layer that reads, whatever the bounds.
"""

# pyright: reportUnknownMemberType=false

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from microtome.circuits.edges import ROLES, EdgeGraph
from microtome.circuits.normed import Normed
from microtome.circuits.wiring import Reading, Wiring, wiring
from microtome.core.edit import Edit, fill
from microtome.core.errors import Refusal
from microtome.core.inputs import Inputs, Tokens
from microtome.core.measure import Measure
from microtome.core.model import Resumable
from microtome.core.site import Site
from microtome.core.trace import Trace

HELD_BYTES = (
    2**26
)  # up to this much is spent on what heads write, rather than to make it again for each layer of readers
BLOCK_BYTES = 2**23  # of the vectors of one layer's readers and one layer's heads that are there at one time


class Point(NamedTuple):
    """Somewhere to take gradients: on these inputs, with these edits, counted so much, for these writers (all)."""

    inputs: Inputs
    edits: tuple[Edit, ...]
    weight: float
    layer: int | None = None  # only the writers of this layer, -1 for the embedding
    kind: str = ""


class Path(ABC):
    """Where gradients are taken between the clean prompt and the corrupt one."""

    needs_activations: ClassVar[bool] = False  # what the writers gave in both runs, besides the embedding

    @abstractmethod
    def points(self, wired: Wiring, ends: "Ends") -> Iterator[Point]:
        """The points, whose weights sum to one for each writer."""


@dataclass(frozen=True)
class AtClean(Path):
    """At the clean prompt alone: plain edge attribution patching."""

    def points(self, wired: Wiring, ends: "Ends") -> Iterator[Point]:
        yield Point(ends.clean.inputs, (), 1.0)


@dataclass(frozen=True)
class CleanCorrupt(Path):
    """At both prompts, half and half."""

    def points(self, wired: Wiring, ends: "Ends") -> Iterator[Point]:
        yield Point(ends.clean.inputs, (), 0.5)
        yield Point(ends.corrupt.inputs, (), 0.5)


@dataclass(frozen=True)
class AlongInputs(Path):
    """At `steps` midpoints of the way from the clean prompt's embedding to the corrupt one's (EAP-IG, inputs)."""

    steps: int = 5

    def points(self, wired: Wiring, ends: "Ends") -> Iterator[Point]:
        for part in midpoints(self.steps):
            yield Point(ends.clean.inputs, (fill(wired.layers[0].pre, ends.embedding(part)),), 1 / self.steps)


@dataclass(frozen=True)
class AlongActivations(Path):
    """Midpoints of the way of what each layer's heads, each MLP and the embedding alone give (EAP-IG, activations).

    Gradients for the writers of one part come from its own way, so there are as many times the passes as parts.
    """

    steps: int = 5
    needs_activations: ClassVar[bool] = True

    def points(self, wired: Wiring, ends: "Ends") -> Iterator[Point]:
        for part in midpoints(self.steps):
            weight, sites = 1 / self.steps, wired.layers
            yield Point(ends.clean.inputs, (fill(sites[0].pre, ends.embedding(part)),), weight, -1, "input")
            for i, layer in enumerate(sites):
                for kind, site in (("head", layer.z), ("mlp", layer.mlp_out)):
                    way = torch.lerp(ends.clean[site], ends.corrupt[site], part)
                    yield Point(ends.clean.inputs, (fill(site, way),), weight, i, kind)


def midpoints(steps: int) -> list[float]:
    if steps < 1:
        raise Refusal(f"a path of {steps} steps has no points; give at least 1")
    return [(i + 0.5) / steps for i in range(steps)]


@dataclass(frozen=True, eq=False)
class Ends:
    """The clean run and the corrupt one, at every place where something is written."""

    clean: Trace
    corrupt: Trace
    real: Bool[Tensor, "batch pos"]
    wired: Wiring

    def embedding(self, part: float) -> Float[Tensor, "batch pos d"]:
        """What enters the first block, so far on the way from clean to corrupt."""
        site = self.wired.layers[0].pre
        return torch.lerp(self.clean[site], self.corrupt[site], part)

    def of_embedding(self) -> "Ends":
        """The same with nothing but what enters the first block."""
        name = self.wired.layers[0].pre.name
        clean, corrupt = (Trace(run.inputs, {name: run[name]}) for run in (self.clean, self.corrupt))
        return Ends(clean, corrupt, self.real, self.wired)


@torch.no_grad()
def ends_of(wired: Wiring, clean: Inputs, corrupt: Inputs) -> Ends:
    """Both runs. Raises Refusal where the prompts are not aligned position by position."""
    refuse_unaligned(clean, corrupt)
    sites = [wired.layers[0].pre]
    for i, layer in enumerate(wired.layers):
        sites += [layer.z, layer.mlp_out, *([layer.raw, layer.attn_out] if wired.sandwiched(i) else [])]
    runs = [wired.model.run(inputs, read=sites) for inputs in (clean, corrupt)]
    stream = runs[0][sites[0]]
    real = clean.mask if isinstance(clean, Tokens) else torch.ones(stream.shape[:2], dtype=torch.bool)
    return Ends(runs[0], runs[1], real.to(stream.device), wired)


def refuse_unaligned(clean: Inputs, corrupt: Inputs) -> None:
    if len(clean) != len(corrupt):
        raise Refusal(f"there are {len(clean)} clean prompts and {len(corrupt)} corrupt ones; give them in pairs")
    if not isinstance(clean, Tokens) or not isinstance(corrupt, Tokens):
        return
    off = (clean.lengths != corrupt.lengths).nonzero().flatten().tolist()
    if off:
        one, other = int(clean.lengths[off[0]]), int(corrupt.lengths[off[0]])
        raise Refusal(
            f"pair {off[0]} has {one} clean tokens and {other} corrupt ones; edges are compared position by position, "
            "so give prompts of one length"
        )
    if clean.mask.shape != corrupt.mask.shape or not torch.equal(clean.mask, corrupt.mask):
        raise Refusal("the clean and the corrupt prompts are padded on different sides; pad both on the same")


# ---------------------------------------------------------------- what writers change


class Block(NamedTuple):
    """Some pairs, and some of their places: what is worked on at one time."""

    pairs: slice
    places: slice


class Changes:
    """What each writer writes in the corrupt run less what it writes in the clean one; nothing at padding.

    Holds what makes it up: of heads their z (divided by the scale of a sandwich norm), which is as wide as the stream.
    """

    def __init__(self, ends: Ends) -> None:
        self.wired, anatomy = ends.wired, ends.wired.anatomy
        layers = self.wired.layers
        self.input = between(ends, layers[0].pre)
        self.z = [self._of_z(ends, i) for i in range(anatomy.layers)]
        self.mlps = [between(ends, layer.mlp_out) for layer in layers]
        size = anatomy.layers * anatomy.heads * self.input.numel() * self.input.element_size()
        self.held: dict[int, Tensor] | None = {} if size <= HELD_BYTES else None

    def _of_z(self, ends: Ends, layer: int) -> Float[Tensor, "batch pos head e"]:
        z, runs = self.wired.layers[layer].z, (ends.corrupt, ends.clean)
        if not self.wired.sandwiched(layer):
            return between(ends, z)
        corrupt, clean = (masked(run[z] * self.wired.inverse(layer, run)[..., None], ends.real) for run in runs)
        return corrupt - clean

    def of(self, whole: Float[Tensor, "batch pos d"], block: Block) -> Float[Tensor, "pairs 1 places d"]:
        """What the embedding or an MLP changes, at some places of some pairs."""
        return whole[block.pairs, None, block.places]

    def heads(self, layer: int, block: Block) -> Float[Tensor, "pairs head places d"]:
        """What the heads of a layer change there."""
        if self.held is None:
            return self._heads(layer, self.z[layer][block.pairs, block.places])
        if layer not in self.held:
            self.held[layer] = self._heads(layer, self.z[layer])
        return self.held[layer][block.pairs, :, block.places]

    def _heads(self, layer: int, z: Float[Tensor, "pairs places head e"]) -> Float[Tensor, "pairs head places d"]:
        wrote = written(z, self.wired.writing(layer))
        return wrote.mul_(self.wired.gain(layer)) if self.wired.sandwiched(layer) else wrote


def between(ends: Ends, site: Site) -> Float[Tensor, "batch pos *rest"]:
    return masked(ends.corrupt[site] - ends.clean[site], ends.real)


def masked(x: Float[Tensor, "batch pos *rest"], real: Bool[Tensor, "batch pos"]) -> Float[Tensor, "batch pos *rest"]:
    """Nothing at padding, whatever a network makes of it."""
    return torch.where(real.view(*real.shape, *[1] * (x.ndim - 2)), x, 0)


def written(
    z: Float[Tensor, "batch pos head e"], writing: Float[Tensor, "head e d"]
) -> Float[Tensor, "batch head pos d"]:
    """What each head writes of its z."""
    return torch.einsum("bshe,hed->bhsd", z, writing)


# ---------------------------------------------------------------- what readers feel


class Felt(ABC):
    """The gradients of some readers of one layer, with respect to the stream that they read."""

    readers: slice

    @abstractmethod
    def at(self, block: Block) -> Float[Tensor, "pairs readers places d"]:
        """At some places of some pairs."""


@dataclass(frozen=True, eq=False)
class Stream(Felt):
    """Of one reader, as they are."""

    readers: slice
    gradient: Float[Tensor, "batch pos d"]

    def at(self, block: Block) -> Float[Tensor, "pairs 1 places d"]:
        return self.gradient[block.pairs, None, block.places]


@dataclass(frozen=True, eq=False)
class Heads(Felt):
    """Of a layer's queries, keys and values, made of the gradients at these, which are as wide as a head."""

    readers: slice
    gradients: list[Float[Tensor, "batch pos _ e"]]
    reading: Reading
    norm: Normed

    def at(self, block: Block) -> Float[Tensor, "pairs readers places d"]:
        some = [g[block.pairs, block.places] for g in self.gradients]
        size = self.readers.stop - self.readers.start
        found = some[0].new_empty(len(some[0]), size, some[0].shape[1], self.reading.q.shape[-1])
        first = 0
        for gradient, weight in zip(some, self.reading, strict=True):
            for head in range(len(weight)):
                found[:, first] = gradient[:, :, head] @ weight[head]
                first += 1
        return self.norm.back_(found, block.pairs, block.places)


class Feeling:
    """The measure's gradients at one point, from the last block to the first."""

    def __init__(self, wired: Wiring, measure: Measure, point: Point) -> None:
        self.wired, self.measure = wired, measure
        layers = wired.layers
        leaves = [*wired.streams, *(s for la in layers for s in (la.q, la.k, la.v, la.mlp_in))]
        normed = [s for la in layers for s in (la.attn_in, la.mid)]
        read = [*leaves, *normed, *measure.reads]
        self.trace = wired.model.resume(point.inputs, read=read, edit=point.edits, leaves=leaves)

    def __iter__(self) -> Iterator[tuple[int, list[Felt]]]:
        """Of each layer its readers; the logits first, as one layer more."""
        anatomy = self.wired.anatomy
        top = self.trace[self.wired.streams[-1]]
        feeling = self._from_measure(top)
        yield anatomy.layers, [Stream(anatomy.read_at(anatomy.layers, "logits"), feeling)]
        for i in reversed(range(anatomy.layers)):
            sites = self.wired.layers[i]
            starts = [self.trace[s] for s in (sites.q, sites.k, sites.v, sites.mlp_in, sites.pre)]
            found = torch.autograd.grad(top, starts, feeling, retain_graph=True, allow_unused=True)
            *of_heads, mlp, feeling = map(or_nothing, found, starts)
            yield i, [self._mlp(i, mlp), self._heads(i, of_heads)]
            top = starts[-1]

    def _from_measure(self, top: Tensor) -> Tensor:
        total = self.measure(self.trace).sum()
        (found,) = (
            torch.autograd.grad(total, top, retain_graph=True, allow_unused=True) if total.requires_grad else (None,)
        )
        if found is None:
            raise Refusal(
                f"{self.measure.label} does not depend on {self.wired.streams[-1]}; edges need a measure of the logits"
            )
        return found

    def _mlp(self, layer: int, gradient: Tensor) -> Felt:
        """Through the norm between the stream and the MLP."""
        sites = self.wired.layers[layer]
        (back,) = torch.autograd.grad(self.trace[sites.mlp_in], self.trace[sites.mid], gradient, retain_graph=True)
        return Stream(self.wired.anatomy.read_at(layer, "mlp"), back)

    def _heads(self, layer: int, gradients: list[Tensor]) -> Felt:
        place = self.wired.anatomy.read_at(layer, *ROLES)
        return Heads(place, gradients, self.wired.reading(layer), self.wired.normed(layer, self.trace))


def or_nothing(gradient: Tensor | None, at: Tensor) -> Tensor:
    return torch.zeros_like(at) if gradient is None else gradient


# ---------------------------------------------------------------- both together


def edge_attribution(
    model: Resumable,
    clean: Inputs,
    corrupt: Inputs,
    measure: Measure,
    path: Path | None = None,
    *,
    wired: Wiring | None = None,
) -> EdgeGraph:
    """A score for every edge and pair: what the measure would gain, to first order, by corrupting this edge alone.

    `path` says where gradients are taken: AtClean() unless given. Prompts are compared position by position; rows may
    have different lengths. Raises Refusal where a pair is not aligned, and where the measure does not depend on what
    the last block returns.
    """
    wired = wired or wiring(model, clean)
    ends, path = ends_of(wired, clean, corrupt), path or AtClean()
    changes, anatomy = Changes(ends), wired.anatomy
    ends = ends if path.needs_activations else ends.of_embedding()
    each = changes.input.new_zeros(len(clean), len(anatomy.writers), len(anatomy.readers))
    for point in path.points(wired, ends):
        with torch.enable_grad():
            feeling = Feeling(wired, measure, point)
        for layer, some in feeling:
            for felt in some:
                with torch.no_grad():
                    add_scores(each, changes, wired, layer, felt, point)
        del feeling
    return EdgeGraph.of(anatomy, each.mul_(anatomy.possible.to(each.device)), measure.label)


def add_scores(each: Tensor, changes: Changes, wired: Wiring, layer: int, felt: Felt, point: Point) -> None:
    """The scores of all writers that come before these readers."""
    writers = list(writers_before(wired, changes, layer, felt, point))
    vectors = felt.readers.stop - felt.readers.start + wired.anatomy.heads
    for block in blocks(changes.input, vectors):
        gradients = felt.at(block).flatten(2).mT
        for place, change in writers:
            each[block.pairs, place, felt.readers] += point.weight * torch.bmm(change(block).flatten(2), gradients)


def blocks(stream: Float[Tensor, "batch pos d"], vectors: int) -> Iterator[Block]:
    """All pairs and places, as many at a time as keep so many vectors of each place within bounds."""
    pairs, places, _ = stream.shape
    most = max(1, BLOCK_BYTES // (vectors * stream[0, 0].nbytes))
    at_once, along = max(1, most // places), min(most, places)
    for pair in range(0, pairs, at_once):
        for place in range(0, places, along):
            yield Block(slice(pair, pair + at_once), slice(place, place + along))


Change = Callable[[Block], Float[Tensor, "pairs writers places d"]]


def writers_before(
    wired: Wiring, changes: Changes, layer: int, felt: Felt, point: Point
) -> Iterator[tuple[slice, Change]]:
    """The writers that come before these readers and that the point counts for, and what they change."""
    anatomy = wired.anatomy
    kind = anatomy.readers[felt.readers.start].kind
    if point.layer in (None, -1):
        yield slice(0, 1), partial(changes.of, changes.input)
    for i in range(min(layer + 1, anatomy.layers)):
        before = i < layer
        if point.layer is not None and point.layer != i:
            continue
        if point.kind in ("", "head") and (before or (kind == "mlp" and not anatomy.parallel)):
            yield anatomy.writers_of(i), partial(changes.heads, i)
        if point.kind in ("", "mlp") and before:
            yield slice(anatomy.mlp_of(i), anatomy.mlp_of(i) + 1), partial(changes.of, changes.mlps[i])
