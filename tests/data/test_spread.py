"""Spreading keeps every window and changes only the order: each document comes at even distances."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.core.errors import Refusal
from microtome.data.spread import spread
from microtome.data.windows import Window

CONTEXT = 4


def text(sizes: list[int]) -> Iterator[Window]:
    """Documents of so many windows, one after another; the tokens number the windows."""
    number = 0
    for document, size in enumerate(sizes):
        for _ in range(size):
            yield Window(np.full(CONTEXT, number), f"document {document}", np.zeros((CONTEXT, 0), bool))
            number += 1


def numbers(found: Iterator[Window]) -> list[int]:
    return [int(window.tokens[0]) for window in found]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 9), max_size=12), st.integers(0, 200), st.text(max_size=3))
def test_every_window_comes_once_in_an_order_of_the_seed_alone(sizes: list[int], room: int, seed: str) -> None:
    found = numbers(spread(text(sizes), room, seed))
    assert sorted(found) == list(range(sum(sizes)))
    assert found == numbers(spread(text(sizes), room, seed))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(2, 6), st.integers(0, 99))
def test_any_stretch_has_every_document_that_a_shuffle_would_be_sure_to_show(
    sizes: list[int], parts: int, seed: int
) -> None:
    found = [window.document for window in spread(text(sizes), 10**6, str(seed))]
    length = -(-len(found) // parts)
    long = [f"document {i}" for i, size in enumerate(sizes) if size >= 3 * parts and len(sizes) * parts <= len(found)]
    for begin in range(0, len(found) - length + 1, length):
        assert set(long) <= set(found[begin : begin + length + len(sizes)])


def test_a_window_is_no_further_off_than_its_room() -> None:
    sizes, room = [30] * 20, 50
    found = numbers(spread(text(sizes), room * CONTEXT, "a"))
    assert all(abs(place - number) < room for place, number in enumerate(found))
    assert found != list(range(600)) and numbers(spread(text(sizes), 0, "a")) == list(range(600))


def test_what_is_no_window_stays_where_it_is() -> None:
    ones, others = list(text([5])), list(text([3]))
    found = list(spread([*ones, "a batch", *others], 10**6, "a"))
    assert found[5] == "a batch" and {id(w) for w in found[:5]} == {id(w) for w in ones}


def test_a_room_below_zero_is_refused() -> None:
    with pytest.raises(Refusal, match="spread is -1 tokens; give how many tokens of text to put in order"):
        list(spread(text([2]), -1, "a"))
