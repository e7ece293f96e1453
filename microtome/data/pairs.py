"""Prompts in pairs, clean and corrupt, with the tokens that ought to come next: what circuits are measured on.

A pair is aligned where both prompts have as many tokens, so that a position of one is that position of the other. Pairs
of one batch may have different lengths; what needs equal ones asks for `aligned`.
"""

# pyright: reportUnknownMemberType=false

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from microtome.core.errors import Refusal
from microtome.core.inputs import Tokens
from microtome.core.measure import LOGITS, Measure, logit_diff
from microtome.core.site import Site

Encode = Callable[[str], list[int]]  # a text to token ids, begun as the model's texts begin: `model.encode`


class Prompt(NamedTuple):
    """Two texts that differ in what decides the next token: `right` after the clean one, `wrong` after the corrupt one.

    Each answer is a tuple of texts of one token each, with the space that they begin with; mostly there is one.
    """

    clean: str
    corrupt: str
    right: tuple[str, ...]
    wrong: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Prompts as tokens. Answers are ids, one tuple a pair."""

    prompts: tuple[Prompt, ...]
    clean: Tokens
    corrupt: Tokens
    right_ids: tuple[tuple[int, ...], ...]
    wrong_ids: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.prompts)

    def rows(self, which: slice) -> "Pairs":
        """Some of the pairs."""
        return Pairs(
            self.prompts[which], self.clean.rows(which), self.corrupt.rows(which), self.right_ids[which],
            self.wrong_ids[which],
        )  # fmt: skip

    @property
    def right(self) -> Int[Tensor, "pairs"]:
        """The one right token of each pair. Raises Refusal where a pair has several."""
        return self._single(self.right_ids)

    @property
    def wrong(self) -> Int[Tensor, "pairs"]:
        """The one wrong token of each pair. Raises Refusal where a pair has several."""
        return self._single(self.wrong_ids)

    def _single(self, answers: tuple[tuple[int, ...], ...]) -> Int[Tensor, "pairs"]:
        several = next((i for i, ids in enumerate(answers) if len(ids) != 1), None)
        if several is not None:
            raise Refusal(
                f"pair {several} has {len(answers[several])} answers, so no logit difference of two tokens; "
                "measure probability_difference"
            )
        return torch.tensor([ids[0] for ids in answers], device=self.clean.ids.device)

    @property
    def is_aligned(self) -> bool:
        """Whether the two rows of every pair have as many tokens, so that positions can be patched."""
        return torch.equal(self.clean.lengths, self.corrupt.lengths)

    def aligned(self) -> "Pairs":
        """These pairs. Raises Refusal where the two prompts of one have different lengths."""
        unequal = (self.clean.lengths != self.corrupt.lengths).nonzero()[:, 0].tolist()
        if unequal:
            i, prompt = unequal[0], self.prompts[unequal[0]]
            raise Refusal(
                f"pair {i} has {int(self.clean.lengths[i])} tokens clean and {int(self.corrupt.lengths[i])} corrupt "
                f"({prompt.clean!r} and {prompt.corrupt!r}); make them equally long, or take pairs.only_aligned()"
            )
        return self

    def only_aligned(self) -> "Pairs":
        """Those pairs whose prompts are equally long. Raises Refusal where none are."""
        kept = (self.clean.lengths == self.corrupt.lengths).nonzero()[:, 0].tolist()
        if not kept:
            raise Refusal(f"none of the {len(self)} pairs has prompts of equally many tokens; change their words")
        return self.picked(kept)

    def picked(self, kept: list[int]) -> "Pairs":
        """These pairs, in this order."""
        right, wrong = (tuple(ids[i] for i in kept) for ids in (self.right_ids, self.wrong_ids))
        clean, corrupt = (some_rows(side, kept) for side in (self.clean, self.corrupt))
        return Pairs(tuple(self.prompts[i] for i in kept), clean, corrupt, right, wrong)

    def distinct(self) -> "Pairs":
        """One of each: pairs of the same two prompts, either way round, are one."""
        first = {frozenset((p.clean, p.corrupt)): i for i, p in reversed(list(enumerate(self.prompts)))}
        return self.picked(sorted(first.values()))

    def differing(self) -> Bool[Tensor, "pairs pos"]:
        """Where the two prompts of each aligned pair have different tokens."""
        self.aligned()
        return (self.clean.ids != self.corrupt.ids) & self.clean.mask

    def logit_difference(self, site: Site = LOGITS) -> Measure:
        """Logit of the right token minus that of the wrong one, at each row's last token."""
        return logit_diff(self.right, self.wrong, site)

    def difference(self) -> Measure:
        """Of logits where each pair has one right and one wrong answer, and of probabilities otherwise."""
        single = all(len(ids) == 1 for ids in (*self.right_ids, *self.wrong_ids))
        return self.logit_difference() if single else self.probability_difference()

    def probability_difference(self, site: Site = LOGITS) -> Measure:
        """Probability of the right answers together minus that of the wrong ones (Hanna et al. 2023, greater-than)."""
        right, wrong = listed(self.right_ids), listed(self.wrong_ids)
        place = site.at(pos=-1)

        def of(trace: object) -> Tensor:
            p = trace[place].float().softmax(-1)  # type: ignore[index]
            return together(p, right) - together(p, wrong)

        return Measure(of, (site,), "probability difference")

    def __str__(self) -> str:
        lengths = self.clean.lengths
        return f"{len(self)} pairs of {int(lengths.min())} to {int(lengths.max())} tokens"


