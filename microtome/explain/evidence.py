"""Evidence for and against a sentence about a component: tokens where it fires, and tokens where it is silent.

A sentence is proposed from one part of the text and scored on the other, and nothing crosses over. (Explainers that
draw both from one list show themselves up to two fifths of their own test.) A token is positive if the component's
activation there is above a tenth of its maximum over the *proposal* part, negative if the component is silent there
(activation exactly 0), and neither in between. Position 0 of a window never counts.

Negatives are half random tokens, half hard ones: silent occurrences of the very tokens that the positives are, one
for each positive. They are what tells "fires on `self`" from "fires on `self` in a return statement". Where a token's
silent occurrences are fewer than its positives, each stands in once and random tokens fill the half up: a component
that fires on 98% of all `self` meets the other 2% as often as they are, and one that fires on all of them meets random
tokens only. Every explanation's evidence says how many of its negatives were hard, and the rate on each kind.

    balanced accuracy = (true positive rate + true negative rate) / 2

A sentence that knows nothing of the component says yes at one rate everywhere and scores 1/2, whatever that rate is:
unlike accuracy on unequal classes, where "never" scores 0.71 in a common benchmark.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from microtome.store.catalog import Column

THRESHOLD = 0.1  # of the maximum
FEWEST = 10  # positives in each part, below which there is no telling
FEW_DOCUMENTS = 10
BLOCKS = 16
Z = 1.959964  # of a 95% interval


# ----------------------------------------------------------------------------------------------- two parts of the text


@dataclass(frozen=True)
class Split:
    """Which windows a sentence may be proposed from and which it is scored on; a window may be in neither (a gap)."""

    proposal: Bool[np.ndarray, "windows"]
    scoring: Bool[np.ndarray, "windows"]


def split_windows(document: Int[np.ndarray, "windows"], names: Sequence[str]) -> Split:
    """By a hash of the document's name; by blocks with gaps where documents are few, or one part would be starved."""
    side = np.array([hashlib.sha256(name.encode()).digest()[-1] % 2 for name in names], bool)
    proposal = side[document]
    present = len(np.unique(document))
    if present >= FEW_DOCUMENTS and 0.2 < proposal.mean() < 0.8:
        return Split(proposal, ~proposal)
    return split_blocks(len(document))


def split_after(scoring: int, windows: int) -> Split:
    """The first `scoring` windows to score on, the rest to propose from: they are other documents."""
    rest = np.arange(windows) >= scoring
    return Split(rest, ~rest)


