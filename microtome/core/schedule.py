"""How a number changes while something learns: a factor for every step, as a value that can be printed and compared.

WarmUp(1000) * Linear(8000, 10_000)      rises to 1, stays there, falls to 0 over the last 2000 steps
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from microtome.core.errors import Refusal


class Schedule(ABC):
    """A factor for each step, counted from 0. Two of them multiply."""

    @abstractmethod
    def __call__(self, step: int) -> float:
        """The factor at this step."""

    def __mul__(self, other: "Schedule") -> "Schedule":
        return Product(self, other)


@dataclass(frozen=True)
class Product(Schedule):
    """The one factor times the other."""

    first: Schedule
    second: Schedule

    def __call__(self, step: int) -> float:
        return self.first(step) * self.second(step)


@dataclass(frozen=True)
class WarmUp(Schedule):
    """(step + 1) / steps, then 1: the first step already moves. With 0 steps it is 1 from the start."""

    steps: int

    def __call__(self, step: int) -> float:
        return min(1.0, (step + 1) / self.steps) if self.steps else 1.0


@dataclass(frozen=True)
class Decay(Schedule, ABC):
    """1 until `start`, then down to `last`, reached at `stop` and kept. Raises Refusal for a stop before that."""

    start: int
    stop: int
    last: float = 0.0

    def __post_init__(self):
        if self.stop <= self.start:
            raise Refusal(f"a decay from step {self.start} to {self.stop} takes no time; let stop be after start")

    @abstractmethod
    def left(self, share: float) -> float:
        """How much of the fall is left after this share of its time."""

    def __call__(self, step: int) -> float:
        share = min(1.0, max(0.0, (step - self.start) / (self.stop - self.start)))
        return self.last + (1 - self.last) * self.left(share)


@dataclass(frozen=True)
class Linear(Decay):
    """Falls along a line."""

    def left(self, share: float) -> float:
        return 1 - share


@dataclass(frozen=True)
class Cosine(Decay):
    """Falls along half a wave of a cosine: slowly, fast, slowly.  Loshchilov and Hutter 2017, arXiv 1608.03983."""

    def left(self, share: float) -> float:
        return (1 + math.cos(math.pi * share)) / 2
