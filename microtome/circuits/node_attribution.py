"""What each head and each MLP does to a measure, estimated from gradients.

    score(u) = mean over points of <u(corrupt) - u(clean), d measure / d u>

summed over real positions: what the measure would gain if u alone wrote what it writes after the corrupt prompt. With
`steps` the gradients are averaged along the way from the clean embedding to the corrupt one (Hanna et al. 2024, Have
Faith in Faithfulness, arXiv 2403.17806); without, they are those at the clean prompt.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.circuits.attribution import both, change, summed
from microtome.circuits.games import node_sites, refuse_unaligned
from microtome.circuits.gradient_paths import midpoints
from microtome.core.edit import fill
from microtome.core.gradients import gradients
from microtome.core.inputs import Inputs
from microtome.core.measure import Measure
from microtome.core.model import Resumable
from microtome.core.trace import Trace


def node_attribution(
    model: Resumable, clean: Inputs, corrupt: Inputs, measure: Measure, *, steps: int = 0
) -> Float[Tensor, "pairs units"]:
    """Scores of the units of a `NodeGame`, in its order, for every pair. Costs a pass for each step, at least one.

    Raises Refusal where the prompts are not aligned, or the measure does not depend on a head or an MLP.
    """
    refuse_unaligned(clean, corrupt)
    sites, start = node_sites(model), model.site("resid_pre.0")
    here, there = both(model, clean, corrupt, [start, *sites])
    ways = [torch.lerp(here[start], there[start], part) for part in midpoints(steps)] if steps else [here[start]]
    felt = [gradients(model, clean, measure, sites, edit=[fill(start, way)] if steps else []) for way in ways]
    slopes = {s.name: torch.stack([point[s] for point in felt]).mean(0) for s in sites}
    found = Trace(clean, {s.name: change(here, there, s) * slopes[s.name] for s in sites}, {s.name: s for s in sites})
    each = [summed(found, s, "head") if "head" in s.axes.split() else summed(found, s)[:, None] for s in sites]
    return torch.cat(each, 1)
