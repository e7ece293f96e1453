"""What readers of the residual stream feel: a measure's gradients with respect to what each of them reads.

What is kept for gradients grows with every layer, so a deep network runs in segments: once without gradients, to know
the stream at their ends, then each segment again with them, from the last to the first. That is one forward pass more.
"""

# pyright: reportUnknownMemberType=false

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.circuits.edges import ROLES
from microtome.circuits.gradient_paths import Point
from microtome.circuits.normed import Normed
from microtome.circuits.wiring import Reading, Wiring
from microtome.core.errors import Refusal
from microtome.core.inputs import Inputs, Tokens
from microtome.core.measure import Measure
from microtome.core.trace import Trace

KEPT_BYTES = 2**28  # up to this much is kept for gradients, rather than to run a network in segments
KEPT_STREAMS = 12  # what a block keeps for gradients, about, in multiples of the stream


class Block(NamedTuple):
    """Some pairs, and some of their places: what is worked on at one time."""

    pairs: slice
    places: slice


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
            found[:, first : first + len(weight)] = torch.einsum("bshe,hed->bhsd", gradient, weight)
            first += len(weight)
        return self.norm.back_(found, block.pairs, block.places)


class Segment(NamedTuple):
    """Blocks that run together: those from the first on, up to but without the last."""

    first: int
    last: int


class Feeling:
    """The measure's gradients at one point, from the last block to the first."""

    def __init__(self, wired: Wiring, measure: Measure, point: Point) -> None:
        self.wired, self.measure, self.point = wired, measure, point
        self.segments = segments(wired, point)
        starts = [wired.streams[s.first] for s in self.segments[1:]]
        with torch.no_grad():
            self.before = wired.model.run(point.inputs, read=starts, edit=point.edits) if starts else None

    def __iter__(self) -> Iterator[tuple[int, list[Felt]]]:
        """Of each layer its readers; the logits first, as one layer more."""
        anatomy, feeling = self.wired.anatomy, None
        for segment in reversed(self.segments):
            trace = self._run(segment)
            if feeling is None:
                feeling = self._from_measure(trace)
                yield anatomy.layers, [Stream(anatomy.read_at(anatomy.layers, "logits"), feeling)]
            for i in reversed(range(*segment)):
                feeling, felt = self._through(i, trace, feeling)
                yield i, felt
            del trace

    @torch.enable_grad()
    def _run(self, segment: Segment) -> Trace:
        """The blocks of a segment, at whatever their readers feel by."""
        own, top = self.wired.layers[slice(*segment)], self.wired.streams[segment.last]
        leaves = [*(s for la in own for s in (la.pre, la.q, la.k, la.v, la.mlp_in)), top]
        read = [*leaves, *(s for la in own for s in (la.attn_in, la.mid))]
        read += self.measure.reads if segment.last == self.wired.anatomy.layers else ()
        stream = self.before[self.wired.streams[segment.first]] if self.before and segment.first else None
        edits = () if segment.first else self.point.edits
        return self.wired.model.resume(
            self.point.inputs, segment.first - 1, stream, read=read, edit=edits, leaves=leaves
        )

    @torch.enable_grad()
    def _from_measure(self, trace: Trace) -> Tensor:
        total, top = self.measure(trace).sum(), self.wired.streams[-1]
        found = None
        if total.requires_grad:
            (found,) = torch.autograd.grad(total, trace[top], retain_graph=True, allow_unused=True)
        if found is None:
            raise Refusal(f"{self.measure.label} does not depend on {top}; edges need a measure of the logits")
        return found

    def _through(self, layer: int, trace: Trace, feeling: Tensor) -> tuple[Tensor, list[Felt]]:
        """What is felt before a block, of what is felt behind it; and what its readers feel."""
        sites = self.wired.layers[layer]
        starts = [trace[s] for s in (sites.q, sites.k, sites.v, sites.mlp_in, sites.pre)]
        top = trace[self.wired.streams[layer + 1]]
        found = torch.autograd.grad(top, starts, feeling, retain_graph=True, allow_unused=True)
        *of_heads, mlp, before = map(or_nothing, found, starts)
        return before, [self._mlp(layer, trace, mlp), self._heads(layer, trace, of_heads)]

    def _mlp(self, layer: int, trace: Trace, gradient: Tensor) -> Felt:
        """Through the norm between the stream and the MLP."""
        sites = self.wired.layers[layer]
        (back,) = torch.autograd.grad(trace[sites.mlp_in], trace[sites.mid], gradient, retain_graph=True)
        return Stream(self.wired.anatomy.read_at(layer, "mlp"), back)

    def _heads(self, layer: int, trace: Trace, gradients: list[Tensor]) -> Felt:
        place = self.wired.anatomy.read_at(layer, *ROLES)
        return Heads(place, gradients, self.wired.reading(layer), self.wired.normed(layer, trace))


def segments(wired: Wiring, point: Point) -> list[Segment]:
    """All blocks at once where little is kept for them, or where edits may be anywhere; else about as many segments as
    each has blocks (Chen et al. 2016, Training Deep Nets with Sublinear Memory Cost, section 4)."""
    depth, stream = wired.anatomy.layers, wired.stream.nbytes // wired.stream.shape[1]
    kept = KEPT_STREAMS * depth * stream * places(point.inputs)
    if kept <= KEPT_BYTES or any(e.site != wired.streams[0] for e in point.edits):
        return [Segment(0, depth)]
    long = round(math.sqrt(depth))
    return [Segment(first, min(first + long, depth)) for first in range(0, depth, long)]


def places(inputs: Inputs) -> int:
    return inputs.ids.numel() if isinstance(inputs, Tokens) else len(inputs)


def or_nothing(gradient: Tensor | None, at: Tensor) -> Tensor:
    return torch.zeros_like(at) if gradient is None else gradient
