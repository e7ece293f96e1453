"""Fuzzing: are these the tokens? Passages that fire, some with the right tokens marked and some with wrong ones.

Paulo et al. 2024 (arXiv 2410.13928). A half of the firing passages have exactly the tokens marked on which the
component fires, the other half as many tokens on which it is silent: what passes detection by naming the topic
fails here.
"""

import numpy as np
from jaxtyping import Bool

from microtome.explain.grades import Grade, area, balanced_accuracy, graded
from microtome.explain.judges import Judge
from microtome.explain.passages import Drawn, Passages

NAME, CHANCE = "fuzzing", 0.5


def fuzzing(judge: Judge, drawn: Drawn, generator: np.random.Generator) -> Grade:
    """Which half a passage falls into is drawn; those on which nothing is silent keep their true marks."""
    passages = drawn.firing
    fires = passages.active > drawn.threshold
    true = generator.permutation(len(passages)) % 2 == 0
    true |= (passages.active != 0).all(1)
    marks = np.where(true[:, None], fires, wrong_marks(passages, fires, generator))
    said = judge.fits(passages, marks)
    auc = float(area(said, true, np.ones((1, len(passages))))[0])
    return graded(NAME, CHANCE, len(passages), lambda w: balanced_accuracy(said, true, w), generator, auc)


def wrong_marks(
    passages: Passages, fires: Bool[np.ndarray, "passages length"], generator: np.random.Generator
) -> Bool[np.ndarray, "passages length"]:
    """As many tokens of each passage as fire in it, or as there are silent ones, drawn among the silent."""
    silent = passages.active == 0
    order = np.argsort(np.where(silent, generator.random(silent.shape), 2.0), axis=1)
    rank = np.argsort(order, axis=1)
    return silent & (rank < fires.sum(1, keepdims=True))