def split_blocks(windows: int) -> Split:
    """Blocks of neighbouring windows go to the two parts in turn; the first window of every block goes to neither."""
    length = max(2, -(-windows // BLOCKS))
    block, place = np.divmod(np.arange(windows), length)
    return Split((block % 2 == 0) & (place > 0), (block % 2 == 1) & (place > 0))


@dataclass(frozen=True)
class Part:
    """The tokens of one part of the text that can be drawn as evidence. Tokens are numbered through all windows."""

    tokens: Int[np.ndarray, "windows context"]
    windows: Bool[np.ndarray, "windows"]

    @cached_property
    def places(self) -> Int[np.ndarray, "places"]:
        """The numbers of this part's tokens, position 0 of each window left out."""
        windows, context = np.flatnonzero(self.windows), self.tokens.shape[1]
        return (windows[:, None] * context + np.arange(1, context)).ravel()

    @cached_property
    def inside(self) -> Bool[np.ndarray, "all_tokens"]:
        found = np.zeros(self.tokens.size, bool)
        found[self.places] = True
        return found

    @cached_property
    def by_token(self) -> Int[np.ndarray, "places"]:
        """The places in order of the token that stands there."""
        return self.places[np.argsort(self.tokens.ravel()[self.places], kind="stable")]

    @cached_property
    def offsets(self) -> Int[np.ndarray, "vocabulary_and_end"]:
        """Where each token's places begin in `by_token`."""
        counts = np.bincount(self.tokens.ravel()[self.places], minlength=int(self.tokens.max()) + 1)
        return np.concatenate([[0], np.cumsum(counts)])

    def occurrences(self, tokens: Int[np.ndarray, "n"]) -> Int[np.ndarray, "m"]:
        """All places of these (different) tokens, one token after another."""
        start, count = self.offsets[tokens], self.offsets[tokens + 1] - self.offsets[tokens]
        within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        return self.by_token[np.repeat(start, count) + within]


# --------------------------------------------------------------------------------------------------- drawing evidence


@dataclass(frozen=True)
class Evidence:
    """Tokens to judge a sentence by, each list in ascending order. `context` is the length of a window."""

    positives: Int[np.ndarray, "positives"]
    random: Int[np.ndarray, "random"]
    hard: Int[np.ndarray, "hard"]
    context: int

    @property
    def places(self) -> Int[np.ndarray, "places"]:
        return np.concatenate([self.positives, self.random, self.hard])

    @property
    def sizes(self) -> tuple[int, int, int]:
        return len(self.positives), len(self.random), len(self.hard)

    @property
    def shares(self) -> tuple[float, float, float]:
        """What the positives, the random and the hard negatives each weigh in the balanced accuracy."""
        hard = len(self.hard) / max(1, len(self.hard) + len(self.random))
        return 0.5, 0.5 * (1 - hard), 0.5 * hard

    @property
    def weights(self) -> Float[np.ndarray, "places"]:
        """Summed over the places where a sentence says yes: its balanced accuracy above 1/2."""
        signs = (1, -1, -1)
        each = [sign * share / max(1, size) for sign, share, size in zip(signs, self.shares, self.sizes, strict=True)]
        return np.repeat(each, self.sizes)

    @property
    def enough(self) -> bool:
        return len(self.positives) >= FEWEST and len(self.random) >= FEWEST


def strongest(column: Column, part: Part) -> float:
    """The largest activation in this part; 0 where the component never fires there."""
    return float(column.value[part.inside[column.token]].max(initial=0))


def draw(column: Column, part: Part, threshold: float, most: int, generator: np.random.Generator) -> Evidence:
    """At most `most` positives and twice as many negatives, from one part of the text."""
    here = part.inside[column.token]
    active = column.token[here].astype(np.int64)
    positives = active[column.value[here] > threshold]
    chosen = sample(positives, most, generator)
    hard = draw_same_tokens(chosen, positives, active, part, generator)
    silent = draw_silent(part.places, active, max(2 * len(chosen) - len(hard), FEWEST), generator)
    return Evidence(chosen, silent, hard, part.tokens.shape[1])


def sample(places: Int[np.ndarray, "n"], most: int, generator: np.random.Generator) -> Int[np.ndarray, "m"]:
    return places if len(places) <= most else np.sort(generator.choice(places, most, replace=False))


def draw_silent(
    places: Int[np.ndarray, "n"], active: Int[np.ndarray, "active"], count: int, generator: np.random.Generator
) -> Int[np.ndarray, "m"]:
    """Different places where the component is silent. `active` ascends."""
    wanted = int(count * len(places) / max(1, len(places) - len(active))) + 8
    drawn = places[generator.integers(len(places), size=2 * wanted)] if len(places) else places
    drawn = np.unique(drawn)
    return sample(drawn[np.isin(drawn, active, invert=True)], count, generator)


def draw_same_tokens(
    chosen: Int[np.ndarray, "n"],
    positives: Int[np.ndarray, "p"],
    active: Int[np.ndarray, "active"],
    part: Part,
    generator: np.random.Generator,
) -> Int[np.ndarray, "m"]:
    """A silent place with the same token for each of the chosen positives, as far as all positives leave any for it."""
    tokens, number = np.unique(part.tokens.ravel()[chosen], return_inverse=True)
    places = part.occurrences(tokens)
    places = places[np.isin(places, active, invert=True)]
    count = np.bincount(np.searchsorted(tokens, part.tokens.ravel()[places]), minlength=len(tokens))
    of_all = positives[np.isin(part.tokens.ravel()[positives], tokens)]
    rivals = np.bincount(np.searchsorted(tokens, part.tokens.ravel()[of_all]), minlength=len(tokens))
    partners = number[generator.random(len(number)) * rivals[number] < count[number]]
    first = np.cumsum(count) - count
    return np.unique(places[first[partners] + (generator.random(len(partners)) * count[partners]).astype(np.int64)])


# --------------------------------------------------------------------------------------------------- the score


def balanced(evidence: Evidence, said: Bool[np.ndarray, "places"]) -> float:
    """Balanced accuracy alone, without its interval."""
    return 0.5 + float(evidence.weights @ said)


@dataclass(frozen=True)
class Score:
    """Balanced accuracy with its 95% interval, and the rates that it is made of."""

    value: float
    low: float
    high: float
    true_positive_rate: float
    true_negative_rate_random: float
    true_negative_rate_hard: float | None


def balanced_accuracy(evidence: Evidence, said: Bool[np.ndarray, "places"]) -> Score:
    """How well a sentence's yes and no (for `evidence.places`, in that order) tell positives from negatives.

    The interval: each rate has Wilson's, at an effective number of tokens n / (design effect), because tokens of one
    window are not independent: the design effect is the variance of the rate between windows over the binomial one,
    at least 1. A rate of exactly 0 or 1 shows no variance and counts windows instead of tokens. The three intervals are
    combined as squares (Zou & Donner 2008; Newcombe 1998).
    """
    groups = np.split(said, np.cumsum(evidence.sizes)[:-1])
    right = [groups[0], ~groups[1], ~groups[2]]
    windows = [p // evidence.context for p in (evidence.positives, evidence.random, evidence.hard)]
    rates = [rate(r, w) for r, w in zip(right, windows, strict=True)]
    shares = np.array(evidence.shares)
    value, low, high = (np.array([getattr(r, name) for r in rates]) for name in ("value", "low", "high"))
    score = float(shares @ value)
    below, above = float(np.linalg.norm(shares * (value - low))), float(np.linalg.norm(shares * (high - value)))
    hard = rates[2].value if len(evidence.hard) else None
    return Score(score, max(0.0, score - below), min(1.0, score + above), rates[0].value, rates[1].value, hard)


@dataclass(frozen=True)
class Rate:
    value: float
    low: float
    high: float


def rate(right: Bool[np.ndarray, "n"], window: Int[np.ndarray, "n"]) -> Rate:
    """The share of places that are right, with Wilson's 95% interval over windows."""
    if not len(right):
        return Rate(0.0, 0.0, 1.0)
    share, count = float(right.mean()), effective_count(right, window)
    centre = (share + Z * Z / (2 * count)) / (1 + Z * Z / count)
    half = Z / (1 + Z * Z / count) * np.sqrt(share * (1 - share) / count + Z * Z / (4 * count * count))
    return Rate(share, float(centre - half), float(centre + half))


def effective_count(right: Bool[np.ndarray, "n"], window: Int[np.ndarray, "n"]) -> float:
    """The number of independent tokens that would leave the share as uncertain as these windows do."""
    _, number = np.unique(window, return_inverse=True)
    clusters, share = int(number[-1] if np.all(number[:-1] <= number[1:]) else number.max()) + 1, right.mean()
    if share in (0, 1) or clusters == 1:
        return float(clusters)
    sums = np.bincount(number, weights=right - share)
    between = clusters / (clusters - 1) * float(sums @ sums) / len(right) ** 2
    return len(right) / max(1.0, between / (share * (1 - share) / len(right)))