def some_rows(tokens: Tokens, kept: list[int]) -> Tokens:
    """These rows, their padding as it was."""
    return Tokens(tokens.ids[kept], tokens.mask[kept])


def listed(answers: Sequence[tuple[int, ...]]) -> Int[Tensor, "pairs answers"]:
    """Ids in equally long rows; -1 where a pair has fewer."""
    width = max(map(len, answers))
    return torch.tensor([[*ids, *[-1] * (width - len(ids))] for ids in answers])


def together(p: Tensor, ids: Int[Tensor, "pairs answers"]) -> Tensor:
    """The sum over each pair's answers; an id below 0 is no answer."""
    ids = ids.to(p.device)
    return p.gather(-1, ids.clamp(min=0)).masked_fill(ids < 0, 0.0).sum(-1)


def tokenized(prompts: Iterable[Prompt], encode: Encode, *, context: int | None = None, left: bool = False) -> Pairs:
    """Prompts as tokens, padded to the right unless `left`.

    Raises Refusal for an answer of several tokens, one that is not the same token after both prompts, and a prompt that
    is longer than `context` tokens.
    """
    given = tuple(prompts)
    if not given:
        raise Refusal("pairs need at least one prompt")
    clean, corrupt = (
        [encode(text) for text in side] for side in zip(*((p.clean, p.corrupt) for p in given), strict=True)
    )
    for text, ids in zip((t for p in given for t in (p.clean, p.corrupt)), interleaved(clean, corrupt), strict=True):
        if context is not None and len(ids) > context:
            raise Refusal(f"{text!r} has {len(ids)} tokens and the model's context holds {context}; shorten it")
    right = tuple(tuple(answer_id(encode, p, a) for a in p.right) for p in given)
    wrong = tuple(tuple(answer_id(encode, p, a) for a in p.wrong) for p in given)
    return Pairs(given, Tokens.of(clean, left=left), Tokens.of(corrupt, left=left), right, wrong)


def interleaved(one: Sequence[list[int]], other: Sequence[list[int]]) -> list[list[int]]:
    """Each row of the one followed by that of the other."""
    return [ids for both in zip(one, other, strict=True) for ids in both]


def answer_id(encode: Encode, prompt: Prompt, answer: str) -> int:
    """The token that an answer is, after these prompts."""
    found = {next_token(encode, text, answer) for text in (prompt.clean, prompt.corrupt)}
    if len(found) > 1:
        raise Refusal(
            f"{answer!r} is token {min(found)} after one prompt and {max(found)} after the other ({prompt.clean!r}); "
            "choose another answer"
        )
    return found.pop()


def next_token(encode: Encode, text: str, answer: str) -> int:
    """The one token that an answer adds to a text. Raises Refusal where it adds none, several, or changes others."""
    before, after = encode(text), encode(text + answer)
    added = after[len(before) :]
    if after[: len(before)] != before or len(added) != 1:
        raise Refusal(
            f"{answer!r} after {text!r} is {len(after) - len(before)} tokens ({added}), or changes those before it; "
            "an answer is one token"
        )
    return added[0]
