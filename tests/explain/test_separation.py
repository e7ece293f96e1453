"""Components that are active on one set of names alone separate it; those that are active everywhere are left out."""

import torch

from microtome.core.inputs import Tokens
from microtome.core.linear import Coordinates
from microtome.core.site import Site
from microtome.explain.separation import GENERAL, last_activity, least, ranked, separation
from tests import toys

KNOWN = torch.tensor([[1.0, 0.0, 2.0], [3.0, 0.0, 0.0]])
UNKNOWN = torch.tensor([[0.0, 5.0, 2.0], [0.0, 0.0, 0.0], [0.0, 1.0, 1.0], [0.0, 1.0, 0.0]])


def test_separation_is_the_difference_of_the_shares() -> None:
    assert separation(KNOWN, UNKNOWN).tolist() == [1.0, -0.75, 0.0]
    assert torch.equal(separation(KNOWN, UNKNOWN), -separation(UNKNOWN, KNOWN))


def test_the_least_over_kinds_is_high_only_where_all_are() -> None:
    scores = {"a": torch.tensor([0.9, 0.9, -1.0]), "b": torch.tensor([0.8, -0.2, 1.0])}
    assert torch.equal(least(scores), torch.tensor([0.8, -0.2, -1.0]))


def test_what_is_active_on_ordinary_text_is_left_out() -> None:
    assert ranked(torch.tensor([0.9, 0.5, 0.7]), torch.tensor([0.5, 0.0, 0.01]) <= GENERAL) == [2, 1]


def test_activity_is_that_of_the_last_real_token_wherever_the_padding_lies() -> None:
    rows, site = [[1, 2, 3], [4, 5], [6]], Site("resid_post.0")
    model, dictionary = toys.residual(), Coordinates(site, toys.WIDTH)
    found = last_activity(model, dictionary, Tokens.of(rows), batch=2)
    torch.testing.assert_close(found, last_activity(model, dictionary, Tokens.of(rows, left=True)))
    for row, each in zip(rows, found, strict=True):
        alone = model.run(Tokens.of([row]), read=[site])[site][0, -1]
        torch.testing.assert_close(each, alone)
