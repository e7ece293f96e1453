"""Embedding: is the explanation nearer to passages that fire than to silent ones? Paulo et al. 2024.

The area under the ROC curve of the cosine between the embedded explanation and each embedded passage; 1/2 by chance.
The cheapest of the scores, and the coarsest: whatever embeds the text decides what "near" means.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from microtome.explain.grades import Grade, area, graded
from microtome.explain.passages import Drawn, joined

NAME, CHANCE = "embedding", 0.5
WORD = re.compile(r"[A-Za-z]+|\d+|[^\sA-Za-z\d]")


@runtime_checkable
class Embedder(Protocol):
    """Whatever turns texts into vectors. An endpoint of `microtome.language` does, and so do `Words`, with no model."""

    def embed(self, texts: Sequence[str]) -> Float[np.ndarray, "texts d"]: ...


@dataclass(frozen=True)
class Words:
    """Texts as weighted counts of their words: log(1 + count) times how rare the word is among the texts given."""

    def embed(self, texts: Sequence[str]) -> Float[np.ndarray, "texts d"]:
        counts = [Counter(word.lower() for word in WORD.findall(text)) for text in texts]
        among = Counter(word for count in counts for word in count)
        column = {word: place for place, word in enumerate(sorted(among))}
        found = np.zeros((len(texts), max(1, len(column))))
        for row, count in enumerate(counts):
            for word, times in count.items():
                found[row, column[word]] = math.log1p(times) * math.log((1 + len(texts)) / among[word])
        return found


def embedding(
    sentence: str, drawn: Drawn, embedder: Embedder, vocabulary: Sequence[str], generator: np.random.Generator
) -> Grade:
    passages = drawn.firing + drawn.silent
    vectors = embedder.embed([sentence, *joined(passages, vocabulary)])
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    said, true = unit[1:] @ unit[0], np.arange(len(passages)) < len(drawn.firing)
    return graded(NAME, CHANCE, len(passages), lambda w: area(said, true, w), generator)
