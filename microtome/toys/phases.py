"""When is a feature worth a dimension? Phase diagrams of the smallest toys, learned and in closed form.

Elhage et al. 2022, Toy Models of Superposition: the last of n features, in n - 1 dimensions, has an importance of its
own; the others have one. By importance and density it is left out, shares a dimension with another, or has its own.
The loss is not sampled here: it is a weighted sum over which features are on and a grid of their values.
"""

from itertools import product
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from microtome.core.fit import fit
from microtome.core.schedule import Linear
from microtome.toys.geometry import dimensionality, live
from microtome.toys.superposition import Superposition
from microtome.toys.toy import Imitation

LEFT_OUT, SHARED, OWN = range(3)
PHASES = ("left out", "in superposition", "a dimension of its own")


class Grid(NamedTuple):
    """Every pair of an importance of the last feature and a density (the probability that a feature is on)."""

    importance: Float[Tensor, "columns"]
    density: Float[Tensor, "rows"]

    def cells(self) -> tuple[Float[Tensor, "cells"], Float[Tensor, "cells"]]:
        """Importance and density of each cell, row by row."""
        importance, density = torch.meshgrid(self.importance, self.density, indexing="xy")
        return importance.flatten(), density.flatten()

    def phases(self, of_cells: Int[Tensor, "cells"]) -> Int[Tensor, "rows columns"]:
        """The phase of each cell, by density and importance."""
        return of_cells.unflatten(0, (len(self.density), len(self.importance)))


def log_grid(size: int) -> Grid:
    """`size` by `size` cells, even in the logarithm: importance .1 to 10, density .01 to 1; these are their middles."""
    middles = (torch.arange(size) + 0.5) / size
    return Grid(0.1 * 100**middles, 0.01 * 100**middles)


# ---------------------------------------------------------------- in closed form


def closed_form(
    features: int, importance: Float[Tensor, "cells"], density: Float[Tensor, "cells"]
) -> Int[Tensor, "cells"]:
    """The phase whose loss is least, weights being 0 and ±1.

    A feature left out costs its variance, p/3 - p²/4, times its importance. Two that share a dimension as opposites
    cost when both are on, each the square of the smaller one: p²/6 times the sum of their importances.
    """
    alone = density / 3 - density.pow(2) / 4
    pair = density.pow(2) / 6
    others = alone.minimum(2 * pair) if features > 2 else alone  # what it costs the rest to make room
    losses = torch.stack([importance * alone, (1 + importance) * pair, others])
    return losses.argmin(0)


# ---------------------------------------------------------------- learned


def learned(
    features: int,
    importance: Float[Tensor, "cells"],
    density: Float[Tensor, "cells"],
    *,
    generator: torch.Generator,
    restarts: int = 10,
    steps: int = 300,
    fineness: int = 8,
) -> Int[Tensor, "cells"]:
    """The phase of the network of least loss among so many that began anew, for each cell; all learn in one program."""
    rows = points(features, fineness)
    weights = chances(rows, density, fineness)
    weighed = torch.ones(len(importance), 1, features)
    weighed[:, 0, -1] = importance
    weighed = (weights[..., None] * weighed * len(rows)).repeat(restarts, 1, 1)
    toy = Superposition(features, features - 1, generator=generator, seeds=len(weighed))
    for _ in fit(toy, [rows] * steps, Imitation(weighed), lr=0.03, schedule=Linear(steps // 2, steps)):
        pass
    with torch.no_grad():
        losses = (weighed * (toy(rows) - rows).pow(2)).sum((-2, -1)).unflatten(0, (restarts, -1))
    best = losses.argmin(0)
    kept = toy.encoder.detach().unflatten(0, (restarts, -1))[best, torch.arange(len(best))]
    return phase(kept)


def points(features: int, fineness: int) -> Float[Tensor, "points features"]:
    """Every set of features that may be on, each of these at the middle of each of `fineness` stretches of [0, 1]."""
    values = [0.0, *((k + 0.5) / fineness for k in range(fineness))]
    return torch.tensor(list(product(values, repeat=features)))


def chances(
    rows: Float[Tensor, "points features"], density: Float[Tensor, "cells"], fineness: int
) -> Float[Tensor, "cells points"]:
    """The probability of each point where each feature is on with this density."""
    on = (rows > 0).sum(1)
    density = density[:, None]
    return (density / fineness).pow(on) * (1 - density).pow(rows.shape[1] - on)


def phase(weight: Float[Tensor, "cells hidden features"]) -> Int[Tensor, "cells"]:
    """What became of the last feature: left out below a norm of a half, alone above three quarters of a dimension."""
    held = live(weight)[:, -1]
    own = dimensionality(weight * live(weight)[:, None])[:, -1] > 0.75
    return torch.where(held, torch.where(own, OWN, SHARED), LEFT_OUT)


# ---------------------------------------------------------------- beside one another


def borders(phases: Int[Tensor, "rows columns"]) -> Bool[Tensor, "rows columns"]:
    """The cells that have a neighbour, above, below or beside, of another phase."""
    found = torch.zeros_like(phases, dtype=torch.bool)
    for axis in (0, 1):
        size = phases.shape[axis] - 1
        differ = phases.narrow(axis, 0, size) != phases.narrow(axis, 1, size)
        found.narrow(axis, 0, size).logical_or_(differ)
        found.narrow(axis, 1, size).logical_or_(differ)
    return found


def within_one(these: Bool[Tensor, "rows columns"], those: Bool[Tensor, "rows columns"]) -> float:
    """The share of these cells that are, or touch by a side or a corner, one of those. Without any of these it is 1."""
    near = F.max_pool2d(those[None].float(), 3, stride=1, padding=1)[0] > 0
    return near[these].float().mean().item() if these.any() else 1.0
