"""What each latent of many dictionaries, and each of their errors, does to a measure, alone and by way of another.

Marks et al. 2024, Sparse Feature Circuits (arXiv 2403.19647), section 3. A site holds b + sum_i f_i d_i + e: what the
latents of its dictionary write, and the error e, which is all else that stands there (a skip connection included). The
effect of a node, latent or error, is how far a measure moves when the node alone takes its value from another run, or
zero. By attribution that is the gradient times the change; integrated gradients take the mean gradient along the way.
As decoders are affine, the gradient of a latent is that of the site along its direction, so one backward pass serves
all latents of all sites.
"""

# pyright: reportUnknownMemberType=false

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.circuits.interchange import error_of, swap, swap_all, swap_error
from microtome.core.codes import Codes
from microtome.core.component import Dictionary
from microtome.core.edit import Edit, ablate, function, masked, patch, written_site
from microtome.core.effects import effects
from microtome.core.errors import Refusal
from microtome.core.gradients import gradients
from microtome.core.inputs import Inputs, Tokens
from microtome.core.measure import Measure
from microtome.core.model import Model, Resumable
from microtome.core.site import Site
from microtome.core.trace import Trace

ENTRIES = 65_536  # active latents whose directions are looked at together: bounds memory, changes no number


class FeatureNode(NamedTuple):
    """A latent of one of the dictionaries, counted as they were given; None is what that dictionary's latents miss."""

    dictionary: int
    component: int | None

    def __str__(self) -> str:
        return f"{self.dictionary}/{'error' if self.component is None else self.component}"


@dataclass(frozen=True, eq=False)
class NodeEffects:
    """How far a measure moves by each node, for each row: one table a dictionary, the error in its last column.

    An effect is summed over the places of its row. It is the measure with the other value less the measure without.
    """

    tables: tuple[Float[Tensor, "batch nodes"], ...]
    label: str

    def of(self, node: FeatureNode) -> Float[Tensor, "batch"]:
        """One node's effect on each row."""
        return self.tables[node.dictionary][:, -1 if node.component is None else node.component]

    def mean(self, node: FeatureNode) -> float:
        """Over rows: the effect that is aggregated over examples."""
        return self.of(node).mean().item()

    def above(self, threshold: float) -> list[FeatureNode]:
        """Nodes whose mean effect is larger than this either way, largest first."""
        means = torch.cat([table.mean(0).abs() for table in self.tables])
        order = means.argsort(descending=True, stable=True)[: int((means > threshold).sum())]
        nodes = list(self.nodes())
        return [nodes[i] for i in order.tolist()]

    def nodes(self) -> Iterator[FeatureNode]:
        """Every node, each dictionary's error last."""
        for number, table in enumerate(self.tables):
            last = table.shape[1] - 1
            yield from (FeatureNode(number, i if i < last else None) for i in range(last + 1))


def together(parts: Sequence[NodeEffects]) -> NodeEffects:
    """The effects on several batches as those on one: how examples are aggregated beyond what memory holds."""
    tables = zip(*(part.tables for part in parts), strict=True)
    return NodeEffects(tuple(torch.cat(each) for each in tables), parts[0].label)


# ---------------------------------------------------------------- effects of nodes


def attributed(
    model: Model, clean: Inputs, corrupt: Inputs | None, dictionaries: Sequence[Dictionary], measure: Measure
) -> NodeEffects:
    """Effects by attribution patching: the gradient at the clean run times the change. One backward pass for all.

    Without `corrupt`, each node's other value is zero. Raises Refusal where the inputs are not place by place alike.
    """
    changes = changed(model, clean, corrupt, dictionaries)
    felt = gradients(model, clean, measure, [c.site for c in changes])
    return NodeEffects(tuple(c.effects(felt[c.site]) for c in changes), measure.label)


def integrated(
    model: Model,
    clean: Inputs,
    corrupt: Inputs | None,
    dictionaries: Sequence[Dictionary],
    measure: Measure,
    *,
    steps: int = 10,
) -> NodeEffects:
    """Effects by integrated gradients: the mean gradient while a site moves from clean to other, times the change.

    Each site moves alone, all its nodes together, through the midpoints of `steps` equal steps (the paper's steps begin
    at the clean end). So the effects of a dictionary's nodes sum to what patching the whole site does.
    """
    if steps < 1:
        raise Refusal(f"integrated gradients take {steps} steps; give at least 1 (attribution looks at the clean run)")
    changes = changed(model, clean, corrupt, dictionaries)
    return NodeEffects(tuple(c.effects(along(model, c, measure, steps)) for c in changes), measure.label)


