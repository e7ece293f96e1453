"""Detection: which passages hold the component? Paulo et al. 2024, Automatically Interpreting Millions of Features.

(arXiv 2410.13928.) As many passages fire as are silent, silent meaning exactly zero on every token (a common benchmark
takes random text for silent and never looks). Balanced accuracy: a sentence that knows nothing scores 1/2.
"""

import numpy as np
from jaxtyping import Float

from microtome.explain.grades import Grade, area, balanced_accuracy, graded
from microtome.explain.judges import Judge
from microtome.explain.passages import Drawn

NAME, CHANCE = "detection", 0.5


def foretold(judge: Judge, drawn: Drawn) -> Float[np.ndarray, "passages"]:
    """How likely the judge thinks the firing and then the silent passages are to fire: asked once, used twice."""
    return judge.fires(drawn.firing + drawn.silent)


def detection(said: Float[np.ndarray, "passages"], drawn: Drawn, generator: np.random.Generator) -> Grade:
    """From what was `foretold`."""
    true = np.arange(len(said)) < len(drawn.firing)
    auc = float(area(said, true, np.ones((1, len(said))))[0])
    return graded(NAME, CHANCE, len(said), lambda w: balanced_accuracy(said, true, w), generator, auc)
