"""Labels of tokens as ground truth for what components respond to: which tokens, of which documents, have which label.

For Python text twenty facts of syntax, read from the text by Python's own `tokenize` and `ast` (`data.labels`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from microtome.core.errors import Refusal
from microtome.data.labels import LABELS
from microtome.data.windows import Text

FACTS = (
    "in a string",
    "in a comment",
    "in a docstring",
    "in an f-string",
    "function name at def",
    "class name at class",
    "parameter name",
    "keyword argument name",
    "attribute of self",
    "imported name",
    "in a decorator",
    "indentation",
    "closing bracket",
    "in brackets two deep",
    "in a return statement",
    "in a subscript",
    "number",
    "operator",
    "builtin name",
    "end of a statement",
)


@dataclass(frozen=True, eq=False)
class Truth:
    """Which label each counted token has (position 0 of every window is not counted), and whose token it is."""

    names: tuple[str, ...]
    has: Bool[Tensor, "tokens labels"]
    document: Int[Tensor, "tokens"]
    documents: int

    @classmethod
    def of(cls, text: Text, names: Sequence[str] = FACTS, known: Sequence[str] = LABELS) -> "Truth":
        """Some of the labels that a text was gathered with, `known` being the names of all of them, in order.

        Raises Refusal where labels do not fit the tokens, and for names that are not among the known.
        """
        unknown = [name for name in names if name not in known]
        if unknown:
            raise Refusal(f"no label {unknown[0]!r}; known: {', '.join(known)}")
        found = torch.from_numpy(text.labels)
        if tuple(found.shape) != (*text.tokens.shape, len(known)):
            raise Refusal(
                f"labels of shape {tuple(found.shape)} do not align to {len(text.tokens)} windows of "
                f"{text.tokens.shape[1]} tokens with {len(known)} labels each; label the text that is read"
            )
        chosen = found[:, 1:, [known.index(name) for name in names]].flatten(0, 1)
        each = text.tokens.shape[1] - 1
        document = torch.from_numpy(text.document).long().repeat_interleave(each)
        return cls(tuple(names), chosen, document, len(text.documents))

    @cached_property
    def positives(self) -> Int[Tensor, "labels"]:
        """How many tokens have each label."""
        return self.has.sum(0)

    @cached_property
    def counts(self) -> Int[Tensor, "documents labels"]:
        """Tokens with each label, document by document."""
        return torch.zeros(self.documents, len(self.names), dtype=torch.long).index_add_(
            0, self.document, self.has.long()
        )

    def refuse_missing(self, where: str) -> None:
        """Raises Refusal for a label that no token has, or every token: nothing can be told from it."""
        for name, count in zip(self.names, self.positives.tolist(), strict=True):
            if not 0 < count < len(self.has):
                which = "no token has" if not count else "every token has"
                raise Refusal(f"{which} the label {name!r} in the {where} text; give more text, or leave the label out")

    def without(self, names: Sequence[str]) -> "Truth":
        """The same, but for these labels."""
        kept = [i for i, name in enumerate(self.names) if name not in names]
        return Truth(tuple(self.names[i] for i in kept), self.has[:, kept], self.document, self.documents)

    def judged(self, claimed: Bool[Tensor, "tokens"], label: int) -> Float[Tensor, "documents 3"]:
        """(hits, claimed, true) of a detector of one label, document by document."""
        here = torch.stack((claimed & self.has[:, label], claimed, self.has[:, label]), 1)
        return torch.stack(
            [torch.bincount(self.document[column], minlength=self.documents) for column in here.unbind(1)], 1
        ).double()


def missing(*truths: Truth) -> list[str]:
    """Labels that no token or every token has, in one of several texts with the same labels."""
    bad = [(t.positives == 0) | (t.positives == len(t.has)) for t in truths]
    return [name for i, name in enumerate(truths[0].names) if any(bool(b[i]) for b in bad)]


def chance(truth: Truth) -> Float[Tensor, "documents threes"]:
    """(hits, claimed, true) for each label of claiming every token: no detector that ignores the token does better.

    Claiming each token with probability q gives F1 = 2pq / (p + q), which grows with q.
    """
    counts = truth.counts.double()
    tokens = torch.bincount(truth.document, minlength=truth.documents).double()[:, None].expand_as(counts)
    return torch.stack((counts, tokens, counts), -1).flatten(1)
