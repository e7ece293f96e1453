"""Filters: which places they keep, in what order they are asked, and what they refuse."""

import pytest
import torch
from torch import Tensor

from microtome.core.errors import Refusal
from microtome.core.inputs import Arrays, Tokens
from microtome.store.filters import Filter, HighNorm, Positions, SpecialTokens
from microtome.store.passes import Pass, Reader
from tests import toys
from tests.store.echo import Echo, origins


def read(inputs: Tokens, *filters: Filter) -> Pass:
    return Reader(Echo(), "echo", filters).read(inputs)


def kept(inputs: Tokens, *filters: Filter) -> list[tuple[int, int]]:
    return origins(read(inputs, *filters).rows()["echo"])


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize(
    ("which", "slices"),
    [(Positions(), slice(1, None)), (Positions(0), slice(None)), (Positions(2, -1), slice(2, -1)),
     (Positions(-3), slice(-3, None)), (Positions(None, 2), slice(None, 2))],
)  # fmt: skip
def test_positions_are_those_of_the_real_tokens(left: bool, which: Positions, slices: slice) -> None:
    expected = [(token, p) for row in toys.RAGGED for p, token in list(enumerate(row))[slices]]
    if which.start == -3:  # of a row of two, the last three are those two
        expected = [(t, p) for row in toys.RAGGED for p, t in enumerate(row) if p >= len(row) - 3]
    assert kept(toys.rows(ragged=True, left=left), which) == expected


def test_special_tokens_are_dropped_wherever_they_stand() -> None:
    found = kept(toys.rows(ragged=True), SpecialTokens((5, 9)))
    assert found == [(t, p) for row in toys.RAGGED for p, t in enumerate(row) if t not in (5, 9)]
    tokenizer = type("Tokenizer", (), {"all_special_ids": [7, 0, 7]})()
    assert SpecialTokens.of(tokenizer) == SpecialTokens((0, 7))


def long(*norms: float) -> Tokens:
    """Rows of `echo` at position 0, as long as this."""
    return Tokens.of([[int(n)] for n in norms])


def test_rows_longer_than_a_multiple_of_the_median_are_dropped() -> None:
    assert kept(long(1, 2, 3, 30, 31), HighNorm(10.0)) == [(1, 0), (2, 0), (3, 0), (30, 0)]


def test_the_median_is_over_what_earlier_filters_kept_and_padding_is_not_counted() -> None:
    inputs = Tokens.of([[90, 1], [80, 2], [70, 3], [60, 40]])
    assert kept(inputs, Positions(), HighNorm(10.0)) == [(1, 1), (2, 1), (3, 1)]
    assert len(kept(inputs, HighNorm(10.0))) == 8
    ragged = Tokens.of([[50], [40], [60, 1, 1, 1, 1, 1]])  # ten columns of padding would make the median nought
    assert (50, 0) in kept(ragged, HighNorm(50.0))


def test_a_row_that_is_long_at_any_site_is_dropped_at_all() -> None:
    class Sink(Echo):
        def _of_tokens(self, inputs: Tokens) -> dict[str, Tensor]:
            made = super()._of_tokens(inputs)
            return made | {"twice": made["twice"].masked_fill((inputs.ids == 3)[..., None], 1e4)}

    rows = Reader(Sink(), ["echo", "twice"], [HighNorm()]).read(long(1, 2, 3, 4)).rows()
    assert rows["echo"][:, 0].tolist() == [1, 2, 4] and rows["twice"][:, 2].tolist() == [1, 2, 4]


def test_each_filter_counts_what_it_dropped_of_what_came_to_it() -> None:
    filters = Positions(), SpecialTokens((5,)), Positions(0, 3)
    found = read(toys.rows(ragged=True), *filters)
    assert found.dropped == {
        "Positions(start=1, stop=None)": 3,
        "SpecialTokens(ids=(5,))": 3,
        "Positions(start=0, stop=3)": 4,
    }
    assert len(found.kept) == sum(map(len, toys.RAGGED)) - 10
    assert all(isinstance(each, Filter) for each in filters)


def test_pictures_have_no_positions_and_no_tokens() -> None:
    picture = Arrays((torch.randn(2, 3, 4, 4),))
    assert len(Reader(Echo(), "picture").read(picture).kept) == 32
    with pytest.raises(
        Refusal, match=r"Positions\(start=2, stop=None\) needs a site with a 'pos' axis, .* batch, y, x"
    ):
        Reader(Echo(), "picture", [Positions(2)]).read(picture)
    with pytest.raises(Refusal, match="needs rows of tokens and sites with a 'pos' axis, not Arrays"):
        Reader(Echo(), "picture", [SpecialTokens((1,))]).read(picture)
