"""A network in which only some edges carry the clean prompt, and all others the corrupt one.

What a reader reads is the corrupt run's stream, in which each writer whose edge is kept writes what it now writes:

    r reads  stream(corrupt) + sum over w of kept(w, r) (u_w(now) - u_w(corrupt))

With all edges kept this is the clean run, with none the corrupt one. Leaving out one edge is exact path patching:
everything else stays, and what the reader then makes of it goes on. Goldowsky-Dill et al. 2023, Localizing Model
Behavior with Path Patching (arXiv 2304.05969); Wang et al. 2022 (arXiv 2211.00593).
"""

# pyright: reportUnknownMemberType=false

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from microtome.circuits.edge_attribution import written
from microtome.circuits.edges import ROLES, Edge, EdgeGraph
from microtome.circuits.gradient_paths import Ends, ends_of
from microtome.circuits.wiring import ALIKE, Wiring, wiring
from microtome.core.edit import Edit, fill
from microtome.core.errors import Refusal
from microtome.core.inputs import Inputs
from microtome.core.measure import Measure
from microtome.core.model import Resumable
from microtome.core.site import Site
from microtome.core.trace import Trace


class Affine(NamedTuple):
    """A projection of the normed stream, head by head: `weight x + constant`, which may be another at each place."""

    weight: Float[Tensor, "head e d"]
    constant: Float[Tensor, "batch pos head e"]

    def __call__(self, x: Float[Tensor, "head rows pos d"]) -> Float[Tensor, "rows pos head e"]:
        """What each head makes of a stream of its own, for as many copies of the batch as there are."""
        made = torch.einsum("hrpd,hed->rphe", x, self.weight)
        return made + self.constant.repeat(made.shape[0] // len(self.constant), 1, 1, 1)


def affine(
    start: Site, to: Site, weight: Float[Tensor, "head e d"], run: Trace, again: Trace, real: Bool[Tensor, "batch pos"]
) -> Affine:
    """A projection as one run shows it: what is no multiple of its input may depend on the place.

    Raises Refusal where another run shows something else there: then it is no projection.
    """
    constant, other = (t[to] - torch.einsum("bpd,hed->bphe", t[start], weight) for t in (run, again))
    off = float((other - constant)[real].abs().max())
    if off > max(ALIKE, 8 * torch.finfo(constant.dtype).eps) * float(again[to][real].abs().max()):
        raise Refusal(
            f"{to} is no projection of {start} (what it adds to one differs by {off:.3g} between clean prompts and "
            "corrupt ones), so no edge ends there; patch the site instead"
        )
    return Affine(weight, constant)


class CircuitRun:
    """Runs of one batch of pairs with some edges kept: `run(kept)` for many choices of edges at once."""

    def __init__(self, wired: Wiring, clean: Inputs, corrupt: Inputs, measure: Measure) -> None:
        """Raises Refusal where a pair is not aligned position by position, or heads read no projection of a stream."""
        self.wired, self.measure, self.clean = wired, measure, clean
        self.ends: Ends = ends_of(wired, clean, corrupt)
        with torch.no_grad():
            read = [s for la in wired.layers for s in (la.pre, la.mid)] + [wired.layers[-1].post]
            self.corrupt: Trace = wired.model.run(corrupt, read=read)
            self.were = [self._shares(i, self.ends.corrupt, 1) for i in range(wired.anatomy.layers)]
            self.maps = self._maps()

    def __call__(self, kept: Float[Tensor, "cells writers readers"]) -> Float[Tensor, "cells pairs"]:
        """The measure in each cell. `kept` may lie between 0 and 1, and gradients reach it."""
        cells, size = len(kept), len(self.clean)
        changes = [self._entering(cells)]  # of each writer so far, a stack of (cells batch) writers pos d
        for i in range(self.wired.anatomy.layers):
            self._layer(i, kept, changes)
        last = self.wired.layers[-1].post
        (stream,) = self._streams(kept, changes, last, self.wired.anatomy.read_at(len(self.were), "logits"))
        trace = self._resume(cells, len(self.were) - 1, stream, list(self.measure.reads), [])
        return torch.stack([self.measure(trace.rows(slice(c * size, (c + 1) * size))) for c in range(cells)])

    def _layer(self, i: int, kept: Tensor, changes: list[Tensor]) -> None:
        """Run one layer with what each of its readers reads, and note what its heads and its MLP now write."""
        cells, sites, anatomy = len(kept), self.wired.layers[i], self.wired.anatomy
        fills = self._projected(i, kept, changes)
        wanted = [sites.z, *([sites.raw, sites.attn_out] if self.wired.sandwiched(i) else [])]
        now = self._shares(i, self._resume(cells, i - 1, self._whole(sites.pre, cells), wanted, fills), cells)
        heads = self._masked(now - self.were[i].repeat(cells, 1, 1, 1), cells)
        before = changes if anatomy.parallel else [*changes, heads]
        (stream,) = self._streams(kept, before, sites.mid, anatomy.read_at(i, "mlp"))
        out = self._resume(cells, i - 1, self._whole(sites.pre, cells), [sites.mlp_out], [fill(sites.mid, stream)])
        mlp = out[sites.mlp_out] - self.ends.corrupt[sites.mlp_out].repeat(cells, 1, 1)
        changes += [heads, self._masked(mlp[:, None], cells)]

    def _projected(self, i: int, kept: Tensor, changes: list[Tensor]) -> list[Edit]:
        """What each head's queries, keys and values are, each made of a stream of its own: normed all in one pass."""
        sites, anatomy, cells = self.wired.layers[i], self.wired.anatomy, len(kept)
        sizes = [anatomy.count(role) for role in ROLES]
        streams = self._streams(kept, changes, sites.pre, anatomy.read_at(i, *ROLES))
        stacked = streams.flatten(0, 1)
        entered = [fill(sites.pre, stacked)] if i == 0 else []
        made = self._resume(cells * sum(sizes), i - 1, stacked, [sites.attn_in], entered)[sites.attn_in]
        normed = made.unflatten(0, streams.shape[:2]).split(sizes)
        return [
            fill(site, make(x)) for site, x, make in zip((sites.q, sites.k, sites.v), normed, self.maps[i], strict=True)
        ]

    def _maps(self) -> list[list[Affine]]:
        """How each layer's heads make queries, keys and values of the normed stream, seen in both runs."""
        read = [s for la in self.wired.layers for s in (la.attn_in, la.q, la.k, la.v)]
        both = self.ends.corrupt.inputs, self.clean
        corrupt, clean = (self.wired.model.run(inputs, read=dict.fromkeys(read)) for inputs in both)
        return [
            [
                affine(layer.attn_in, to, weight, corrupt, clean, self.ends.real)
                for to, weight in zip((layer.q, layer.k, layer.v), self.wired.reading(i), strict=True)
            ]
            for i, layer in enumerate(self.wired.layers)
        ]

    def _streams(self, kept: Tensor, changes: list[Tensor], site: Site, readers: slice) -> Tensor:
        """What each of these readers reads: `readers rows pos d`."""
        so_far = torch.cat(changes, 1).unflatten(0, (len(kept), -1))
        weights = kept[:, : so_far.shape[2], readers].to(so_far)
        streams = torch.einsum("cbwsd,cwr->rcbsd", so_far, weights) + self.corrupt[site]
        return streams.flatten(1, 2)

    def _entering(self, cells: int) -> Float[Tensor, "rows 1 pos d"]:
        site = self.wired.layers[0].pre
        change = (self.ends.clean[site] - self.ends.corrupt[site]).repeat(cells, 1, 1)
        return self._masked(change[:, None], cells)

    def _masked(self, change: Float[Tensor, "rows writers pos d"], cells: int) -> Float[Tensor, "rows writers pos d"]:
        """Nothing at padding, whatever a network makes of it."""
        return torch.where(self.ends.real.repeat(cells, 1)[:, None, :, None], change, 0)

    def _whole(self, site: Site, cells: int) -> Float[Tensor, "rows pos d"]:
        return self.corrupt[site].repeat(cells, 1, 1)

    def _shares(self, i: int, trace: Trace, cells: int) -> Float[Tensor, "rows head pos d"]:
        """What each head adds to the stream in a run."""
        shares = written(trace[self.wired.layers[i].z], self.wired.writing(i))
        scale = self.wired.scale(i, trace)
        return shares if scale is None else shares * scale[:, None]

    def _resume(self, cells: int, layer: int, stream: Tensor, read: Sequence[Site], edits: Sequence[Edit]) -> Trace:
        inputs = self.clean.repeat(cells)
        return self.wired.model.resume(inputs, layer, stream if layer >= 0 else None, read=read, edit=edits)


@torch.no_grad()
def exact_edges(
    model: Resumable,
    clean: Inputs,
    corrupt: Inputs,
    measure: Measure,
    *,
    edges: Sequence[Edge] | None = None,
    wired: Wiring | None = None,
    rows: int = 256,
) -> EdgeGraph:
    """What the measure gains when one edge alone is corrupt, for each edge in turn (all, unless some are given).

    Path patching. `rows` bounds the rows of one forward pass. Costs a run for every edge; attribution estimates it.
    """
    wired = wired or wiring(model, clean)
    run, anatomy = CircuitRun(wired, clean, corrupt, measure), wired.anatomy
    places = [anatomy.place(e) for e in edges] if edges is not None else anatomy.possible.nonzero().tolist()
    whole = anatomy.possible.float()
    clean_value = run(whole[None])[0]
    each = clean_value.new_zeros(len(clean), *anatomy.possible.shape)
    together = max(1, rows // len(clean))
    for some in (places[i : i + together] for i in range(0, len(places), together)):
        w, r = torch.tensor(some).T
        kept = whole.repeat(len(some), 1, 1)
        kept[torch.arange(len(some)), w, r] = 0
        each[:, w, r] = (run(kept) - clean_value).T
    return EdgeGraph.of(anatomy, each, measure.label)
