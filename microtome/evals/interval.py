"""How sure a score is: what it would have been on other documents of the same kind.

A score is a function of sums over documents. Documents are drawn with replacement, their sums added up again and the
score taken anew (Efron's bootstrap). Tokens of one document resemble one another, so tokens are never drawn.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from microtome.core.errors import Refusal

Score = Callable[[Float[Tensor, "... sums"]], Float[Tensor, "..."]]
SHARE, RESAMPLES = 0.95, 1000
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)  # t for 95%, of 1, 2, ... degrees of freedom


@dataclass(frozen=True)
class Interval:
    """A score, and between what it lies in 95% of the resamples. No bounds (None) where none can be told."""

    found: float
    low: float | None = None
    high: float | None = None


def over_documents(
    sums: Float[Tensor, "documents sums"], score: Score, generator: torch.Generator, *, resamples: int = RESAMPLES
) -> Interval:
    """A score of the sums over all documents, with its 95% interval over documents; one document alone gives none.

    `score` maps sums (last axis) to numbers, whatever stands before. Resamples on which it is not finite are left out.
    """
    documents, exact = len(sums), sums.double()
    found = float(score(exact.sum(0)))
    if documents < 2:
        return Interval(found)
    drawn = torch.randint(documents, (resamples, documents), generator=generator)
    times = torch.zeros(resamples, documents, dtype=torch.float64).scatter_add_(
        1, drawn, torch.ones_like(drawn).double()
    )
    scores = score(times @ exact)
    scores = scores[scores.isfinite()]
    if not len(scores):
        return Interval(found)
    low, high = scores.quantile(scores.new_tensor([(1 - SHARE) / 2, (1 + SHARE) / 2])).tolist()
    return Interval(found, low, high)


def over_fits(values: Sequence[float]) -> Interval:
    """The mean of a score over dictionaries fitted from several seeds, with its 95% interval by Student's t.

    No bounds where there are fewer than two.
    """
    exact = torch.tensor(list(values), dtype=torch.float64)
    found, degrees = exact.mean().item(), len(values) - 1
    if degrees < 1:
        return Interval(found)
    reach = STUDENT[min(degrees, len(STUDENT)) - 1] * exact.std().item() / len(values) ** 0.5
    return Interval(found, found - reach, found + reach)


def by_document(
    values: Float[Tensor, "things sums"], document: Int[Tensor, "things"], documents: int
) -> Float[Tensor, "documents sums"]:
    """Sums over what belongs to each document. Raises Refusal where a number names no document."""
    if len(document) and not 0 <= int(document.min()) <= int(document.max()) < documents:
        raise Refusal(f"documents are numbered {int(document.min())}..{int(document.max())}, but there are {documents}")
    return torch.zeros(documents, values.shape[1], dtype=torch.float64).index_add_(0, document, values.double())


def f1(sums: Float[Tensor, "... 3"]) -> Float[Tensor, "..."]:
    """2 hits / (claimed + true), from sums of (hits, claimed, true); 0 where there is neither claim nor truth."""
    hits, claimed, true = sums.unbind(-1)
    return 2 * hits / (claimed + true).clamp(min=1)


def mean_f1(sums: Float[Tensor, "... threes"]) -> Float[Tensor, "..."]:
    """The mean over labels of F1, from one (hits, claimed, true) after another."""
    return f1(sums.unflatten(-1, (-1, 3))).mean(-1)
