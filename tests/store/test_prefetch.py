"""Work done ahead: the same items in the same order, never too many, and a thread that always ends."""

import gc
import threading
from collections.abc import Iterator

import pytest

from microtome.store.prefetch import Prefetch


def test_items_come_in_order_whatever_the_thread_does() -> None:
    assert list(Prefetch(range(200), 3)) == list(range(200))
    assert list(Prefetch([], 1)) == [] and list(Prefetch([None, [], None], 2)) == [None, [], None]


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_never_more_are_made_ahead_than_was_said(ahead: int) -> None:
    made, taken, most = 0, 0, 0

    def source() -> Iterator[int]:
        nonlocal made, most
        for i in range(50):
            made += 1
            most = max(most, made - taken)
            yield i

    found = Prefetch(source(), ahead)
    for i in range(50):
        assert next(found) == i
        taken += 1
    assert most <= ahead + 1  # the item that is being taken is not yet counted as taken


def test_it_works_ahead() -> None:
    begun = threading.Event()

    def source() -> Iterator[int]:
        yield 0
        begun.set()
        yield 1

    with Prefetch(source(), 2) as found:
        assert begun.wait(10)  # nothing has been taken
        assert list(found) == [0, 1]


def test_what_is_raised_is_raised_here_after_what_came_before() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise KeyError("a reason")

    found = Prefetch(source(), 3)
    assert next(found) == 1
    with pytest.raises(KeyError, match="a reason"):
        next(found)
    found.thread.join(10)
    assert not found.thread.is_alive() and list(found) == []


def endless() -> Iterator[int]:
    while True:
        yield 1


def test_closing_stops_the_thread_and_so_does_an_exception_in_the_block() -> None:
    with pytest.raises(RuntimeError), Prefetch(endless(), 2) as found:
        next(found)
        raise RuntimeError
    assert not found.thread.is_alive() and list(found) == []
    found.close()  # once more does no harm


def test_one_that_is_forgotten_ends_its_thread() -> None:
    found = Prefetch(endless(), 1)
    next(found)
    thread = found.thread
    del found
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()
