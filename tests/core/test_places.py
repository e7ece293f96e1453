"""Which numbers an edit at a position touches: checked one by one, wherever the padding lies."""

from collections.abc import Iterable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.core.edit import patch, zero
from microtome.core.editing import compose
from microtome.core.errors import NoSuchPosition, Refusal
from microtome.core.inputs import Arrays, Tokens, with_start
from microtome.core.site import Site
from microtome.core.trace import Trace

ROWS = [[1, 2, 3, 4, 5], [1, 2, 3]]
LEFT, RIGHT = Tokens.of(ROWS, left=True), Tokens.of(ROWS)
Z, PATTERN = Site("z.0", "batch pos head d"), Site("pattern.0", "batch head query key")


def some(at: object, size: int) -> Iterable[int]:
    each = range(*at.indices(size)) if isinstance(at, slice) else [at] if isinstance(at, int) else at
    return [a % size for a in each]


positions = st.one_of(
    st.integers(-3, 2), st.lists(st.integers(-3, 2), min_size=1, max_size=2).map(tuple), st.just(slice(0, 2))
)
heads = st.one_of(st.none(), st.integers(0, 3), st.just((0, 2)))


@given(positions, heads, st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_patch_meets_the_same_position_under_other_padding(pos: object, head: object, left_first: bool) -> None:
    here, there = (LEFT, RIGHT) if left_first else (RIGHT, LEFT)
    x, y = torch.randn(2, 5, 4, 3), torch.randn(2, 5, 4, 3)
    place = Z.at(pos=pos) if head is None else Z.at(pos=pos, head=head)
    left, _ = compose([patch(place, Trace(there, {"z.0": y}))], x, Trace(here, {}))
    expected = x.clone()
    for row, ids in enumerate(ROWS):
        for p in some(pos, len(ids)):
            for h in range(4) if head is None else some(head, 4):
                column = [(here.positions[row] == p), (there.positions[row] == p)]
                expected[row, column[0], h] = y[row, column[1], h]
    assert torch.equal(left, expected)


@pytest.mark.parametrize(
    "where", [{"query": -1, "key": 0}, {"query": -1, "key": 0, "head": (1, 3)}, {"query": (0, 1), "key": -1, "head": 1}]
)
def test_a_patch_of_one_query_and_key(where: dict) -> None:
    x, y = torch.randn(2, 4, 5, 5), torch.randn(2, 4, 5, 5)
    left, _ = compose([patch(PATTERN.at(**where), Trace(RIGHT, {"pattern.0": y}))], x, Trace(LEFT, {}))
    expected = x.clone()
    for row, ids in enumerate(ROWS):
        gap = 5 - len(ids)
        for q in some(where["query"], len(ids)):
            for k in some(where["key"], len(ids)):
                for h in some(where.get("head", (0, 1, 2, 3)), 4):
                    expected[row, h, gap + q, gap + k] = y[row, h, q, k]
    assert torch.equal(left, expected)


def test_a_whole_axis_cannot_be_patched_over_other_padding() -> None:
    x = torch.randn(2, 4, 5, 5)
    with pytest.raises(Refusal, match="also choose positions of 'query'"):
        compose([patch(PATTERN.at(key=1), Trace(RIGHT, {"pattern.0": x}))], x, Trace(LEFT, {}))


def test_positions_of_arrays_are_counted_along_the_site() -> None:
    pictures, x = Arrays((torch.randn(2, 3, 8, 8),)), torch.ones(2, 5, 4)
    left, touched = compose([zero(Site("resid_post.0").at(pos=-1))], x, Trace(pictures, {}))
    assert touched == [8] and not left[:, 4].any() and left[:, :4].all()
    with pytest.raises(NoSuchPosition, match="5 positions"):
        Site("resid_post.0").at(pos=5).select(pictures, x.shape)


def test_under_a_cache_a_position_is_still_that_position() -> None:
    chunk = with_start(Tokens.of([[7], [8]]), torch.tensor([5, 3]), torch.tensor([5, 3]))
    assert Site("resid_post.0").at(pos=5).select(chunk, torch.Size((2, 1, 4))).rows.tolist() == [0]
    assert Site("resid_post.0").at(pos=slice(-1, None)).select(chunk, torch.Size((2, 1, 4))).rows.tolist() == [0, 1]
    assert not len(Site("resid_post.0").at(pos=-1).select(chunk, torch.Size((2, 1, 4))).rows)


def test_a_trace_knows_what_it_holds() -> None:
    trace = Trace(RIGHT, {"z.0": torch.zeros(2, 5, 4, 3)})
    assert "z.0" in trace and Z in trace and "z.1" not in trace
