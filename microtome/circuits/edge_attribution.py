"""What each edge does to a measure, to first order: the writer's change times the reader's gradient.

    score(w -> r) = mean over points of <u_w(corrupt) - u_w(clean), d measure / d (what r reads)>

summed over real positions: what the measure would gain if what w writes for r alone were the corrupt prompt's. Syed et
al. 2023, Attribution Patching Outperforms Automated Circuit Discovery (arXiv 2310.10348): gradients at the clean
prompt. Hanna et al. 2024, Have Faith in Faithfulness (arXiv 2403.17806): gradients averaged along a path.

What a head adds to the stream is made of its z one layer at a time, never for all heads of the network at once (unless
that is small), and the backward pass goes block by block, so gradients too are there for one block at a time.
"""

# pyright: reportUnknownMemberType=false

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from microtome.circuits.edges import EdgeGraph
from microtome.circuits.wiring import Wiring, wiring
from microtome.core.edit import Edit, fill
from microtome.core.errors import Refusal
from microtome.core.inputs import Inputs, Tokens
from microtome.core.measure import Measure
from microtome.core.model import Resumable
from microtome.core.site import Site
from microtome.core.trace import Trace

HELD_BYTES = 2**26  # up to this much is spent on what heads write, rather than to make it again for each reader
TOGETHER = 8  # readers whose gradients in the stream are there at one time


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

    def embedding(self) -> Float[Tensor, "batch 1 pos d"]:
        return self.input[:, None]

    def mlp(self, layer: int) -> Float[Tensor, "batch 1 pos d"]:
        return self.mlps[layer][:, None]

    def heads(self, layer: int) -> Float[Tensor, "batch head pos d"]:
        if self.held is None:
            return self._heads(layer)
        if layer not in self.held:
            self.held[layer] = self._heads(layer)
        return self.held[layer]

    def _heads(self, layer: int) -> Float[Tensor, "batch head pos d"]:
        wrote = written(self.z[layer], self.wired.writing(layer))
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


class Felt(NamedTuple):
    """The gradients of some readers of one layer, with respect to the stream that they read."""

    readers: slice
    gradients: Float[Tensor, "readers batch pos d"]


class Feeling:
    """The measure's gradients at one point, from the last block to the first."""

    def __init__(self, wired: Wiring, measure: Measure, point: Point) -> None:
        self.wired, self.measure = wired, measure
        layers = wired.layers
        leaves = [*wired.streams, *(s for la in layers for s in (la.q, la.k, la.v, la.mlp_in))]
        normed = [s for la in layers for s in (la.attn_in, la.mid)]
        read = [*leaves, *normed, *measure.reads]
        self.trace = wired.model.run(point.inputs, read=read, edit=point.edits, leaves=leaves)

    def __iter__(self) -> Iterator[tuple[int, list[Felt]]]:
        """Of each layer its readers, a few at a time; the logits first, as one layer more."""
        anatomy = self.wired.anatomy
        top = self.trace[self.wired.streams[-1]]
        feeling = self._from_measure(top)
        yield anatomy.layers, [Felt(anatomy.read_at(anatomy.layers, "logits"), feeling[None])]
        for i in reversed(range(anatomy.layers)):
            sites = self.wired.layers[i]
            starts = [self.trace[s] for s in (sites.q, sites.k, sites.v, sites.mlp_in, sites.pre)]
            found = torch.autograd.grad(top, starts, feeling, retain_graph=True, allow_unused=True)
            *of_heads, mlp, feeling = map(or_nothing, found, starts)
            yield i, [self._mlp(i, mlp)]
            for felt in self._heads(i, of_heads):
                yield i, [felt]
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
        sites, place = self.wired.layers[layer], self.wired.anatomy.read_at(layer, "mlp")
        return Felt(place, self._back(self.trace[sites.mlp_in], self.trace[sites.mid], gradient[None]))

    def _heads(self, layer: int, gradients: Sequence[Tensor]) -> Iterator[Felt]:
        sites, reading = self.wired.layers[layer], self.wired.reading(layer)
        attn_in, stream = self.trace[sites.attn_in], self.trace[sites.pre]
        for role, gradient, weight in zip("qkv", gradients, reading, strict=True):
            first = self.wired.anatomy.read_at(layer, role).start
            for head in range(0, len(weight), TOGETHER):
                some = slice(head, min(head + TOGETHER, len(weight)))
                normed = torch.einsum("bshe,hed->hbsd", gradient[:, :, some], weight[some])
                yield Felt(slice(first + some.start, first + some.stop), self._back(attn_in, stream, normed))

    def _back(self, normed: Tensor, stream: Tensor, gradients: Tensor) -> Tensor:
        """Through the norm between the stream and a branch."""
        if len(gradients) == 1:
            (back,) = torch.autograd.grad(normed, stream, gradients[0], retain_graph=True)
            return back[None]
        (back,) = torch.autograd.grad(normed, stream, gradients, retain_graph=True, is_grads_batched=True)
        return back


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
    return EdgeGraph.of(anatomy, each * anatomy.possible.to(each.device), measure.label)


def add_scores(each: Tensor, changes: Changes, wired: Wiring, layer: int, felt: Felt, point: Point) -> None:
    """The scores of all writers that come before these readers."""
    anatomy = wired.anatomy
    gradients = felt.gradients.flatten(2).permute(1, 2, 0)
    kinds = anatomy.readers[felt.readers.start]

    def add(writers: slice, change: Tensor) -> None:
        each[:, writers, felt.readers] += point.weight * torch.bmm(change.flatten(2), gradients)

    if point.layer in (None, -1):
        add(slice(0, 1), changes.embedding())
    for i in range(min(layer + 1, anatomy.layers)):
        before = i < layer
        if point.layer is not None and point.layer != i:
            continue
        if point.kind in ("", "head") and (before or (kinds.kind == "mlp" and not anatomy.parallel)):
            add(anatomy.writers_of(i), changes.heads(i))
        if point.kind in ("", "mlp") and before:
            add(slice(anatomy.mlp_of(i), anatomy.mlp_of(i) + 1), changes.mlp(i))
