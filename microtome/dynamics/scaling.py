"""A loss as a power law of size, data or steps, with what no size removes: L(x) = scale x^-exponent + floor.

Kaplan et al. 2020 (arXiv 2001.08361); with a floor, Hoffmann et al. 2022 (arXiv 2203.15556).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from microtome.core.errors import Refusal

ROUNDS, GRID = 6, 60


class PowerLaw(NamedTuple):
    """`misfit` is the root mean square of the errors in log loss."""

    scale: float
    exponent: float
    floor: float
    misfit: float

    def __call__(self, x: float) -> float:
        return self.scale * x**-self.exponent + self.floor


def power_law(x: Sequence[float], loss: Sequence[float]) -> PowerLaw:
    """The law of least squared error in log loss. For a given floor it is a line in logarithms; the floor is searched.

    Raises Refusal for fewer than four points, or numbers that are not above 0.
    """
    if len(x) != len(loss) or len(set(x)) < 4 or min(*x, *loss) <= 0:
        raise Refusal(f"{len(set(x))} places do not determine a law of three constants; give 4 or more, all above 0")
    low, high = 0.0, min(loss)
    best = line(x, loss, 0.0)
    for _ in range(ROUNDS):
        floors = [low + (high - low) * i / GRID for i in range(GRID)]
        laws = [line(x, loss, floor) for floor in floors]
        place = min(range(GRID), key=lambda i: laws[i].misfit)
        best = min(best, laws[place], key=lambda law: law.misfit)
        low, high = floors[max(0, place - 1)], floors[place + 1] if place + 1 < GRID else high
    return best


def line(x: Sequence[float], loss: Sequence[float], floor: float) -> PowerLaw:
    """The best law with this floor, by least squares on the logarithm of what stands above it."""
    logs = torch.tensor([[1.0, math.log(v)] for v in x], dtype=torch.float64)
    above = torch.tensor([math.log(v - floor) for v in loss], dtype=torch.float64)
    weight = torch.tensor([(v - floor) / v for v in loss], dtype=torch.float64)  # of log(L - floor), in log L
    fitted = torch.linalg.lstsq(logs * weight[:, None], (above * weight)[:, None]).solution[:, 0]
    predicted = (logs @ fitted).exp() + floor
    errors = predicted.log() - torch.tensor(loss, dtype=torch.float64).log()
    return PowerLaw(math.exp(float(fitted[0])), -float(fitted[1]), floor, float(errors.square().mean().sqrt()))
