"""Passages: short stretches of text with how active a component is on each token, to explain it from or to test it on.

Every window is cut at the same places, from position 1 on, so two passages are one or have no token in common; and
those that an explainer is shown come from windows that no scorer draws from. (Samplers that draw both from one list
show an explainer between a fifth and two fifths of its own test.)

A passage fires where the component's activation exceeds a tenth of its maximum over the text that explanations are
proposed from; it is silent where the component is exactly zero on every token. What lies between is neither.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from microtome.explain.evidence import THRESHOLD, Part, strongest
from microtome.store.catalog import Column

LENGTH = 32  # tokens
BANDS = 10  # of ranks, which firing passages are drawn from alike


@dataclass(frozen=True)
class Passages:
    """Passages of one length, by where each begins in the text; tokens are numbered through all windows."""

    starts: Int[np.ndarray, "passages"]
    tokens: Int[np.ndarray, "passages length"]
    active: Float[np.ndarray, "passages length"]

    def __len__(self) -> int:
        return len(self.starts)

    def __add__(self, other: "Passages") -> "Passages":
        return Passages(*(np.concatenate(pair) for pair in zip(self.fields, other.fields, strict=True)))

    @property
    def fields(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.starts, self.tokens, self.active

    @property
    def places(self) -> Int[np.ndarray, "passages length"]:
        """The number of every token in the text."""
        return self.starts[:, None] + np.arange(self.tokens.shape[1])

    def some(self, which: Int[np.ndarray, "n"] | Bool[np.ndarray, "passages"] | slice) -> "Passages":
        return Passages(*(field[which] for field in self.fields))


@dataclass(frozen=True)
class Shelf:
    """All passages of a text that one part of it holds, of one length."""

    part: Part
    length: int = LENGTH

    @property
    def starts(self) -> Int[np.ndarray, "passages"]:
        context = self.part.tokens.shape[1]
        within = np.arange(1, context - self.length + 1, self.length)
        return (np.flatnonzero(self.part.windows)[:, None] * context + within).ravel()

    def of(self, column: Column) -> Passages:
        """Every passage, with the component's activations."""
        starts = self.starts
        places = starts[:, None] + np.arange(self.length)
        active = np.zeros(self.part.tokens.size, np.float32)
        active[column.token] = column.value
        return Passages(starts, self.part.tokens.ravel()[places], active[places])


@dataclass(frozen=True)
class Drawn:
    """Passages to test by: those that fire, as many that are silent, the strongest, and some taken blindly."""

    firing: Passages
    silent: Passages
    strongest: Passages
    blind: Passages
    threshold: float  # of the activation, above which a token counts as firing

    @property
    def enough(self) -> bool:
        return len(self.firing) >= FEWEST and len(self.silent) >= FEWEST


FEWEST = 5  # firing and silent passages, below which there is no telling


def draw(column: Column, proposal: Part, scoring: Part, most: int, generator: np.random.Generator) -> Drawn:
    """At most `most` of each kind from the scoring part. Only the threshold is of the proposal part."""
    threshold = THRESHOLD * strongest(column, proposal)
    every = Shelf(scoring).of(column)
    peak = every.active.max(1, initial=0)
    fires, silent = np.flatnonzero(peak > threshold), np.flatnonzero((every.active == 0).all(1))
    ranked = fires[np.argsort(-peak[fires], kind="stable")]
    chosen = in_bands(ranked, most, generator)
    return Drawn(
        every.some(np.sort(chosen)), every.some(sampled(silent, len(chosen), generator)),
        every.some(np.sort(ranked[:most])), every.some(sampled(np.arange(len(every)), most, generator)), threshold,
    )  # fmt: skip


def shown(column: Column, proposal: Part, most: int, generator: np.random.Generator) -> Passages:
    """What an explainer sees: half of it the strongest passages of the proposal part, half from all that fire."""
    every = Shelf(proposal).of(column)
    peak = every.active.max(1, initial=0)
    fires = np.flatnonzero(peak > THRESHOLD * peak.max(initial=0))
    ranked = fires[np.argsort(-peak[fires], kind="stable")]
    top, rest = ranked[: -(-most // 2)], ranked[-(-most // 2) :]
    return every.some(np.concatenate([top, in_bands(rest, most - len(top), generator)]))


def in_bands(ranked: Int[np.ndarray, "n"], most: int, generator: np.random.Generator) -> Int[np.ndarray, "m"]:
    """At most `most`, from every tenth of the ranks alike."""
    if len(ranked) <= most:
        return ranked
    bands = np.array_split(generator.permuted(ranked) if most < BANDS else ranked, min(BANDS, most))
    sizes = [most // len(bands) + (n < most % len(bands)) for n in range(len(bands))]
    return np.concatenate([sampled(band, size, generator) for band, size in zip(bands, sizes, strict=True)])


def sampled(places: Int[np.ndarray, "n"], most: int, generator: np.random.Generator) -> Int[np.ndarray, "m"]:
    return places if len(places) <= most else np.sort(generator.choice(places, most, replace=False))


def joined(passages: Passages, vocabulary: Sequence[str]) -> list[str]:
    """Each passage as running text."""
    return ["".join(vocabulary[int(i)] for i in row) for row in passages.tokens.tolist()]
