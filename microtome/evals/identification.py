"""Which facts about a token single components stand for: the best detector of each label, judged on other documents.

A detector is one component, one sign and one threshold. It is chosen among all of them by F1 on training text, exactly
(every activity is tried as the threshold), and its F1 is taken on held-out documents, so that having been chosen does
not flatter it.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from microtome.core.errors import Refusal
from microtome.evals.firings import Columns, Firings
from microtome.evals.truth import Truth


@dataclass(frozen=True)
class Detector:
    """Fires where `component` is at least `threshold` strong, in the direction of `sign`. `f1` is that of training."""

    component: int
    sign: int
    threshold: float
    f1: float

    @property
    def column(self) -> int:
        """Its column among `Firings.columns`."""
        return 2 * self.component + (self.sign < 0)

    def fires(self, firings: Firings) -> Bool[Tensor, "tokens"]:
        """At which tokens it does."""
        rows, sizes = firings.columns.of(self.column)
        claimed = torch.zeros(firings.tokens, dtype=torch.bool)
        claimed[rows[sizes >= self.threshold]] = True
        return claimed


def detectors(firings: Firings, truth: Truth) -> list[Detector]:
    """The best single detector of each label on this text. Raises Refusal where a label has no example."""
    refuse_other_text(firings, truth)
    truth.refuse_missing("training")
    if not len(firings.entries.values):
        raise Refusal(f"none of the {firings.width} components fires on the training text; give more text")
    last = last_of_ties(firings.columns)
    return [best(firings.columns, truth.has[:, label], last) for label in range(len(truth.names))]


def best(columns: Columns, has: Bool[Tensor, "tokens"], last: Bool[Tensor, "entries"]) -> Detector:
    """Of all entries the one at which to put the threshold, its column being the detector."""
    hit = has[columns.rows.long()]
    so_far = torch.cat((torch.zeros(1, dtype=torch.long), hit.cumsum(0)))
    hits = so_far[1:] - so_far[columns.starts[columns.column]]
    scores = torch.where(last, 2 * hits / (columns.rank + has.sum()), 0.0)
    at = int(scores.argmax())
    component, negative = divmod(int(columns.column[at]), 2)
    return Detector(component, -1 if negative else 1, float(columns.sizes[at]), float(scores[at]))


def last_of_ties(columns: Columns) -> Bool[Tensor, "entries"]:
    """Where a threshold can stand: after all entries of a column that are equally strong."""
    last = torch.ones(len(columns.rows), dtype=torch.bool)
    last[:-1] = (columns.sizes[1:] != columns.sizes[:-1]) | (columns.column[1:] != columns.column[:-1])
    return last


def judged(found: list[Detector], firings: Firings, truth: Truth) -> Float[Tensor, "documents threes"]:
    """(hits, claimed, true) of each label's detector on other text, document by document."""
    refuse_other_text(firings, truth)
    each = [truth.judged(one.fires(firings), label) for label, one in enumerate(found)]
    return torch.stack(each, 1).flatten(1)


def refuse_other_text(firings: Firings, truth: Truth) -> None:
    """Raises Refusal for labels of another number of tokens."""
    if firings.tokens != len(truth.has):
        raise Refusal(
            f"{firings.tokens} tokens were read and {len(truth.has)} are labelled, so labels do not align to tokens; "
            "survey the text that the labels are of"
        )
