"""Activations of questions asked twice, once with each of two opposite answers: what is learned from without labels."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.errors import NotFinite, Refusal

LEAST = 1e-8  # a spread below it is none


@dataclass(frozen=True, eq=False)
class AnswerPairs:
    """For every question, layer by layer, what it looks like with "yes" and what with "no".

    Raises Refusal for fewer than two questions or other shapes, NotFinite where a number is not finite.
    """

    yes: Float[Tensor, "questions layers d"]
    no: Float[Tensor, "as_many as_many_layers also_d"]

    def __post_init__(self) -> None:
        if self.yes.shape != self.no.shape or len(self.yes) < 2:
            raise Refusal(
                f"answers have the shapes {tuple(self.yes.shape)} and {tuple(self.no.shape)}; give at least two "
                "questions, each with both answers, read at the same sites"
            )
        if not (self.yes.isfinite().all() and self.no.isfinite().all()):
            raise NotFinite("some answers are not finite; leave those questions out, or mend the activations")

    @property
    def difference(self) -> Float[Tensor, "questions layers d"]:
        return self.yes - self.no

    def __len__(self) -> int:
        return len(self.yes)

    def questions(self, which: Tensor | slice) -> "AnswerPairs":
        """Some of the questions."""
        return replace(self, yes=self.yes[which], no=self.no[which])


@dataclass(frozen=True, eq=False)
class Norms:
    """Mean and spread of each answer by itself, so that "yes" and "no" as such cannot be told apart (Burns et al. 2022,
    section 2.2). Taken from the questions that are learned from, whatever they are applied to."""

    yes: tuple[Tensor, Tensor]
    no: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, pairs: AnswerPairs) -> "Norms":
        return cls(*((x.mean(0), x.std(0).clamp(min=LEAST)) for x in (pairs.yes, pairs.no)))

    def __call__(self, pairs: AnswerPairs) -> AnswerPairs:
        return AnswerPairs(*((x - m) / s for x, (m, s) in ((pairs.yes, self.yes), (pairs.no, self.no))))


def joined(parts: list[AnswerPairs]) -> AnswerPairs:
    """Questions one after another."""
    return AnswerPairs(torch.cat([p.yes for p in parts]), torch.cat([p.no for p in parts]))
