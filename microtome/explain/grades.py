"""How well an explanation foretells a component: figures with their 95% intervals and what chance would give.

Intervals are of the bootstrap over passages, each of which is drawn or left out whole: tokens of one passage are not
independent. A figure that cannot be computed (one class missing, nothing varies) is not a number, and so says itself.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from microtome.core.area import area as area_of_tensors

DRAWS = 400
ENDS = (2.5, 97.5)  # percentiles

Weights = Float[np.ndarray, "draws passages"]


@dataclass(frozen=True)
class Grade:
    """One score of one explanation. `chance` is what a sentence that knows nothing gets; `count` is of passages.

    `auc` is the area under the ROC curve of the same judgement, where that is by degrees and not by yes and no.
    """

    scorer: str
    value: float
    low: float
    high: float
    chance: float
    count: int
    auc: float | None = None

    def words(self) -> dict:
        """In plain values, for the record."""
        return {k: v for k, v in asdict(self).items() if k != "scorer" and v is not None}


def graded(
    scorer: str,
    chance: float,
    count: int,
    figure: Callable[[Weights], Float[np.ndarray, "draws"]],
    generator: np.random.Generator,
    auc: float | None = None,
) -> Grade:
    """A grade from a figure that can be computed for any weights of the passages."""
    value = float(figure(np.ones((1, count)))[0])
    drawn = figure(generator.multinomial(count, np.full(count, 1 / count), DRAWS).astype(float))
    drawn = drawn[np.isfinite(drawn)]
    low, high = np.percentile(drawn, ENDS) if len(drawn) else (np.nan, np.nan)
    return Grade(scorer, value, float(low), float(high), chance, count, auc)


def balanced_accuracy(
    said: Float[np.ndarray, "passages"], true: Bool[np.ndarray, "passages"], weights: Weights
) -> Float[np.ndarray, "draws"]:
    """The mean of the shares of true and of false passages that are called so; a passage is called true from 1/2 up."""
    right = ((said >= 0.5) == true).astype(float)
    rates = [share(weights * kind, right) for kind in (true, ~true)]
    return (rates[0] + rates[1]) / 2


def share(weights: Weights, right: Float[np.ndarray, "passages"]) -> Float[np.ndarray, "draws"]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return (weights @ right) / weights.sum(1)


def area(
    said: Float[np.ndarray, "passages"], true: Bool[np.ndarray, "passages"], weights: Weights
) -> Float[np.ndarray, "draws"]:
    """The chance that a true passage is given more than a false one, ties being halves (Mann and Whitney)."""
    return area_of_tensors(torch.from_numpy(said), torch.from_numpy(true), torch.from_numpy(weights)).numpy()


def correlation(
    simulated: Float[np.ndarray, "passages length"], active: Float[np.ndarray, "passages length"], weights: Weights
) -> Float[np.ndarray, "draws"]:
    """Pearson's, over all tokens of all passages in one: Bills et al. 2023. 0 where the simulation never varies."""
    s, a = simulated.astype(float), active.astype(float)
    sums = np.stack([np.ones_like(s), s, a, s * s, a * a, s * a]).sum(2)
    n, s1, a1, s2, a2, both = (weights @ sums.T).T
    covariance, spread = both - s1 * a1 / n, (s2 - s1**2 / n).clip(0) * (a2 - a1**2 / n).clip(0)
    flat = spread <= 1e-12 * np.maximum(s2 * a2, 1e-30)
    return np.where(flat, 0.0, covariance / np.sqrt(np.where(flat, 1.0, spread)))


def middle(values: Float[np.ndarray, "n"], generator: np.random.Generator) -> tuple[float, float, float]:
    """The mean of some numbers and its 95% interval, by the bootstrap."""
    drawn: Int[np.ndarray, "draws n"] = generator.integers(len(values), size=(10 * DRAWS, len(values)))
    low, high = np.percentile(values[drawn].mean(1), ENDS)
    return float(values.mean()), float(low), float(high)
