"""Scores of heads and MLPs are what corrupting each alone does, where that can be known without trying."""

import pytest
import torch

from microtome.circuits.games import NodeGame, left_out
from microtome.circuits.node_attribution import node_attribution
from tests.circuits.pairs_of_tokens import MEASURE, pairs
from tests.models.zoo import model


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_close_to_the_clean_prompt_estimates_are_exact(name: str) -> None:
    """To first order: of a corrupt run that hardly differs, both methods say what each unit's own patch does."""
    m, (clean, corrupt) = model(name), pairs(name, ragged=False)
    game = NodeGame.resampled(m, clean, corrupt, MEASURE)
    plain = node_attribution(m, clean, corrupt, MEASURE)
    assert plain.shape == (len(clean), len(game.units))
    little = 1e-2
    with torch.no_grad():
        here = m.run(clean, read=game.outside.sites)
        for site in game.outside.sites:
            game.outside.values_by_name[site.name] = torch.lerp(here[site], game.outside[site], little)
    exact = torch.cat(list(left_out(game, 3)), 1) / little
    torch.testing.assert_close(plain, exact, atol=0.05 * float(exact.abs().max()), rtol=0)


def test_one_unit_at_a_time_is_the_game_without_it() -> None:
    m, (clean, corrupt) = model("llama"), pairs("llama")
    game = NodeGame.resampled(m, clean, corrupt, MEASURE)
    found = torch.cat(list(left_out(game, 4)), 1)
    kept = torch.ones(2, len(game.units), dtype=torch.bool)
    kept[1, 3] = False
    whole, without = game(kept)
    torch.testing.assert_close(found[:, 3], without - whole)


def test_of_equal_prompts_nothing_changes() -> None:
    clean, _ = pairs("llama")
    assert float(node_attribution(model("llama"), clean, clean, MEASURE, steps=3).abs().max()) == 0