def along(model: Model, change: "Change", measure: Measure, steps: int) -> Tensor:
    """The mean gradient at a site as it moves from its clean value to its other one."""
    felt = [
        gradients(model, change.clean.inputs, measure, [change.site], edit=[change.at((i + 0.5) / steps)])[change.site]
        for i in range(steps)
    ]
    return torch.stack(felt).mean(0)


@torch.no_grad()
def exact(
    model: Resumable,
    clean: Inputs,
    corrupt: Inputs | None,
    dictionaries: Sequence[Dictionary],
    measure: Measure,
    nodes: Sequence[FeatureNode],
    *,
    rows: int = 256,
) -> Float[Tensor, "nodes batch"]:
    """The same effects of some nodes, each by a run in which it has its other value: what the others approximate."""
    changes = changed(model, clean, corrupt, dictionaries)
    edits = [changes[node.dictionary].edit(node.component) for node in nodes]
    return effects(model, clean, edits, measure, rows=rows).moved


@dataclass(frozen=True, eq=False)
class Change:
    """From what the nodes of one dictionary are on clean inputs to what they are on others, or to zero."""

    dictionary: Dictionary
    clean: Trace
    other: Trace | None

    @property
    def site(self) -> Site:
        """Where the dictionary writes."""
        return written_site(self.dictionary).whole

    def effects(self, felt: Tensor) -> Float[Tensor, "batch nodes"]:
        """The change of every node times the gradient at the site, summed over places."""
        along_width = felt.movedim(self.site.width_axis, -1)
        directions = rank_one(self.dictionary)
        by_latent = -effect_of(self.clean.codes(self.dictionary), along_width, directions)
        by_error = -error_of(self.dictionary, self.clean)
        if self.other is not None:
            by_latent += effect_of(self.other.codes(self.dictionary), along_width, directions)
            by_error = by_error + error_of(self.dictionary, self.other)
        return torch.cat([by_latent, (felt * by_error).flatten(1).sum(1, keepdim=True)], 1)

    def at(self, share: float) -> Edit:
        """The whole site, this share of the way."""
        x, dictionary = self.clean[self.site], self.dictionary
        if self.other is None:
            nothing = dictionary.decode(self.clean.codes(dictionary).scaled(x.new_zeros(len(dictionary))))
            end = nothing.movedim(-1, self.site.width_axis)
        else:
            end = self.other[self.site]
        return patch(self.site, Trace(self.clean.inputs, {self.site.name: torch.lerp(x, end, share)}))

    def edit(self, component: int | None) -> Edit:
        """One node alone with its other value."""
        if component is None:
            return swap_error(self.dictionary, self.other)
        return (
            ablate(self.dictionary[component]) if self.other is None else swap(self.dictionary[component], self.other)
        )

    def all_but(self, kept: Sequence[int | None]) -> list[Edit]:
        """Every node with its other value, but for those kept."""
        leave = torch.zeros(len(self.dictionary), device=self.clean[self.site].device)
        leave[[i for i in kept if i is not None]] = 1.0
        latents = (
            masked(self.dictionary, leave) if self.other is None else swap_all(self.dictionary, self.other, 1 - leave)
        )
        return [latents] if None in kept else [latents, swap_error(self.dictionary, self.other)]


@torch.no_grad()
def changed(model: Model, clean: Inputs, corrupt: Inputs | None, dictionaries: Sequence[Dictionary]) -> list[Change]:
    """What each dictionary's nodes are on the two kinds of inputs."""
    if not dictionaries:
        raise Refusal("a feature circuit needs at least one dictionary")
    refuse_unlike(clean, corrupt)
    sites = list(dict.fromkeys(s.whole for d in dictionaries for s in (*d.reads, written_site(d))))
    here = model.run(clean, read=sites)
    there = None if corrupt is None else model.run(corrupt, read=sites)
    return [Change(d, here, there) for d in dictionaries]


