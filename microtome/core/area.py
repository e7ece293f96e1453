"""The area under the ROC curve: the chance that what is true scores more than what is false."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def area(
    scores: Float[Tensor, "things"],
    true: Bool[Tensor, "things"],
    weights: Float[Tensor, "draws things"] | None = None,
) -> Float[Tensor, "draws"]:
    """Ties are halves (Mann & Whitney 1947). `weights`: how often each thing counts, a row for each draw; once unless
    given. NaN where nothing true, or nothing false, is counted."""
    weights = torch.ones(1, len(scores), dtype=torch.float64) if weights is None else weights.double()
    order = scores.argsort()
    of_true = weights[:, order] * true[order]
    of_false = weights[:, order] - of_true
    levels = torch.unique_consecutive(scores[order], return_inverse=True)[1]
    tied = torch.zeros(len(weights), int(levels.max()) + 1, dtype=torch.float64)
    false, truths = (tied.index_add(1, levels, w) for w in (of_false, of_true))
    below = false.cumsum(1) - false / 2
    return (truths * below).sum(1) / (of_true.sum(1) * of_false.sum(1))
