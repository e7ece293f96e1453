"""Counter-examples: text where the explanation foretells the component, and the component is silent.

And its opposite, what the explanation misses: the component fires as strongly as anywhere and nothing was foretold.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from microtome.explain.passages import Drawn, Passages

MOST = 5


@dataclass(frozen=True)
class CounterExamples:
    """The passages that speak most against an explanation: where it was wrong to expect, and wrong not to."""

    silent: Passages  # foretold, the surest first, and exactly silent
    missed: Passages  # firing, the strongest first, and not foretold


def counter_examples(said: Float[np.ndarray, "passages"], drawn: Drawn, most: int = MOST) -> CounterExamples:
    """From what was `foretold` of the firing and then the silent passages."""
    unexpected, expected = np.split(said, [len(drawn.firing)])
    sure = np.argsort(-expected, kind="stable")
    strong = np.argsort(-drawn.firing.active.max(1, initial=0), kind="stable")
    return CounterExamples(
        drawn.silent.some(sure[expected[sure] >= 0.5][:most]),
        drawn.firing.some(strong[unexpected[strong] < 0.5][:most]),
    )
