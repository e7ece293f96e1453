"""What a rule may say of a token: which it is, which stood before it, what it is called, what its text looks like.

Everything a condition looks at is the token itself or lies before it, as it does for a causal model. (For a model that
reads both ways these conditions still hold true or not; they leave out what stands after.) A condition answers for any
places at once, from tables that are made once for a text.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int

RECENT = 16  # tokens that "recently" reaches back
NOTHING = -1  # the token before the window's first

SPELLINGS: dict[str, Callable[[str], bool]] = {
    "after a space": lambda s: s[:1] == " " and not s.isspace(),
    "capitalised": lambda s: bool(re.match(r"\s*_*[A-Z]", s)),
    "in capitals": lambda s: bool(re.fullmatch(r"\s*[A-Z_]*[A-Z][A-Z_]+", s)),
    "lower-case letters": lambda s: bool(re.fullmatch(r"\s*[a-z]+", s)),
    "digits": lambda s: any(c.isdigit() for c in s),
    "punctuation": lambda s: not s.isspace() and not any(c.isalnum() or c == "_" for c in s),
    "white space": lambda s: s.isspace(),
    "line break": lambda s: "\n" in s,
    "one letter": lambda s: len(s.strip()) == 1 and s.strip().isalpha(),
    "long piece of a word": lambda s: len(s.strip()) >= 6 and s.strip().isalpha(),
    "not ASCII": lambda s: not s.isascii(),
}
ENDS_SENTENCE = re.compile(r".*[.!?][\"')\]]*\s*", re.DOTALL)


@dataclass(frozen=True)
class Reading:
    """A text as rules see it: tokens, their strings, their labels, and tables made from them when first asked for."""

    tokens: Int[np.ndarray, "windows context"]
    vocabulary: Sequence[str]
    labels: Bool[np.ndarray, "windows context labels"]
    label_names: tuple[str, ...]

    @property
    def context(self) -> int:
        return self.tokens.shape[1]

    @cached_property
    def facts(self) -> Bool[np.ndarray, "places facts"]:
        """Every yes-or-no fact of every token: labels, spelling, position, repetition."""
        labels = self.labels.reshape(self.tokens.size, -1).astype(bool)
        here = np.concatenate([labels, self._spelling(), self._surroundings()], 1)
        before = np.zeros_like(labels)
        before[1:] = labels[:-1]
        return np.concatenate([here, before[:, self._kinds]], 1)

    @cached_property
    def fact_names(self) -> tuple[str, ...]:
        after = tuple(f"after {self.label_names[n]}" for n in self._kinds)
        return self.label_names + tuple(SPELLINGS) + tuple(SURROUNDINGS) + after

    @cached_property
    def _kinds(self) -> list[int]:
        """Labels that are kinds, not places: worth asking of the token before as well."""
        return [n for n, name in enumerate(self.label_names) if not name.startswith(("in ", "at ", "indent", "blank"))]

    def _spelling(self) -> Bool[np.ndarray, "places spellings"]:
        table = np.array([[looks(s) for looks in SPELLINGS.values()] for s in self.vocabulary], bool)
        return table[self.tokens.ravel()]

    def _surroundings(self) -> Bool[np.ndarray, "places surroundings"]:
        return np.stack([where(self).ravel() for where in SURROUNDINGS.values()], 1)

    def of_vocabulary(self, test: Callable[[str], bool]) -> Bool[np.ndarray, "windows context"]:
        return np.array([test(s) for s in self.vocabulary], bool)[self.tokens]

    @cached_property
    def slots(self) -> dict[str, Int[np.ndarray, "places"]]:
        """The tokens that a condition may name, for every place."""
        before = {f"before {n}": shifted(self.tokens, n).ravel() for n in (1, 2, 3)}
        return {"here": self.tokens.ravel(), **before, "line": self._line_beginnings().ravel()}

    def _line_beginnings(self) -> Int[np.ndarray, "windows context"]:
        """The first visible token of the line that each token is on; a line break is on the line that it ends."""
        first = self.first_on_line
        place = np.where(first, np.arange(self.context), -1)
        place = np.maximum.accumulate(place, axis=1)
        found = np.take_along_axis(self.tokens, np.maximum(place, 0), 1)
        return np.where(place >= 0, found, NOTHING)

    @cached_property
    def first_on_line(self) -> Bool[np.ndarray, "windows context"]:
        breaks, visible = self.of_vocabulary(lambda s: "\n" in s), ~self.of_vocabulary(str.isspace)
        number = np.arange(self.context)
        last_break = np.maximum.accumulate(np.where(breaks, number, 0), axis=1)
        last_visible = np.maximum.accumulate(np.where(visible, number, -1), axis=1)
        before = np.concatenate([np.full((len(self.tokens), 1), -1), last_visible[:, :-1]], 1)
        began = np.concatenate([np.zeros((len(self.tokens), 1), int), last_break[:, :-1]], 1)
        return visible & (before <= began) & (began > 0)

    def recent(self, places: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n recent"]:
        """The tokens before each place, nearest first, within its window."""
        back = np.arange(1, RECENT + 1)
        found = self.tokens.ravel()[np.maximum(places[:, None] - back, 0)]
        return np.where(back <= (places % self.context)[:, None], found, NOTHING)


def shifted(tokens: Int[np.ndarray, "windows context"], by: int) -> Int[np.ndarray, "windows context"]:
    found = np.full_like(tokens, NOTHING)
    found[:, by:] = tokens[:, :-by]
    return found


def seen_before(values: Int[np.ndarray, "windows context"]) -> Bool[np.ndarray, "windows context"]:
    """Whether the same value stands earlier in the window (position 0 left out)."""
    order = np.argsort(values, axis=1, kind="stable")
    ranked = np.take_along_axis(values, order, 1)
    again = np.concatenate([np.zeros((len(values), 1), bool), ranked[:, 1:] == ranked[:, :-1]], 1)
    found = np.zeros_like(again)
    np.put_along_axis(found, order, again, 1)
    return found


def pair_seen_before(reading: Reading) -> Bool[np.ndarray, "windows context"]:
    pairs = shifted(reading.tokens, 1).astype(np.int64) * len(reading.vocabulary) + reading.tokens
    return seen_before(pairs)


def continues_word(reading: Reading) -> Bool[np.ndarray, "windows context"]:
    begins = reading.of_vocabulary(lambda s: bool(re.match(r"\w", s)))
    ends = reading.of_vocabulary(lambda s: bool(re.search(r"\w\Z", s)))
    return np.concatenate([np.zeros((len(begins), 1), bool), begins[:, 1:] & ends[:, :-1]], 1)


def begins_sentence(reading: Reading) -> Bool[np.ndarray, "windows context"]:
    ends = reading.of_vocabulary(lambda s: bool(ENDS_SENTENCE.fullmatch(s)))
    capital = reading.of_vocabulary(SPELLINGS["capitalised"])
    return np.concatenate([np.zeros((len(ends), 1), bool), capital[:, 1:] & ends[:, :-1]], 1)


def quotation_open(reading: Reading) -> Bool[np.ndarray, "windows context"]:
    """An odd number of double quotation marks so far in the window."""
    marks = np.array([s.count('"') for s in reading.vocabulary])[reading.tokens]
    return (np.cumsum(marks, 1) - marks) % 2 == 1


def within(first: int) -> Callable[[Reading], Bool[np.ndarray, "windows context"]]:
    return lambda reading: np.broadcast_to(np.arange(reading.context) <= first, reading.tokens.shape)


SURROUNDINGS: dict[str, Callable[[Reading], Bool[np.ndarray, "windows context"]]] = {
    "seen before in the window": lambda reading: seen_before(reading.tokens),
    "pair of tokens seen before in the window": pair_seen_before,
    "continuing a word": continues_word,
    "first word of a sentence": begins_sentence,
    "in an open quotation": quotation_open,
    "first on its line": lambda reading: reading.first_on_line,
    "in the first 3 tokens of the window": within(3),
    "in the first 15 tokens of the window": within(15),
    "in the first 63 tokens of the window": within(63),
}


@runtime_checkable
class Condition(Protocol):
    """One yes-or-no question about places of a text."""

    def holds(self, reading: Reading, places: Int[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]: ...
    def words(self) -> dict:
        """The condition in plain values, for the record."""
        ...


@dataclass(frozen=True)
class TokenIs:
    """The token in a slot ("here", "before 1", "line") is one of these."""

    slot: str
    tokens: tuple[int, ...]

    def holds(self, reading: Reading, places: Int[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
        return np.isin(reading.slots[self.slot][places], self.tokens)

    def words(self) -> dict:
        return {"kind": "token", "slot": self.slot, "tokens": list(self.tokens)}


@dataclass(frozen=True)
class Recently:
    """This token stands among the last few."""

    token: int

    def holds(self, reading: Reading, places: Int[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
        return (reading.recent(places) == self.token).any(1)

    def words(self) -> dict:
        return {"kind": "recent", "token": self.token, "reach": RECENT}


@dataclass(frozen=True)
class Fact:
    """A label or another fact of the token itself."""

    number: int
    name: str

    def holds(self, reading: Reading, places: Int[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
        return reading.facts[places, self.number]

    def words(self) -> dict:
        return {"kind": "fact", "name": self.name}


@dataclass(frozen=True)
class Not:
    condition: Condition

    def holds(self, reading: Reading, places: Int[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
        return ~self.condition.holds(reading, places)

    def words(self) -> dict:
        return {"kind": "not", "condition": self.condition.words()}


@dataclass(frozen=True)
class Rule:
    """All of these conditions at once: at most three."""

    conditions: tuple[Condition, ...]

    @classmethod
    def of(cls, *conditions: Condition) -> "Rule":
        return cls(conditions)

    def holds(self, reading: Reading, places: Int[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
        return np.logical_and.reduce([c.holds(reading, places) for c in self.conditions])
