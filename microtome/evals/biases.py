"""How a dictionary misleads whoever looks at it: its bias does part of the work, and top examples are not typical.

That activations shrink is `fidelity.size`, with what undoes it.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from microtome.core.codes import Entries, in_rows
from microtome.core.component import Dictionary
from microtome.evals.firings import Firings
from microtome.evals.identification import refuse_other_text
from microtome.evals.truth import Truth

TOP = 20  # examples that a page shows


@torch.no_grad()
def bias_of(dictionary: Dictionary) -> Float[Tensor, "d"]:
    """What a dictionary writes where no component is active."""
    at = dictionary.directions().write
    none = torch.zeros(0, dtype=torch.long, device=at.device)
    silent = in_rows(Entries(none, none, at.new_zeros(0)), torch.Size((1,)), len(dictionary))
    return dictionary.decode(silent)[0].detach()


@dataclass(frozen=True, eq=False)
class Shown:
    """What the strongest examples say of each component that has enough of them: a label, and how pure they are in it.

    column: which component and sign. label: the one that most of its examples have. purity: the share that has it.
    """

    column: Int[Tensor, "shown"]
    label: Int[Tensor, "shown"]
    purity: Float[Tensor, "shown"]


def top_examples(firings: Firings, truth: Truth, top: int = TOP) -> Shown:
    """Read a label off the `top` strongest examples of every column that fires on twice as many tokens."""
    refuse_other_text(firings, truth)
    columns = firings.columns
    column = (columns.starts.diff() >= 2 * top).nonzero()[:, 0]
    places = columns.starts[column][:, None] + torch.arange(top)
    shares = truth.has[columns.rows[places].long()].float().mean(1)
    if not len(column):
        return Shown(column, column, torch.zeros(0))
    purity, label = shares.max(1)
    return Shown(column, label, purity)


def all_examples(shown: Shown, firings: Firings, truth: Truth) -> Float[Tensor, "documents twice_shown"]:
    """(with its label, all) for everything on which each column fires, column after column, document by document."""
    refuse_other_text(firings, truth)
    sums = torch.zeros(truth.documents, len(shown.column), 2, dtype=torch.float64)
    for i, (column, label) in enumerate(zip(shown.column.tolist(), shown.label.tolist(), strict=True)):
        rows, _ = firings.columns.of(column)
        document, has = truth.document[rows], truth.has[rows, label].double()
        sums[:, i] = torch.zeros(truth.documents, 2, dtype=torch.float64).index_add_(
            0, document, torch.stack((has, torch.ones_like(has)), 1)
        )
    return sums.flatten(1)


def mean_purity(sums: Float[Tensor, "... twice_shown"]) -> Float[Tensor, "..."]:
    """The mean over columns that fire of the share with the label."""
    having, fired = sums.unflatten(-1, (-1, 2)).unbind(-1)
    return (having / fired).nanmean(-1)
