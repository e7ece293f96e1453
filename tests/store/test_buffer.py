"""The mixing buffer: every row once, batches of one size, few copies, and batches that hold rows from everywhere."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from microtome.core.errors import Refusal
from microtome.store.buffer import MixingBuffer


def through(buffer: MixingBuffer, parts: list[Tensor]) -> list[Tensor]:
    """All batches that come out when these go in."""
    for part in parts:
        buffer.add({"a": part, "b": -part}, torch.arange(len(part)))
    buffer.drain()
    found = []
    while buffer.ready:
        values = buffer.serve()
        assert torch.equal(values["b"], -values["a"])
        found.append(values["a"])
    return found


def numbered(rows: int) -> Tensor:
    return torch.arange(rows).float()[:, None]


def mixing(batch: int, size: int, seed: int = 0) -> MixingBuffer:
    return MixingBuffer(batch, size, torch.Generator().manual_seed(seed))


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 12), st.integers(1, 12), st.lists(st.integers(0, 60), max_size=8), st.integers(0, 9))
def test_every_row_comes_once_and_only_less_than_a_batch_is_left(
    batch: int, pages: int, sizes: list[int], seed: int
) -> None:
    rows = numbered(sum(sizes))
    found = through(mixing(batch, batch * pages, seed), list(rows.split(sizes)))
    served = torch.cat([rows[:0], *found])[:, 0].tolist()
    assert len(set(served)) == len(served) == len(rows) // batch * batch
    assert all(len(x) == batch for x in found)


def test_a_row_is_copied_once_but_for_the_last_of_the_buffer() -> None:
    buffer = mixing(10, 200)
    found = through(buffer, list(numbered(3000).split(70)))
    assert buffer.served == 2 * 3000 == 2 * 10 * len(found)
    assert 2 * 3000 <= buffer.copied <= 2 * (3000 + 200 / 8 + 20)


def test_only_the_rows_that_are_wanted_go_in() -> None:
    buffer = mixing(5, 10)
    buffer.add({"a": numbered(100)}, torch.arange(0, 100, 2))
    buffer.drain()
    found = torch.cat([buffer.serve()["a"] for _ in range(len(buffer.ready))])
    assert sorted(found[:, 0].tolist()) == list(range(0, 100, 2))


def test_a_batch_that_was_served_is_written_into_no_more() -> None:
    buffer = mixing(4, 16)
    buffer.add({"a": numbered(40)}, torch.arange(40))
    first = buffer.serve()["a"]
    before = first.clone()
    buffer.add({"a": numbered(400)}, torch.arange(400))
    assert torch.equal(first, before)


def test_a_batch_becomes_full_after_every_so_many_rows_once_the_buffer_is_as_full_as_it_gets() -> None:
    buffer, ready = mixing(8, 64), []
    for row in range(400):
        buffer.add({"a": numbered(1)}, torch.arange(1))
        ready += [row + 1] * len(buffer.ready)
        buffer.ready.clear()
    expected = range((64 - 8) // 2 + 8, 401, 8)
    assert len(ready) in (len(expected), len(expected) + 1)
    assert all(abs(one - other) < 8 for one, other in zip(ready, expected, strict=False))  # within a turn of 8 pages


def test_a_batch_holds_rows_from_the_whole_of_the_buffer_evenly() -> None:
    batch, size = 64, 64 * 16
    found = through(mixing(batch, size), list(numbered(10 * size).split(100)))
    for x in found[2 * size // batch : -size // batch]:
        ages = x.max() - x[:, 0]
        spread = torch.histc(ages, bins=4, min=0, max=size)
        assert ages.max() < size and (spread >= batch / 4 - 2).all()  # a turn's order may push a row over an edge


def test_neighbours_come_to_lie_in_different_batches() -> None:
    found = through(mixing(32, 32 * 40), list(numbered(6400).split(200)))
    for x in found:
        order = x[:, 0].sort().values
        assert (order.diff() <= 2).float().mean() < 0.2


def test_another_buffer_goes_on_from_a_state_bit_for_bit() -> None:
    parts = list(numbered(700).split(33))
    whole = through(mixing(7, 70), parts)
    first = mixing(7, 70)
    for part in parts[:9]:
        first.add({"a": part, "b": -part}, torch.arange(len(part)))
    state = first.state_dict()
    through(first, parts[9:])  # what goes on here leaves the state as it was
    other = mixing(7, 70, seed=5)
    other.load_state_dict(state)
    assert all(torch.equal(one, two) for one, two in zip(through(other, parts[9:]), whole, strict=True))


@pytest.mark.parametrize(("batch", "size", "near"), [(4, 10, 8), (4, 3, 4), (8, 31, 32), (5, 0, 5)])
def test_a_size_that_is_no_multiple_of_the_batch_is_refused(batch: int, size: int, near: int) -> None:
    with pytest.raises(Refusal, match=f"buffer is {size} rows, .* the batch of {batch}; give {near}"):
        mixing(batch, size)
