"""What a dictionary makes of activations, document by document: explained variance, L0, shrinkage, what its bias does.

Sums are kept for every window, so that one pass gives each score with its interval. Explained variance is that of
`reconstruction.Variance`: 1 - sum |x - x̂|² / sum |x - mean|², 0 for whoever predicts the mean.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from microtome.core.component import Dictionary
from microtome.core.edit import written_site
from microtome.core.trace import Trace
from microtome.evals.interval import Score, by_document

ROWS, ACTIVE, MISSED, SQUARES, MADE, BOTH = range(6)  # and then the sums of x, and those of x̂
SCALARS = 6


class Fidelity:
    """Sums over each window, position 0 left out, as a witness of a survey.

    rows, active entries, |x - x̂|², |x|², |x̂|², x·x̂, and the vectors x and x̂ themselves.
    """

    def __init__(self, dictionary: Dictionary):
        self.dictionary, self.site = dictionary, written_site(dictionary)
        self.sites = (*dictionary.reads, self.site)
        self._windows: list[Tensor] = []

    def see(self, trace: Trace, first_window: int) -> None:
        """Sum up a batch of windows."""
        codes, x = trace.codes(self.dictionary), trace[self.site][:, 1:]
        made = self.dictionary.rebuild(codes, trace)
        rows, _, _ = codes.entries()
        counted = rows[rows % codes.shape[1] != 0] // codes.shape[1]
        active = torch.bincount(counted, minlength=len(x))
        self._windows.append(summed(x, made[:, 1:], active).cpu())

    def sums(self, document: Int[Tensor, "windows"], documents: int) -> Float[Tensor, "documents sums"]:
        """What was summed, document by document; `document` is whose each window is."""
        return by_document(torch.cat(self._windows), document, documents)


def summed(
    x: Float[Tensor, "windows rows d"], made: Float[Tensor, "windows rows d"], active: Int[Tensor, "windows"]
) -> Float[Tensor, "windows sums"]:
    """One row of sums for each window, in double precision."""
    x, made = x.double(), made.double()
    rows = torch.full_like(active, x.shape[1]).double()
    products: Iterable[Tensor] = ((x - made) ** 2, x * x, made * made, x * made)
    numbers = [rows, active.double(), *(p.sum((1, 2)) for p in products)]
    return torch.cat((torch.stack(numbers, 1), x.sum(1), made.sum(1)), 1)


def centred(sums: Float[Tensor, "... sums"]) -> tuple[Tensor, Tensor, Tensor]:
    """sum |x - mean|², sum |x̂ - its mean|², and the product of the two differences."""
    x, made = sums[..., SCALARS:].unflatten(-1, (2, -1)).unbind(-2)
    rows = sums[..., ROWS]
    return (
        sums[..., SQUARES] - x.square().sum(-1) / rows,
        sums[..., MADE] - made.square().sum(-1) / rows,
        sums[..., BOTH] - (x * made).sum(-1) / rows,
    )


def explained(sums: Float[Tensor, "... sums"]) -> Float[Tensor, "..."]:
    """1 - sum |x - x̂|² / sum |x - mean|²."""
    return 1 - sums[..., MISSED] / centred(sums)[0]


def l0(sums: Float[Tensor, "... sums"]) -> Float[Tensor, "..."]:
    """Active components a token."""
    return sums[..., ACTIVE] / sums[..., ROWS]


def size(sums: Float[Tensor, "... sums"]) -> Float[Tensor, "..."]:
    """|x̂|² / x·x̂ about the means: below 1 the reconstruction is too small, above it too large.

    The relative reconstruction bias of Rajamanoharan et al. 2024 (arXiv 2404.16014, equation 10), there about the
    origin, where a large mean hides what happens to the rest.
    """
    _, made, both = centred(sums)
    return made / both


def explained_once_sized(sums: Float[Tensor, "... sums"]) -> Float[Tensor, "..."]:
    """The explained variance if every x̂ - mean were multiplied by the one number that serves best: shrinkage undone.

    The number is 1 / `size`; what is then explained is the squared correlation.
    """
    x, made, both = centred(sums)
    return both.square() / (x * made)


def constant_explains(constant: Float[Tensor, "d"]) -> Score:
    """The score of how much of |x|² a constant accounts for: 1 - sum |x - c|² / sum |x|²."""
    exact = constant.double().cpu()

    def score(sums: Float[Tensor, "... sums"]) -> Float[Tensor, "..."]:
        x = sums[..., SCALARS : SCALARS + len(exact)]
        left = sums[..., SQUARES] - 2 * (x * exact).sum(-1) + sums[..., ROWS] * exact.square().sum()
        return 1 - left / sums[..., SQUARES]

    return score


def mean_explains(sums: Float[Tensor, "... sums"]) -> Float[Tensor, "..."]:
    """How much of |x|² the mean accounts for: what no constant exceeds."""
    return 1 - centred(sums)[0] / sums[..., SQUARES]


def mean_of(sums: Float[Tensor, "documents sums"]) -> Float[Tensor, "d"]:
    """The mean of x over all rows."""
    total = sums.sum(0)
    x, _ = total[SCALARS:].chunk(2)
    return (x / total[ROWS]).float()
