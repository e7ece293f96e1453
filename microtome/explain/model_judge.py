"""A language model as judge: it is told one explanation, and asked what that lets it expect of passages.

Passages are shuffled before they are asked about a few at a time, or their order would give the answer away.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from microtome.explain.passages import Passages
from microtome.explain.prompts import choice_in, detecting, fitting, intruding, marks_in, simulating, strengths_in
from microtome.language.ask import Prompt
from microtome.language.asker import Asker

AT_ONCE = 5  # passages in a question, as in Paulo et al. 2024


@dataclass(frozen=True)
class ModelJudge:
    """Raises OffTopic where the model answers in no usable form, NoAnswer and BudgetReached where it cannot answer."""

    asker: Asker
    sentence: str
    vocabulary: Sequence[str]
    seed: int = 0

    def fires(self, passages: Passages) -> Float[np.ndarray, "passages"]:
        return self._in_groups(
            len(passages), lambda which: detecting(self.sentence, passages.some(which), self.vocabulary)
        )

    def fits(self, passages: Passages, marks: Bool[np.ndarray, "passages length"]) -> Float[np.ndarray, "passages"]:
        return self._in_groups(
            len(passages), lambda which: fitting(self.sentence, passages.some(which), marks[which], self.vocabulary)
        )

    def _in_groups(self, count: int, question: Callable[[np.ndarray], Prompt]) -> Float[np.ndarray, "passages"]:
        order, found = np.random.default_rng(self.seed).permutation(count), np.zeros(count)
        for start in range(0, count, AT_ONCE):
            which = order[start : start + AT_ONCE]
            size = len(which)
            wanted = f"{size} zeros and ones"
            found[which] = self.asker.ask_for(question(which), lambda text, n=size: marks_in(text, n), wanted)
        return found

    def simulate(self, passages: Passages) -> Float[np.ndarray, "passages length"]:
        length = passages.tokens.shape[1]
        rows = [
            self.asker.ask_for(
                simulating(self.sentence, passages.some(slice(n, n + 1)), self.vocabulary),
                lambda text: strengths_in(text, length), f"the strengths of {length} tokens",
            )
            for n in range(len(passages))
        ]  # fmt: skip
        return np.array(rows).reshape(len(passages), length)


@dataclass(frozen=True)
class ModelPicker:
    """Picks the passage that does not belong, knowing no explanation."""

    asker: Asker
    vocabulary: Sequence[str]

    def odd(self, passages: Passages, marks: Bool[np.ndarray, "passages length"]) -> int:
        count = len(passages)
        prompt = intruding(passages, marks, self.vocabulary)
        return self.asker.ask_for(prompt, lambda text: choice_in(text, count), f"one number from 1 to {count}")
