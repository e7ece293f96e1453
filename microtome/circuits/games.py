"""What a network does when only a part of it may know the prompt: the rest holds what it held elsewhere.

A game has named units (heads and MLPs, or the edges between them). Given which are kept, it plays the network with all
others held as they were on corrupt prompts, or at their mean, and says what the measure is. What judges a circuit
(`circuit_score`) knows games alone.
"""

# pyright: reportUnknownMemberType=false

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from microtome.circuits.circuit_run import CircuitRun
from microtome.core.edit import Edit, patch
from microtome.core.effects import effects
from microtome.core.errors import Refusal
from microtome.core.inputs import Inputs, Tokens
from microtome.core.measure import Measure
from microtome.core.model import Model, Resumable
from microtome.core.site import Site
from microtome.core.trace import Trace


@runtime_checkable
class Game(Protocol):
    """Units that can be kept or held, and the measure of what then remains."""

    units: tuple[str, ...]

    def __call__(self, kept: Bool[Tensor, "cells units"]) -> Float[Tensor, "cells pairs"]: ...


class NodeGame:
    """Heads and MLPs as units: `a0.h1`, `m0`. The embedding and the biases are always kept.

    `outside` holds what units that are not kept hold: a run on corrupt prompts of the same lengths (`resampled`), or a
    mean (`mean_ablated`).
    """

    def __init__(self, model: Resumable, clean: Inputs, outside: Trace, measure: Measure) -> None:
        self.model, self.clean, self.outside, self.measure = model, clean, outside, measure
        self.nodes = [(name, place) for site in outside.sites for name, place in nodes_at(site, outside)]
        self.units = tuple(name for name, _ in self.nodes)

    @classmethod
    def resampled(cls, model: Resumable, clean: Inputs, corrupt: Inputs, measure: Measure) -> "NodeGame":
        """Units that are not kept hold what they hold in the corrupt run. Raises Refusal where lengths differ."""
        refuse_unaligned(clean, corrupt)
        with torch.no_grad():
            return cls(model, clean, model.run(corrupt, read=node_sites(model)), measure)

    @classmethod
    def mean_ablated(cls, model: Resumable, clean: Inputs, reference: Inputs, measure: Measure) -> "NodeGame":
        """Units that are not kept hold their mean over the real places of `reference`."""
        with torch.no_grad():
            found, here = (model.run(x, read=node_sites(model)) for x in (reference, clean))
        means = {s.name: mean_place(found, s).expand_as(here[s]).clone() for s in found.sites}
        return cls(model, clean, Trace(clean, means, found.sites_by_name), measure)

    @torch.no_grad()
    def __call__(self, kept: Bool[Tensor, "cells units"]) -> Float[Tensor, "cells pairs"]:
        cells = [self.held(row) for row in kept]
        whole = self.measure(self.model.run(self.clean, read=self.measure.reads))
        found = whole.expand(len(cells), -1).clone()
        changed = [i for i, cell in enumerate(cells) if cell]
        if changed:
            found[changed] = effects(self.model, self.clean, [cells[i] for i in changed], self.measure).after
        return found

    def held(self, kept: Bool[Tensor, "units"]) -> list[Edit]:
        """The edits that hold all other units: one for each site that has any."""
        places: dict[Site, list[int]] = {}
        for (_, (site, head)), keep in zip(self.nodes, kept.tolist(), strict=True):
            if not keep:
                places.setdefault(site, []).append(head)
        return [
            patch(s if "head" not in s.axes.split() else s.at(head=heads), self.outside) for s, heads in places.items()
        ]


class EdgeGame:
    """Edges as units: `a0.h1->a1.h2<q>`. Those that are not kept carry the corrupt prompt."""

    def __init__(self, run: CircuitRun, rows: int = 64) -> None:
        """`rows` bounds those of one forward pass, and so memory."""
        self.run, self.anatomy = run, run.wired.anatomy
        self.together = max(1, rows // len(run.clean))
        edges = self.anatomy.possible.nonzero().tolist()
        self.units = tuple(f"{self.anatomy.writers[w]}->{self.anatomy.readers[r]}" for w, r in edges)

    @torch.no_grad()
    def __call__(self, kept: Bool[Tensor, "cells units"]) -> Float[Tensor, "cells pairs"]:
        whole = torch.zeros(len(kept), *self.anatomy.possible.shape)
        whole[:, self.anatomy.possible] = kept.float()
        return torch.cat([self.run(some) for some in whole.split(self.together)])


@torch.no_grad()
def left_out(game: Game, together: int = 64) -> Iterator[Float[Tensor, "pairs some"]]:
    """What the measure gains when one unit alone is not kept, for each in turn, so many at a time.

    Exact, where attribution estimates it: of edges this is path patching.
    """
    units = torch.arange(len(game.units))
    whole = game(torch.ones(1, len(units), dtype=torch.bool))
    for some in units.split(together):
        yield (game(units != some[:, None]) - whole).T


def node_sites(model: Model) -> list[Site]:
    """Where the outputs of heads and MLPs stand, layer by layer."""
    found = [s for s in model.sites("*") if s.name.startswith(("z.", "mlp_out.")) and s.layer is not None]
    if not found:
        raise Refusal(
            "this model has neither of the sites z and mlp_out, so it has no nodes; name them: load(..., sites=...)"
        )
    return sorted(found, key=lambda s: (s.layer, s.name.startswith("mlp")))


def nodes_at(site: Site, trace: Trace) -> list[tuple[str, tuple[Site, int]]]:
    if "head" not in site.axes.split():
        return [(f"m{site.layer}", (site, 0))]
    heads = trace[site].shape[site.axes.split().index("head")]
    return [(f"a{site.layer}.h{h}", (site, h)) for h in range(heads)]


def mean_place(trace: Trace, site: Site) -> Tensor:
    """The mean over real places, on axes of size 1."""
    x = trace[site]
    if not isinstance(trace.inputs, Tokens):
        return x.mean((0, 1), keepdim=True)
    return x[trace.inputs.mask].mean(0)[None, None]


def refuse_unaligned(clean: Inputs, corrupt: Inputs) -> None:
    if isinstance(clean, Tokens) and isinstance(corrupt, Tokens) and not torch.equal(clean.mask, corrupt.mask):
        lengths: Sequence[list[int]] = [x.lengths.tolist() for x in (clean, corrupt)]
        raise Refusal(
            f"clean prompts have {lengths[0]} tokens and corrupt ones {lengths[1]}, or other padding; a circuit "
            "is played on pairs of equal lengths: pairs.only_aligned()"
        )
