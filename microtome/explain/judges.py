"""Who has read an explanation and says what it makes him expect: a rule as it stands, or a language model.

The scorers are written once, for both. A rule answers by itself: it holds on a token or not, for nothing.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float

from microtome.explain.conditions import Reading, Rule
from microtome.explain.passages import Passages


@runtime_checkable
class Judge(Protocol):
    """One who knows one explanation, and nothing else of the component."""

    def simulate(self, passages: Passages) -> Float[np.ndarray, "passages length"]:
        """How active the component will be on every token, in any unit."""
        ...

    def fires(self, passages: Passages) -> Float[np.ndarray, "passages"]:
        """How likely it is, from 0 to 1, that the component fires anywhere in each passage."""
        ...

    def fits(self, passages: Passages, marks: Bool[np.ndarray, "passages length"]) -> Float[np.ndarray, "passages"]:
        """How likely it is, from 0 to 1, that the marked tokens of each passage are those on which it fires."""
        ...


@dataclass(frozen=True)
class RuleJudge:
    """A rule: it expects the component to fire where it holds, as strongly everywhere."""

    rule: Rule
    reading: Reading

    def simulate(self, passages: Passages) -> Float[np.ndarray, "passages length"]:
        places = passages.places
        return self.rule.holds(self.reading, places.ravel()).reshape(places.shape).astype(np.float64)

    def fires(self, passages: Passages) -> Float[np.ndarray, "passages"]:
        return self.simulate(passages).max(1, initial=0)

    def fits(self, passages: Passages, marks: Bool[np.ndarray, "passages length"]) -> Float[np.ndarray, "passages"]:
        """The share of marked tokens on which the rule holds."""
        return (self.simulate(passages) * marks).sum(1) / np.maximum(1, marks.sum(1))
