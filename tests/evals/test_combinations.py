"""Leaving out what is said not to matter: all of it, at random, and at worst."""

import pytest
import torch
from torch import Tensor

from microtome.core.linear import Coordinates
from microtome.evals.combinations import ALL, RANDOM, TOKENS, WORST, Combinations, mean, stronger_half
from microtome.evals.interval import by_document
from microtome.models.hooked import HookedModel
from tests.evals.examined import RESID, ids, sae
from tests.toys import WIDTH


def measured(network: HookedModel, dictionary, windows: int = 3, steps: int = 6) -> Tensor:
    found = Combinations(dictionary, torch.Generator().manual_seed(0), steps=steps)
    return torch.cat(list(found.measuring(network, ids(windows))))


def test_the_stronger_half_is_by_what_is_written() -> None:
    codes = torch.tensor([[1.0, -3.0, 0.0, 2.0], [0.0, 0.0, 0.0, 0.5], [0.0, 0.0, 0.0, 0.0]])
    same = stronger_half(codes, torch.ones(4))
    assert same.tolist() == [[0, 1, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]]
    assert stronger_half(codes, torch.tensor([10.0, 1, 1, 1]))[0].tolist() == [1, 1, 0, 0]


def test_every_window_is_counted_and_no_divergence_is_negative(network: HookedModel) -> None:
    sums = measured(network, sae())
    assert sums[:, TOKENS].tolist() == [7.0] * 3  # of nine tokens the last two guesses are of positions 1 to 7
    assert (sums[:, ALL:] > 0).all()


def test_an_adversary_with_time_does_more_harm_than_chance(network: HookedModel) -> None:
    sums = measured(network, sae(), windows=6, steps=20).sum(0)
    assert sums[WORST] > sums[RANDOM]


def test_where_one_component_is_all_there_is_nothing_can_be_left_out_but_the_error(network: HookedModel) -> None:
    """One active component a token is its own stronger half: the dictionary is spliced in whole."""
    from microtome.core.edit import splice
    from microtome.core.inputs import Tokens
    from microtome.core.measure import LOGITS

    one = sae(k=1)
    sums = measured(network, one)
    for window, row in zip(ids(3), sums, strict=True):
        given = Tokens.of(window[None])
        was, now = (
            network.run(given, read=[LOGITS], edit=edit)[LOGITS][:, 1:-1].log_softmax(-1)
            for edit in ([], [splice(one).at(pos=slice(1, None))])
        )
        assert row[ALL] == pytest.approx(float((was.exp() * (was - now)).sum()), rel=1e-4)


def test_scores_are_nats_a_token(network: HookedModel) -> None:
    sums = by_document(measured(network, Coordinates(RESID, WIDTH)), torch.zeros(3, dtype=torch.long), 1)
    assert mean(WORST)(sums[0]) == pytest.approx(float(sums[0, WORST] / 21))
