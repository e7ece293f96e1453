"""What patching each place would do, estimated from gradients: all places at once, for the price of a few passes.

    attribution patching    (there - here) . d measure / d here                      first order
    integrated gradients    (there - here) . mean of d measure along the way         exact in sum as steps grow

Nanda 2023, Attribution Patching; Sundararajan et al. 2017 (arXiv 1703.01365).
"""

# pyright: reportUnknownMemberType=false

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.component import Dictionary
from microtome.core.edit import fill, written_site
from microtome.core.errors import Refusal
from microtome.core.gradients import gradients
from microtome.core.inputs import Inputs, Tokens
from microtome.core.measure import Measure
from microtome.core.model import Model
from microtome.core.replacements import padded_otherwise
from microtome.core.site import Site
from microtome.core.trace import Trace


def attribution_patching(model: Model, here: Inputs, there: Inputs, measure: Measure, sites: Sequence[Site]) -> Trace:
    """What the measure would gain, to first order, if each entry of each site were as in the other run.

    Of each site's own shape; `summed` gives it by head or position. Padding counts for nothing.
    """
    now, then = both(model, here, there, sites)
    slopes = gradients(model, here, measure, sites)
    return Trace(
        here, {s.name: change(now, then, s) * slopes[s.whole] for s in sites}, {s.name: s.whole for s in sites}
    )


def integrated_gradients(
    model: Model, here: Inputs, there: Inputs, measure: Measure, sites: Sequence[Site], *, steps: int = 16
) -> Trace:
    """The same with gradients averaged over midpoints of the way of each site, taken alone.

    Of one site the entries sum to what patching all of it does (completeness), up to an error that falls with the
    square of `steps`. Costs `steps` passes for each site.
    """
    if steps < 1:
        raise Refusal(f"a path of {steps} steps has no points; give at least 1")
    now, then = both(model, here, there, sites)
    found = {}
    for site in (s.whole for s in sites):
        way = [torch.lerp(now[site], then[site], (i + 0.5) / steps) for i in range(steps)]
        slopes = [gradients(model, here, measure, [site], edit=[fill(site, x)])[site] for x in way]
        found[site.name] = change(now, then, site) * torch.stack(slopes).mean(0)
    return Trace(here, found, {s.name: s.whole for s in sites})


def attributed_components(
    model: Model, here: Inputs, there: Inputs, measure: Measure, dictionary: Dictionary
) -> Float[Tensor, "... components"]:
    """What the measure would gain, to first order, if each component wrote what it wrote in the other run."""
    site = written_site(dictionary)
    now, then = both(model, here, there, dictionary.reads)
    slopes = gradients(model, here, measure, [site])[site].movedim(site.width_axis, -1)
    changed = then.codes(dictionary).dense() - now.codes(dictionary).dense()
    felt = torch.einsum("...d,crd->...c", slopes, dictionary.directions().write.to(slopes))
    return real(changed * felt, here, site)


@torch.no_grad()
def both(model: Model, here: Inputs, there: Inputs, sites: Sequence[Site]) -> tuple[Trace, Trace]:
    """Both runs at these sites. Raises Refusal where rows or padding differ."""
    if padded_otherwise(here, there) or len(here) != len(there):
        raise Refusal(
            "the two runs have other rows, or padding; attribution compares place by place, so pad both alike"
        )
    whole = [site.whole for site in sites]
    return model.run(here, read=whole), model.run(there, read=whole)


def change(now: Trace, then: Trace, site: Site) -> Tensor:
    """How far a site is from one run to the other, nought where there is padding."""
    return real(then[site.whole] - now[site.whole], now.inputs, site)


def real(x: Tensor, inputs: Inputs, site: Site) -> Tensor:
    """Nothing at padding."""
    if not isinstance(inputs, Tokens):
        return x
    for i, axis in enumerate(site.axes.split()):
        if axis in ("pos", "query", "key"):
            shape = [len(inputs), *(inputs.mask.shape[1] if j == i else 1 for j in range(1, x.ndim))]
            x = torch.where(inputs.mask.view(shape), x, 0)
    return x


def summed(found: Trace, site: Site, *axes: str) -> Float[Tensor, "batch ..."]:
    """A site's attribution by row and these of its axes."""
    own = site.axes.split()
    unknown = [axis for axis in axes if axis not in own]
    if unknown:
        raise Refusal(f"site {site.name!r} has the axes {site.axes!r}, and no {unknown[0]!r}")
    gone = [i for i, axis in enumerate(own) if axis != "batch" and axis not in axes]
    return found[site.whole].sum(gone) if gone else found[site.whole]
