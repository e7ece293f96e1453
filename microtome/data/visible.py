"""Which character a model's token is known by: the first one that is visible."""

import numpy as np
from jaxtyping import Bool, Int


def first_visible(source: str, offsets: Int[np.ndarray, "tokens 2"]) -> Int[np.ndarray, "tokens"]:
    """Where each token's first visible character stands; its first character where there is none."""
    start, end = offsets.T
    nearest = next_visible(source)[np.minimum(start, len(source))]
    return np.where(nearest < end, nearest, start)


def any_of_space(
    source: str, row: Bool[np.ndarray, "characters"], offsets: Int[np.ndarray, "tokens 2"]
) -> Bool[np.ndarray, "tokens"]:
    """Which tokens are white space alone and touch a character of this row."""
    start, end = offsets.T
    before = np.concatenate([[0], np.cumsum(row)])
    return (next_visible(source)[np.minimum(start, len(source))] >= end) & (before[end] > before[start])


def next_visible(source: str) -> Int[np.ndarray, "characters_and_end"]:
    """The next character at or after each one that is not white space; the text's length where none is left."""
    visible = np.fromiter((not c.isspace() for c in source), bool, len(source))
    places = np.where(visible, np.arange(len(source)), len(source))
    return np.append(np.minimum.accumulate(places[::-1])[::-1], len(source))
