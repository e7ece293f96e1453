"""Are the same features and the same heads found in networks that were trained apart?

Units of two networks are compared by what they do on the same inputs: the correlation of their activity over all rows.
As any two sets of units have some likeness by chance, and as activations lie in few directions, likeness is held
against a rotation null: the same comparison with the other network's units turned by a random rotation, which keeps
everything about them but which axes they are. A unit is universal where it exceeds that. Gurnee et al. 2024,
Universal Neurons in GPT2 Language Models (arXiv 2401.12181); on the claim, Olah et al. 2020, Zoom In.
"""

# pyright: reportUnknownMemberType=false

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from microtome.core.errors import Refusal
from microtome.core.inputs import Inputs, Tokens
from microtome.core.matching import Matches, nearest, paired
from microtome.core.model import Model
from microtome.core.site import Site

INTERVAL = (0.025, 0.975)
Activity = Float[Tensor, "rows units"]
Others = Float[Tensor, "others_rows others"]  # of the other network; as many rows, or it is refused


class Share(NamedTuple):
    """A number for a whole network, with the interval of 95% that other units of its kind would give."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.2f} ({self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True, eq=False)
class Universality:
    """How like each unit of one network is to the most like one of another, and to the most like rotated one.

    `matches` pairs units one to one, the most alike first.
    """

    alike: Float[Tensor, "units"]
    by_rotation: Float[Tensor, "rotations units"]
    matches: Matches

    @property
    def excess(self) -> Float[Tensor, "units"]:
        """Correlation beyond the mean over rotations: what there is in common that is not in all directions alike."""
        return self.alike - self.by_rotation.mean(0)

    @property
    def universal(self) -> Bool[Tensor, "units"]:
        """Units more like one of the other network than 97.5% of all rotated comparisons are."""
        return self.alike > self.by_rotation.flatten().quantile(INTERVAL[1])

    def share(self, generator: torch.Generator, *, samples: int = 1000) -> Share:
        """The share of universal units; .025 of them would be so by chance."""
        return interval(self.universal.float(), generator, samples)

    def mean_excess(self, generator: torch.Generator, *, samples: int = 1000) -> Share:
        """The mean over units of what is above chance, with its 95% interval by resampling units."""
        return interval(self.excess, generator, samples)


def universality(
    first: Activity, second: Float[Tensor, "others_rows others"], generator: torch.Generator, *, rotations: int = 10
) -> Universality:
    """Compare units by their activity on the same rows. Raises Refusal where rows differ or are too few.

    Units that never change are like nothing: they correlate with nothing at 0.
    """
    refuse_other_rows(first, second)
    one, other = standardised(first), standardised(second)
    null = [nearest(one, standardised(rotated(second, generator))).cosines for _ in range(rotations)]
    return Universality(nearest(one, other).cosines, torch.stack(null), paired(one, other))


def refuse_other_rows(first: Activity, second: Others) -> None:
    """Raises Refusal for networks that were shown other rows, or fewer than 3."""
    if len(first) != len(second):
        raise Refusal(
            f"the one network was seen on {len(first)} rows and the other on {len(second)}; show both the same inputs"
        )
    if len(first) < 3:
        raise Refusal(f"correlations over {len(first)} rows say nothing; give at least 3")


def standardised(activity: Activity) -> Float[Tensor, "units rows"]:
    """What each unit did less its mean, at length 1: a product of two such vectors is a correlation."""
    centred = (activity - activity.mean(0)).T.float()
    return centred / centred.norm(dim=1, keepdim=True).clamp(min=1e-12)


def rotated(activity: Activity, generator: torch.Generator) -> Activity:
    """The same activity seen along other axes, turned about the mean by a rotation drawn evenly."""
    width = activity.shape[1]
    drawn = torch.randn(width, width, generator=generator, dtype=torch.float64)
    frame, upper = torch.linalg.qr(drawn)
    frame = frame * upper.diagonal().sign()  # without this the frames are not evenly spread
    return (activity - activity.mean(0)) @ frame.to(activity)


def interval(values: Float[Tensor, "units"], generator: torch.Generator, samples: int) -> Share:
    """The mean, and where it lies in 95% of resamples of the units."""
    drawn = torch.randint(len(values), (samples, len(values)), generator=generator).to(values.device)
    low, high = values[drawn].mean(1).quantile(torch.tensor(INTERVAL).to(values)).tolist()
    return Share(float(values.mean()), low, high)


# ---------------------------------------------------------------- what units do


@torch.no_grad()
def unit_activity(model: Model, inputs: Inputs, sites: Sequence[Site]) -> Activity:
    """What neurons or other axes of these sites are at every real place: one column a unit, site after site."""
    trace = model.run(inputs, read=sites)
    columns = [trace[site].movedim(site.width_axis, -1) for site in sites]
    if isinstance(inputs, Tokens):
        return torch.cat([x[inputs.mask] for x in columns], 1)
    return torch.cat([x.flatten(0, -2) for x in columns], 1)


@torch.no_grad()
def head_activity(model: Model, tokens: Tokens) -> Activity:
    """How much each head attends, at every pair of a query and an earlier or equal key: one column a head.

    Less the mean over heads, so that what all of them do is no likeness.
    """
    steps = tokens.positions[:, :, None] - tokens.positions[:, None]
    seen = tokens.mask[:, :, None] & tokens.mask[:, None] & (steps >= 0)
    patterns = [model.run(tokens, read=[site])[site].permute(0, 2, 3, 1)[seen] for site in model.sites("pattern.*")]
    together = torch.cat(patterns, 1)
    return together - together.mean(1, keepdim=True)


def beyond_the_token(activity: Activity, tokens: Tokens) -> Activity:
    """Less what each unit does on the mean at the same token and place.

    That much the input alone says, so units of any network share it, of an untrained one too; what is left is what they
    make of the context. Rows are the real places, in order. Tokens that stand once at a place leave 0.
    """
    both = torch.stack([tokens.ids[tokens.mask], tokens.positions[tokens.mask]], 1)
    _, group, counts = both.unique(dim=0, return_inverse=True, return_counts=True)
    sums = activity.new_zeros(len(counts), activity.shape[1]).index_add_(0, group, activity)
    return activity - (sums / counts[:, None])[group]