def refuse_unlike(clean: Inputs, corrupt: Inputs | None) -> None:
    """Raises Refusal for corrupt rows that are not, place by place, the clean ones'."""
    if corrupt is None:
        return
    if len(clean) != len(corrupt):
        raise Refusal(f"{len(clean)} clean rows and {len(corrupt)} corrupt ones do not pair up; give as many")
    if isinstance(clean, Tokens) and isinstance(corrupt, Tokens) and not torch.equal(clean.mask, corrupt.mask):
        raise Refusal(
            f"rows of {clean.lengths.tolist()} clean and {corrupt.lengths.tolist()} corrupt tokens are not alike place "
            "by place; give pairs of equal length with the same padding, or no corrupt inputs (zero)"
        )


def rank_one(dictionary: Dictionary) -> Float[Tensor, "components d"]:
    """The direction that each component writes. Raises Refusal for components that write several."""
    write = dictionary.directions().write.detach()
    if write.shape[1] != 1:
        raise Refusal(
            f"components of {type(dictionary).__name__} write subspaces of rank {write.shape[1]}, and a node of a "
            "feature circuit writes one direction; swap them (circuits.interchange) one by one"
        )
    return write[:, 0]


def effect_of(
    codes: Codes, felt: Float[Tensor, "batch *places d"], directions: Float[Tensor, "components d"]
) -> Float[Tensor, "batch components"]:
    """Activity times the gradient along each component's direction, summed over places. Codes are not made dense."""
    flat = felt.reshape(-1, felt.shape[-1])
    found = flat.new_zeros(len(felt), codes.width)
    places = max(1, len(flat) // len(felt))
    for rows, components, values in zip(*(part.detach().split(ENTRIES) for part in codes.entries()), strict=True):
        each = values * (flat[rows] * directions[components]).sum(-1)
        found.index_put_((rows // places, components), each, accumulate=True)
    return found


# ---------------------------------------------------------------- effects of edges


def edge_effects(
    model: Model,
    clean: Inputs,
    corrupt: Inputs | None,
    upstream: Dictionary,
    downstream: Dictionary,
    measure: Measure,
    nodes: Sequence[int | None],
    *,
    stop: Sequence[Site] = (),
) -> Float[Tensor, "nodes batch up_nodes"]:
    """How far each upstream node moves the measure by way of each of some downstream nodes (section 3.2).

    It is the measure's gradient at the downstream node, times the gradient of that node at the upstream one, times the
    upstream node's change. Gradients pass no site of `stop`, so what is left goes directly. One backward pass a node.
    Raises Refusal where there is no way between the two.
    """
    changes = changed(model, clean, corrupt, [upstream, downstream])
    found = edges_between(model, changes[0], changes[1], measure, nodes, stop)
    if found is None:
        passing = f" without passing {', '.join(map(str, stop))}" if stop else ""
        raise Refusal(f"nothing goes from {changes[0].site} to {changes[1].site}{passing}; name the earlier site first")
    return found


def edges_between(
    model: Model, up: Change, down: Change, measure: Measure, nodes: Sequence[int | None], stop: Sequence[Site]
) -> Float[Tensor, "nodes batch up_nodes"] | None:
    felt = gradients(model, up.clean.inputs, measure, [down.site])[down.site]
    with torch.enable_grad():
        read = dict.fromkeys([up.site, down.site, *(s.whole for s in down.dictionary.reads)])
        edits = [function(s, torch.Tensor.detach) for s in stop]
        trace = model.run(up.clean.inputs, read=list(read), edit=edits, leaves=[up.site])
        start, values = trace[up.site], [node_value(down, trace, node, felt) for node in nodes]
        pulled = [
            torch.autograd.grad(v, start, retain_graph=True, allow_unused=True)[0] if v.requires_grad else None
            for v in values
        ]
    if values and all(p is None for p in pulled):
        return None
    width = len(up.dictionary) + 1
    empty = felt.new_zeros(len(felt), width)
    rows = [empty if p is None else up.effects(p) for p in pulled]
    return torch.stack(rows) if rows else felt.new_zeros(0, len(felt), width)


def node_value(change: Change, trace: Trace, node: int | None, felt: Tensor) -> Float[Tensor, ""]:
    """What a node writes along the gradient of the measure, which is held fixed."""
    if node is None:
        return (felt * error_of(change.dictionary, trace)).sum()
    weight = felt.movedim(change.site.width_axis, -1) @ rank_one(change.dictionary)[node]
    return (weight * trace.codes(change.dictionary).of(node)).sum()
