"""Permuted copies are universal, rotations of them are not, and correlations are those of torch."""

import pytest
import torch

from microtome.circuits.universality import (
    beyond_the_token,
    head_activity,
    interval,
    refuse_other_rows,
    rotated,
    standardised,
    unit_activity,
    universality,
)
from microtome.core.errors import Refusal
from microtome.core.inputs import Tokens
from tests import toys
from tests.models import zoo


def sparse(generator: torch.Generator, rows: int = 400, units: int = 12) -> torch.Tensor:
    """Units with axes of their own: mostly silent."""
    return torch.rand(rows, units, generator=generator) * (torch.rand(rows, units, generator=generator) < 0.1)


def test_a_permuted_copy_is_found_whole_and_a_rotated_one_is_not(generator: torch.Generator) -> None:
    x, order = sparse(generator), torch.randperm(12, generator=generator)
    same = universality(x, 3 * x[:, order] + 1, generator)
    assert same.matches.second[same.matches.first.argsort()].equal(order.argsort())
    torch.testing.assert_close(same.alike, torch.ones(12))
    assert same.universal.all()
    turned = universality(x, rotated(x, generator), generator, rotations=40)
    assert turned.universal.float().mean() < 0.4 and turned.excess.mean().abs() < 0.1


def test_a_rotation_keeps_lengths_and_what_all_units_say_together(generator: torch.Generator) -> None:
    x = sparse(generator)
    turned = rotated(x, generator)
    centred = x - x.mean(0)
    torch.testing.assert_close(turned @ turned.T, centred @ centred.T, atol=1e-5, rtol=1e-4)


def test_products_of_standardised_units_are_correlations_and_a_silent_unit_has_none(generator: torch.Generator) -> None:
    x = torch.cat([sparse(generator), torch.full((400, 1), 3.0)], 1)
    s = standardised(x)
    torch.testing.assert_close(s[:12] @ s[:12].T, torch.corrcoef(x[:, :12].T), atol=1e-5, rtol=1e-4)
    assert not s[12].any()


def test_an_interval_holds_its_mean_and_shrinks_with_more_units(generator: torch.Generator) -> None:
    few, many = (interval(torch.randn(n, generator=generator), generator, 500) for n in (20, 2000))
    assert few.low < few.mean < few.high
    assert many.high - many.low < few.high - few.low
    same = interval(torch.full((5,), 0.3), generator, 10)
    assert same.low == pytest.approx(same.mean) == pytest.approx(same.high)


def test_units_are_read_at_real_places_alone() -> None:
    model, site = toys.residual(), "mlp_act.0"
    ragged = toys.rows(ragged=True)
    found = unit_activity(model, ragged, [model.site(site), model.site("mlp_act.1")])
    singly = [model.run(row, read=[model.site(site)])[site][0] for row in toys.singly(toys.RAGGED)]
    torch.testing.assert_close(found[:, : toys.NEURONS], torch.cat(singly))
    assert found.shape[1] == 2 * toys.NEURONS


def test_beyond_the_token_is_nothing_of_token_and_place_and_all_of_the_context(generator: torch.Generator) -> None:
    ids = torch.randint(2, (60, 4), generator=generator)
    mask = torch.ones(60, 4, dtype=torch.bool)
    mask[::3, 3] = False
    tokens = Tokens(ids, mask)
    of_both = torch.randn(2, 4, generator=generator)[ids, torch.arange(4)][mask]
    of_context = (ids[:, :1] * torch.ones(4))[mask]  # the first token, wherever one stands
    found = beyond_the_token(torch.stack([of_both, of_context, of_both + of_context], 1), tokens)
    torch.testing.assert_close(found[:, 0], torch.zeros(len(found)), atol=1e-6, rtol=0)
    torch.testing.assert_close(found[:, 1], found[:, 2], atol=1e-6, rtol=0)
    later = (tokens.positions > 0)[mask]
    assert not found[~later, 1].any() and found[later, 1].abs().min() > 0.1


def test_heads_of_a_network_are_like_themselves() -> None:
    model = zoo.model("gpt2")
    tokens = Tokens.of([[5, 6, 7, 8, 5, 6, 7], [9, 10, 11, 9, 12, 13, 14]])
    heads = head_activity(model, tokens)
    assert heads.shape == (2 * 28, 8)
    torch.testing.assert_close(heads.sum(1), torch.zeros(56), atol=1e-5, rtol=0)
    found = universality(heads, heads, torch.Generator().manual_seed(0))
    assert found.matches.first.equal(found.matches.second)


def test_other_rows_and_too_few_are_refused(generator: torch.Generator) -> None:
    with pytest.raises(Refusal, match="on 400 rows and the other on 300"):
        refuse_other_rows(sparse(generator), sparse(generator, rows=300))
    with pytest.raises(Refusal, match="over 2 rows say nothing"):
        universality(sparse(generator, rows=2), sparse(generator, rows=2), generator)
