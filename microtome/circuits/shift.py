"""SHIFT: take from a classifier the latents that carry a cue which it should not use, without new labels.

Marks et al. 2024, Sparse Feature Circuits (arXiv 2403.19647), section 4. A linear classifier reads activations of a
network, learned where the wanted label and a spurious cue always agree. The effects of latents on its verdict
(`circuits.feature_circuits`) say which it rests on; whoever knows what the latents mean says which of them are about
the cue; these are ablated in the network, and the classifier may be fitted again on what is then left.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from microtome.circuits.feature_effects import FeatureNode
from microtome.circuits.interchange import Accuracy
from microtome.core.component import Component, Dictionary
from microtome.core.edit import Edit, masked
from microtome.core.errors import Refusal
from microtome.core.inputs import Inputs, Tokens
from microtome.core.linear import Linear
from microtome.core.logistic import least_loss
from microtome.core.measure import Measure
from microtome.core.model import Model
from microtome.core.site import Site
from microtome.core.trace import Trace


@torch.no_grad()
def pooled(
    model: Model, inputs: Inputs, site: Site, edits: Sequence[Edit] = (), *, rows: int = 256
) -> Float[Tensor, "rows d"]:
    """The mean of a site over each row's real places: what a classifier reads."""
    parts = [slice(start, start + rows) for start in range(0, len(inputs), rows)]
    return torch.cat([mean_of(model.run(inputs.rows(p), read=[site.whole], edit=edits), site) for p in parts])


def mean_of(trace: Trace, site: Site) -> Float[Tensor, "rows d"]:
    """The mean of a site over each row's real places."""
    x = trace[site].movedim(site.width_axis, -1) if not site.where else trace[site]
    if isinstance(trace.inputs, Tokens) and x.shape[:-1] == trace.inputs.mask.shape:
        weight = trace.inputs.mask / trace.inputs.mask.sum(1, keepdim=True)
        return (x * weight[..., None]).sum(1)
    return x.flatten(1, -2).mean(1) if x.ndim > 2 else x


def classifier(
    site: Site, activations: Float[Tensor, "rows d"], labels: Bool[Tensor, "rows"], *, decay: float = 1e-2
) -> Component:
    """Logistic regression on pooled activations: a component that reads w . x + b at a site and writes nothing.

    Above zero its verdict is yes. `decay` is the weight of |w|^2 / 2 beside the mean loss in nats, with x in units of
    its mean size. Raises Refusal where all labels are one.
    """
    if labels.all() or not labels.any():
        raise Refusal(f"all {len(labels)} labels are {bool(labels[0])}; a classifier needs rows of both kinds")
    centre = activations.mean(0)
    size = (activations - centre).square().mean().sqrt().clamp(min=1e-12)
    share = activations.new_full((len(labels),), 1 / len(labels))
    wanted = labels[:, None].to(activations.dtype)
    weight, bias = least_loss((activations - centre) / size, wanted, share, decay=decay, steps=200)
    read = weight[:, 0] / size
    offset = centre - bias * read / read.square().sum().clamp(min=1e-12)
    return Linear(site, None, read[None], offset=offset).requires_grad_(False)[0]


def verdict(found: Component) -> Measure:
    """A classifier's logit on each row, pooled: what effects of latents are measured on."""
    site = found.dictionary.reads[0]
    return Measure(lambda t: found.activity(mean_of(t, site)), (site,), "verdict")


def without(dictionaries: Sequence[Dictionary], nodes: Iterable[FeatureNode]) -> list[Edit]:
    """Ablate latents, counted as in a feature circuit; all else stays, errors too. Raises Refusal for an error."""
    nodes = list(nodes)
    error = next((n for n in nodes if n.component is None), None)
    if error is not None:
        raise Refusal(f"node {error} is what a dictionary misses, which no one can judge; remove latents alone")
    chosen = [
        [n.component for n in nodes if n.dictionary == i and n.component is not None] for i in range(len(dictionaries))
    ]
    return [masked(d, mask_without(d, some)) for d, some in zip(dictionaries, chosen, strict=True) if some]


def mask_without(dictionary: Dictionary, components: Sequence[int]) -> Float[Tensor, "components"]:
    """1 for every component but these."""
    mask = dictionary.directions().write.new_ones(len(dictionary)).detach()
    mask[list(components)] = 0.0
    return mask


@dataclass(frozen=True, eq=False)
class Verdicts:
    """How often a classifier is right: over all rows, and in each group of them."""

    hits: Bool[Tensor, "rows"]
    groups: Int[Tensor, "rows"]

    @property
    def accuracy(self) -> Accuracy:
        """How often it is right, over all rows."""
        return Accuracy(self.hits)

    @property
    def by_group(self) -> dict[int, Accuracy]:
        """How often it is right in each group."""
        return {g: Accuracy(self.hits[self.groups == g]) for g in self.groups.unique().tolist()}

    @property
    def worst(self) -> Accuracy:
        """Of the group in which it is right least often."""
        return min(self.by_group.values(), key=lambda a: a.value)


def judged(
    found: Component,
    activations: Float[Tensor, "rows d"],
    labels: Bool[Tensor, "rows"],
    groups: Int[Tensor, "rows"] | None = None,
) -> Verdicts:
    """A classifier's verdicts on pooled activations beside labels: the wanted ones, or the cue's, to see which it uses.

    `groups` numbers the rows, as 2 * label + cue; without it all rows are one group.
    """
    hits = (found.activity(activations) > 0) == labels
    return Verdicts(hits, torch.zeros_like(labels, dtype=torch.long) if groups is None else groups)
