"""A part of a site is the same part whatever the padding: positions are absolute, and -1 is the last real token."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from microtome.core.errors import NoSuchPlace, NoSuchPosition, Refusal
from microtome.core.inputs import Arrays, Tokens
from microtome.core.site import Site
from tests.toys import RAGGED

SITE = Site("resid_post.3")
HEADS = Site("z.0", "batch pos head d")
PATTERN = Site("pattern.0", "batch head query key")


def numbered(inputs: Tokens, width: int = 2) -> Tensor:
    """A tensor that says of every place which row and position it is, and -1 where there is padding."""
    rows = torch.arange(len(inputs))[:, None].expand_as(inputs.ids)
    return torch.stack((rows, inputs.positions), -1).float()[..., :width]


ragged_rows = st.lists(st.lists(st.integers(1, 9), min_size=2, max_size=6), min_size=1, max_size=4)


@given(ragged_rows, st.booleans())
def test_minus_one_is_each_rows_last_real_token_on_whichever_side_the_padding_is(
    rows: list[list[int]], left: bool
) -> None:
    inputs = Tokens.of(rows, left=left)
    last = SITE.at(pos=-1).take(numbered(inputs), inputs)
    assert last.tolist() == [[r, len(row) - 1] for r, row in enumerate(rows)]


@given(ragged_rows, st.booleans(), st.integers(-2, 1))
def test_a_position_picks_the_same_token_of_each_row_on_whichever_side_the_padding_is(
    rows: list[list[int]], left: bool, p: int
) -> None:
    inputs = Tokens.of(rows, left=left)
    picked = Site("ids", "batch pos d").at(pos=p).take(inputs.ids[..., None], inputs)
    assert picked[:, 0].tolist() == [row[p] for row in rows]


@pytest.mark.parametrize("left", [False, True])
def test_several_positions_come_in_the_order_they_were_given(left: bool) -> None:
    inputs = Tokens.of(RAGGED, left=left)
    found = SITE.at(pos=[-1, 0]).take(numbered(inputs), inputs)
    assert found[..., 1].tolist() == [[4, 0], [1, 0], [6, 0]]


@pytest.mark.parametrize("left", [False, True])
def test_a_slice_of_positions_selects_only_real_tokens(left: bool) -> None:
    inputs = Tokens.of(RAGGED, left=left)
    selection = SITE.at(pos=slice(1, None)).select(inputs, torch.Size((3, 7, 2)))
    assert selection.rows.tolist() == [0] * 4 + [1] + [2] * 6
    assert selection.positions.tolist() == [1, 2, 3, 4, 1, 1, 2, 3, 4, 5, 6]


def test_a_slice_that_gives_rows_different_numbers_of_positions_cannot_be_taken_as_one_tensor() -> None:
    inputs = Tokens.of(RAGGED)
    with pytest.raises(Refusal, match=r"the rows have \[4, 1, 6\] such positions"):
        SITE.at(pos=slice(1, None)).take(numbered(inputs), inputs)


def test_a_slice_that_all_rows_have_keeps_its_axis() -> None:
    inputs = Tokens.of(RAGGED, left=True)
    assert SITE.at(pos=slice(-2, None)).take(numbered(inputs), inputs)[..., 1].tolist() == [[3, 4], [0, 1], [5, 6]]


def test_heads_and_positions_are_chosen_together() -> None:
    inputs, x = Tokens.of(RAGGED, left=True), torch.arange(3 * 7 * 4 * 2.0).view(3, 7, 4, 2)
    one = HEADS.at(pos=-1, head=2).take(x, inputs)
    two = HEADS.at(pos=-1, head=[2, 0]).take(x, inputs)
    assert torch.equal(one, x[:, -1, 2]) and torch.equal(two, x[:, -1][:, [2, 0]])


def test_a_query_may_be_one_position_and_a_key_another() -> None:
    inputs, x = Tokens.of(RAGGED, left=True), torch.arange(3 * 2 * 7 * 7.0).view(3, 2, 7, 7)
    firsts = [7 - len(row) for row in RAGGED]
    found = PATTERN.at(query=-1, key=0).take(x, inputs)
    assert torch.equal(found, torch.stack([x[r, :, -1, first] for r, first in enumerate(firsts)]))


def test_choosing_a_row_keeps_the_batch_axis() -> None:
    inputs = Tokens.of(RAGGED)
    assert SITE.at(batch=1).take(numbered(inputs), inputs).shape == (1, 7, 2)
    assert SITE.at(batch=1, pos=0).take(numbered(inputs), inputs).tolist() == [[1, 0]]
    assert SITE.at(batch=-1, pos=-1).take(numbered(inputs), inputs).tolist() == [[2, 6]]


def test_what_is_taken_is_what_the_selection_puts_back() -> None:
    inputs, x = Tokens.of(RAGGED), torch.zeros(3, 7, 2)
    x[SITE.at(pos=-1).select(inputs, x.shape).index] = 1.0
    assert torch.equal(x.sum((1, 2)), torch.full((3,), 2.0)) and torch.equal(
        SITE.at(pos=-1).take(x, inputs), torch.ones(3, 2)
    )


@given(st.integers(-4, 3), st.integers(1, 3))
def test_positions_of_an_array_are_its_columns(p: int, count: int) -> None:
    inputs, x = Arrays((torch.arange(count * 4.0).view(count, 4),)), torch.arange(count * 8.0).view(count, 4, 2)
    assert torch.equal(SITE.at(pos=p).take(x, inputs), x[:, p])
    assert torch.equal(SITE.at(pos=[p, 0]).take(x, inputs), x[:, [p, 0]])
    assert torch.equal(SITE.at(pos=slice(1, 3)).take(x, inputs), x[:, 1:3])


def test_an_empty_slice_selects_nothing() -> None:
    for inputs in (Arrays((torch.zeros(2, 4),)), Tokens.of([[1, 2, 3, 4]] * 2)):
        selection = SITE.at(pos=slice(9, None)).select(inputs, torch.Size((2, 4, 3)))
        assert torch.zeros(2, 4, 3)[selection.index].shape == (0, 3)


def test_rows_and_repetitions_of_a_batch_keep_their_positions() -> None:
    inputs = Tokens.of(RAGGED, left=True)
    assert torch.equal(inputs.repeat(2).positions, inputs.positions.repeat(2, 1))
    assert torch.equal(inputs.repeat(2).rows(slice(3, 6)).ids, inputs.ids)


@pytest.mark.parametrize(
    ("where", "error", "sentence"),
    [
        (dict(pos=2), NoSuchPosition, "row 1 has 2 tokens, so no position 2; positions count from 0, or back from -1"),
        (dict(pos=[0, -3]), NoSuchPosition, "row 1 has 2 tokens, so no position -3"),
        (dict(batch=3), NoSuchPlace, "the batch has 3 rows, so no row 3"),
        (dict(d=2), NoSuchPlace, "site 'resid_post.3' has 2 places along 'd', so no d 2"),
        (dict(batch=(0, 1)), Refusal, r"choose rows of the batch by a number or a slice, not \(0, 1\)"),
    ],
)
def test_a_place_that_is_not_there_is_refused(where: dict, error: type, sentence: str) -> None:
    inputs = Tokens.of(RAGGED)
    with pytest.raises(error, match=sentence):
        SITE.at(**where).select(inputs, torch.Size((3, 7, 2)))


def test_two_lists_are_refused_rather_than_paired() -> None:
    with pytest.raises(Refusal, match="only one of"):
        HEADS.at(head=[0, 1], d=[0, 1]).select(Tokens.of(RAGGED), torch.Size((3, 7, 4, 2)))
    with pytest.raises(Refusal, match="only the first of"):
        PATTERN.at(query=-1, key=[0, 1]).select(Tokens.of(RAGGED), torch.Size((3, 2, 7, 7)))


def test_a_site_says_what_it_is() -> None:
    assert str(HEADS.at(pos=slice(2, None), head=3)) == "z.0[head=3][pos=2:]"
    assert SITE.layer == 3 and Site("embed").layer is None and SITE.at(pos=1).whole == SITE
