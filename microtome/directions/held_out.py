"""How well a direction tells two kinds of examples apart where it was not found, beside what tells nothing.

Examples of one group (one text, one entity) are all learned from or all judged. Every group is judged once, by a
direction found on the others (cross-validation); intervals draw groups with replacement. Controls are found and judged
in the same way: labels shuffled between examples say what the method finds where there is nothing to find (Hewitt &
Liang 2019, arXiv 1909.03368), Gaussian features of the same covariance what so many dimensions find by chance.
"""

# pyright: reportUnknownMemberType=false

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from microtome.core.area import area
from microtome.core.errors import Refusal
from microtome.directions.contrast import Contrast, Finder

RESAMPLES = 1000
SHUFFLES = 20
ENDS = (0.025, 0.975)


class Between(NamedTuple):
    """A figure, and between what it lies in 95% of the draws."""

    found: float
    low: float
    high: float


@dataclass(frozen=True)
class Judged:
    """How often an example is put on the right side of the middle, and how often a positive one above a negative one
    (area under the ROC curve); and the area with labels shuffled and with features that hold nothing."""

    accuracy: Between
    area: Between
    shuffled: Between
    random_features: Between
    examples: int
    groups: int


def judged(
    x: Float[Tensor, "examples d"],
    has: Bool[Tensor, "examples"],
    groups: Int[Tensor, "examples"],
    find: Finder,
    *,
    folds: int = 5,
    generator: torch.Generator,
    shuffles: int = SHUFFLES,
) -> Judged:
    """A finder's figures by cross-validation over groups. Of each control there are so many draws (`shuffles`).

    Raises Refusal for fewer groups than folds, and where what is learned from in some fold is all of one kind.
    """
    parts = list(split(groups, folds, generator))
    said = scores(x, has, parts, find)
    draws = group_draws(groups, generator)
    right = ((said > 0) == has).double()
    return Judged(
        accuracy=between((draws @ right) / draws.sum(1), float(right.mean())),
        area=between(area(said, has, draws), float(area(said, has))),
        shuffled=control([shuffled(x, has, parts, find, generator) for _ in range(shuffles)]),
        random_features=control([unrelated(x, has, parts, find, generator) for _ in range(shuffles)]),
        examples=len(x),
        groups=int(groups.unique().numel()),
    )


def split(
    groups: Int[Tensor, "examples"], folds: int, generator: torch.Generator
) -> Iterator[Bool[Tensor, "examples"]]:
    """Which examples each fold judges: whole groups, in random order."""
    names, place = groups.unique(return_inverse=True)
    if not 2 <= folds <= len(names):
        raise Refusal(
            f"{len(names)} groups cannot be split into {folds} folds; give 2 to {len(names)} folds, or more groups"
        )
    fold = torch.arange(len(names))[torch.randperm(len(names), generator=generator)] % folds
    return (fold[place] == i for i in range(folds))


def scores(
    x: Float[Tensor, "examples d"], has: Bool[Tensor, "examples"], parts: list[Tensor], find: Finder
) -> Float[Tensor, "examples"]:
    """Of every example, how far it lies beyond the middle, in units of half the distance between the two means, along a
    direction that was found without its group."""
    said = torch.zeros(len(x), dtype=x.dtype)
    for judges in parts:
        contrast = Contrast.of(x[~judges], has[~judges])
        direction = find(contrast)
        half = (contrast.difference @ direction).abs().clamp(min=torch.finfo(x.dtype).tiny) / 2
        said[judges] = (x[judges] - contrast.middle) @ direction / half
    return said


def shuffled(
    x: Tensor, has: Bool[Tensor, "examples"], parts: list[Tensor], find: Finder, generator: torch.Generator
) -> float:
    """The area where labels were exchanged between examples before anything was learned."""
    other = has[torch.randperm(len(has), generator=generator)]
    return float(area(scores(x, other, parts, find), other))


def unrelated(
    x: Float[Tensor, "examples d"], has: Tensor, parts: list[Tensor], find: Finder, generator: torch.Generator
) -> float:
    """The area where features are Gaussian, of the same covariance, and know nothing of the label."""
    variance, axes = torch.linalg.eigh(torch.cov(x.T.double()).view(x.shape[1], x.shape[1]))
    drawn = torch.randn(x.shape, generator=generator, dtype=torch.float64) * variance.clamp(min=0).sqrt()
    return float(area(scores((drawn @ axes.T).to(x.dtype), has, parts, find), has))


def group_draws(
    groups: Int[Tensor, "examples"], generator: torch.Generator, resamples: int = RESAMPLES
) -> Float[Tensor, "draws examples"]:
    """How often each example counts when as many groups as there are have been drawn with replacement."""
    names, place = groups.unique(return_inverse=True)
    drawn = torch.randint(len(names), (resamples, len(names)), generator=generator)
    times = torch.zeros(resamples, len(names), dtype=torch.float64)
    return times.scatter_add_(1, drawn, torch.ones_like(drawn).double())[:, place]


def between(draws: Float[Tensor, "draws"], found: float) -> Between:
    low, high = draws[draws.isfinite()].quantile(draws.new_tensor(ENDS)).tolist()
    return Between(found, low, high)


def control(draws: list[float]) -> Between:
    """The mean of a control's draws, and between what 95% of single ones lie."""
    found = torch.tensor(draws, dtype=torch.float64)
    return between(found, float(found.mean()))
