"""Intruder: four passages that fire and one that is silent; which does not belong? It asks for no explanation.

After Chang et al. 2009, Reading Tea Leaves, for topics; Paulo et al. 2025 for latents. A component whose passages have
nothing in common that a reader could see fails here, however good the sentence. One in five by chance. Every passage
has marked tokens: those on which it fires, or as many drawn ones.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool

from microtome.explain.embedding import Embedder
from microtome.explain.fuzzing import wrong_marks
from microtome.explain.grades import Grade, graded, share
from microtome.explain.passages import Drawn, Passages, joined

NAME, TOGETHER = "intruder", 4
CHANCE = 1 / (TOGETHER + 1)
QUESTIONS = 8


@runtime_checkable
class Picker(Protocol):
    """One who says which passage does not belong."""

    def odd(self, passages: Passages, marks: Bool[np.ndarray, "passages length"]) -> int: ...


@dataclass(frozen=True)
class FarthestPicker:
    """Picks the passage whose embedding is least like the mean of the others': needs no language model."""

    embedder: Embedder
    vocabulary: list[str]

    def odd(self, passages: Passages, marks: Bool[np.ndarray, "passages length"]) -> int:
        """Marks are not looked at."""
        vectors = self.embedder.embed(joined(passages, self.vocabulary))
        unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        others = unit.sum(0) - unit
        cosine = (unit * others).sum(1) / np.maximum(np.linalg.norm(others, axis=1), 1e-12)
        return int(cosine.argmin())


def intruder(picker: Picker, drawn: Drawn, generator: np.random.Generator, questions: int = QUESTIONS) -> Grade:
    """The share of questions in which the silent passage is found."""
    right = np.array([asked(picker, drawn, generator) for _ in range(questions)], float)
    return graded(NAME, CHANCE, questions, lambda w: share(w, right), generator)


def asked(picker: Picker, drawn: Drawn, generator: np.random.Generator) -> bool:
    """One question: different firing passages, and a silent one among them."""
    together = min(TOGETHER, len(drawn.firing))
    firing = drawn.firing.some(generator.choice(len(drawn.firing), together, replace=False))
    silent = drawn.silent.some(generator.integers(len(drawn.silent), size=1))
    fires = firing.active > drawn.threshold
    false = drawn_marks(silent, int(np.ceil(fires.sum(1).mean())), generator)
    order = generator.permutation(together + 1)
    picked = picker.odd((firing + silent).some(order), np.concatenate([fires, false])[order])
    return bool(order[picked] == together)


def drawn_marks(silent: Passages, count: int, generator: np.random.Generator) -> Bool[np.ndarray, "passages length"]:
    """So many marks on a passage on which nothing fires."""
    wanted = np.zeros(silent.tokens.shape, bool)
    wanted[:, :count] = True
    return wrong_marks(silent, wanted, generator)
