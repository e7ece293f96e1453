"""What a small change at each site would do to a measure."""

from collections.abc import Sequence

import torch

from microtome.core.edit import Edit
from microtome.core.errors import Refusal
from microtome.core.inputs import Inputs
from microtome.core.measure import Measure
from microtome.core.model import Model
from microtome.core.site import Site
from microtome.core.trace import Trace


@torch.enable_grad()
def gradients(
    model: Model, inputs: Inputs, measure: Measure, sites: Sequence[Site], *, edit: Sequence[Edit] = ()
) -> Trace:
    """The gradient of the measure, summed over rows, at each site: d measure / d site, of the site's own shape.

    Raises Refusal where the measure does not depend on a site (it lies downstream, say).
    """
    whole = [site.whole for site in sites]
    trace = model.run(inputs, read=[*whole, *measure.reads], edit=edit, leaves=whole)
    total = measure(trace).sum()
    starts = [trace[s] for s in whole]
    found = torch.autograd.grad(total, starts, allow_unused=True) if total.requires_grad else [None] * len(starts)
    for site, gradient in zip(sites, found, strict=True):
        if gradient is None:
            raise Refusal(
                f"{measure.label} does not depend on {site}: it comes after what is measured, or its gradient stops"
            )
    values = {s.name: g.detach() for s, g in zip(whole, found, strict=True) if g is not None}
    return Trace(inputs, values, {s.name: s for s in whole})
