"""How near a decomposition of a toy's weight is to what is known: columns recovered, and importances one for each.

The mean cosine alone (MMCS) hides a feature that no part has: in two dimensions some small part always points its way.
So each column also has its relative error, and lengths are compared (ML2R): Bushnaq et al. 2025 (arXiv 2506.20790);
errors of importance as in that paper's own tests.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cosine_similarity

from microtome.core.errors import Refusal
from microtome.core.pairing import best_pairs

ON, OFF = 0.9, 0.1  # importances above and below which a part counts as important and as not


@dataclass(frozen=True)
class Columns:
    """Parts against the columns of a weight, the columns of its transpose if it decodes.

    mmcs: mean over columns of the best cosine of a part's column. ml2r: mean over columns of that part's length there
    over the column's. error: for each column, the smallest |part's column - column| / |column| of any part.
    """

    mmcs: float
    ml2r: float
    error: tuple[float, ...]

    @property
    def worst(self) -> float:
        """The largest error of any column."""
        return max(self.error)

    @property
    def solved(self) -> bool:
        """Every column within a tenth, MMCS of .99 or more, ML2R within .02 of 1."""
        return self.worst < 0.1 and self.mmcs >= 0.99 and abs(self.ml2r - 1) <= 0.02


@torch.no_grad()
def columns(
    parts: Float[Tensor, "parts out in"],
    weight: Float[Tensor, "out in"],
    *,
    chosen: Float[Tensor, "parts"] | None = None,
) -> Columns:
    """Each column of the weight against that column of each part; `chosen` leaves out parts where it is zero.

    Raises Refusal for a weight with an empty column, against which nothing has a relative error.
    """
    if chosen is not None:
        parts = parts[chosen > 0]
    lengths = weight.norm(dim=0)
    if (lengths < 1e-6).any():
        raise Refusal(f"column {int(lengths.argmin())} of the weight is zero; leave it out")
    if not len(parts):
        return Columns(0.0, 0.0, (1.0,) * weight.shape[1])
    cosines = cosine_similarity(parts, weight[None], dim=1)  # parts, in
    best = cosines.argmax(0)
    long = parts.norm(dim=1).gather(0, best[None])[0]
    error = ((parts - weight).norm(dim=1) / lengths).min(0).values
    return Columns(float(cosines.max(0).values.mean()), float((long / lengths).mean()), tuple(error.tolist()))


def identity_error(importance: Float[Tensor, "features parts"]) -> int:
    """Errors in "one part for each feature", on one-hot inputs: pairs below .9, and any other importance above .1.

    Parts are paired with features so that most is in pairs.
    """
    pairs = best_pairs(importance)
    paired = torch.zeros_like(importance, dtype=torch.bool)
    paired[pairs.rows, pairs.columns] = True
    missing = len(importance) - len(pairs.rows)
    return int((importance[paired] < ON).sum()) + int((importance[~paired] > OFF).sum()) + missing


def dense_error(importance: Float[Tensor, "features parts"], parts: int) -> int:
    """Errors in "so many parts that matter, and no others": parts missing or too many that are ever important.

    The `parts` most important ones must each reach .9 on some input, the others stay below .1 on all.
    """
    highest = importance.max(0).values.sort(descending=True).values
    if len(highest) < parts:
        return parts - len(highest) + int((highest < ON).sum())
    return int((highest[:parts] < ON).sum()) + int((highest[parts:] > OFF).sum())


def alive(importance: Float[Tensor, "rows parts"]) -> int:
    """Parts whose importance is above .1 on some row."""
    return int((importance > OFF).any(0).sum())


def one_hot(features: int, size: float = 0.75) -> Float[Tensor, "features features"]:
    """Each feature by itself, at this size."""
    return size * torch.eye(features)
