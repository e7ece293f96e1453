"""What to change, and where: named values that can be listed, batched and saved. This is how they are said.

replacements   patch  fill  zero  splice  function
deltas         add  ablate  scale  clamp  project_out  masked
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.component import Component, Dictionary
from microtome.core.deltas import Add, Clamp, Masked, ProjectOut, Scale
from microtome.core.editing import Edit
from microtome.core.errors import Refusal
from microtome.core.replacements import Fill, Function, Patch, Splice
from microtome.core.site import Site
from microtome.core.trace import Trace


def patch(site: Site, source: Trace) -> Edit:
    """Put here what was here in another run (activation patching, interchange intervention)."""
    return Patch(site, source)


def fill(site: Site, value: Float[Tensor, "..."]) -> Edit:
    """Put a fixed value here: a mean over data for mean ablation."""
    return Fill(site, value)


def zero(site: Site) -> Edit:
    """Zero ablation."""
    return Fill(site, torch.zeros(()))


def splice(dictionary: Dictionary, *, mask: Float[Tensor, "components"] | None = None) -> Edit:
    """Let a dictionary's reconstruction stand in for the network, its error dropped."""
    return Splice(written_site(dictionary), dictionary, mask)


def masked(dictionary: Dictionary, mask: Float[Tensor, "components"]) -> Edit:
    """Scale what each component writes, the dictionary's error kept."""
    return Masked(written_site(dictionary), dictionary, mask)


def function(site: Site, change: Callable[[Tensor], Tensor]) -> Edit:
    """Any function of what arrives here. It cannot be saved."""
    return Function(site, change)


def add(what: Component | Float[Tensor, "d"], strength: float, site: Site | None = None) -> Edit:
    """Add a component's direction, or a vector at a site, `strength` times over (steering)."""
    if isinstance(what, Component):
        return Add(site or written_site(what.dictionary), what.direction, strength, str(what))
    if site is None:
        raise Refusal("a vector alone does not say where: add(vector, strength, site)")
    return Add(site, what, strength)


def ablate(component: Component) -> Edit:
    """Take away what a component writes. The same line for a neuron, a latent, a part of a weight or a probe."""
    return Scale(written_site(component.dictionary), component, 0.0)


def scale(component: Component, by: float) -> Edit:
    """Make what a component writes `by` times as large."""
    return Scale(written_site(component.dictionary), component, by)


def clamp(component: Component, to: float) -> Edit:
    """Set a component's activity, keeping the dictionary's error."""
    return Clamp(written_site(component.dictionary), component, to)


def project_out(direction: Float[Tensor, "d"], site: Site) -> Edit:
    """Remove a direction from a site."""
    return ProjectOut(site, direction)


def written_site(dictionary: Dictionary) -> Site:
    """The one site that a dictionary writes at. Raises Refusal where there is none, or several."""
    if not dictionary.writes:
        raise Refusal(f"{type(dictionary).__name__} writes nothing, so it can be read but not edited")
    first, *others = dictionary.writes
    if others:
        raise Refusal(
            f"{type(dictionary).__name__} writes at {len(dictionary.writes)} sites; choose one with `OneSite`"
        )
    return first
