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

from collections.abc import Callable, Iterator
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.circuits.edges import EdgeGraph
from microtome.circuits.feeling import Block, Feeling, Felt
from microtome.circuits.gradient_paths import AtClean, Ends, Path, Point, between, ends_of, masked
from microtome.circuits.wiring import Wiring, wiring
from microtome.core.inputs import Inputs
from microtome.core.measure import Measure
from microtome.core.model import Resumable

HELD_BYTES = (
    2**26
)  # up to this much is spent on what heads write, rather than to make it again for each layer of readers
BLOCK_BYTES = 2**23  # of the vectors of one layer's readers and one layer's heads that are there at one time


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


def written(
    z: Float[Tensor, "batch pos head e"], writing: Float[Tensor, "head e d"]
) -> Float[Tensor, "batch head pos d"]:
    """What each head writes of its z."""
    return torch.einsum("bshe,hed->bhsd", z, writing)


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
        for layer, some in Feeling(wired, measure, point):
            for felt in some:
                add_scores(each, changes, wired, layer, felt, point)
    return EdgeGraph.of(anatomy, each.mul_(anatomy.possible.to(each.device)), measure.label)


@torch.no_grad()
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
