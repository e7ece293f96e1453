"""Simulation: foretell every activation from the explanation, and correlate. Bills et al. 2023.

Language models can explain neurons in language models (OpenAI). Half of the passages are the component's strongest,
half are taken blindly; the score is Pearson's correlation of simulated and true activations over all their tokens.
A sentence that knows nothing of the component scores 0 in the mean.
"""

import numpy as np

from microtome.explain.grades import Grade, correlation, graded
from microtome.explain.judges import Judge
from microtome.explain.passages import Drawn

NAME, CHANCE = "simulation", 0.0


def simulation(judge: Judge, drawn: Drawn, generator: np.random.Generator) -> Grade:
    """Activations below zero count as zero, as in the source."""
    passages = drawn.strongest + drawn.blind
    simulated, active = judge.simulate(passages), passages.active.clip(0)
    return graded(NAME, CHANCE, len(passages), lambda w: correlation(simulated, active, w), generator)
