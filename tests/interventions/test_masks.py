"""Masks: between importance and one, and an adversary that finds what chance does not."""

import pytest
import torch

from microtome.core.errors import Refusal
from microtome.interventions.masks import (
    Adversary,
    constant,
    kept,
    of_importance,
    only_important,
    rounded,
    stochastic,
)  # fmt: skip


def importance(rows: int = 7) -> dict[str, torch.Tensor]:
    return {"a": torch.rand(rows, 3), "b": torch.rand(rows, 2)}


def test_masks_lie_between_importance_and_one(generator: torch.Generator) -> None:
    g = importance()
    masks = stochastic(g, generator)
    for name in g:
        assert (masks.parts[name] >= g[name]).all() and (masks.parts[name] <= 1).all()
        assert masks.rest is not None and masks.rest[name].shape == (7, 1)
    zeros, ones = ({n: torch.full_like(x, at) for n, x in g.items()} for at in (0.0, 1.0))
    for name in g:
        assert of_importance(g, zeros, None).parts[name].equal(g[name])
        torch.testing.assert_close(of_importance(g, ones, None).parts[name], ones[name])
        assert kept(g).parts[name].equal(ones[name]) and only_important(g).parts[name].equal(g[name])
        assert rounded(g, 0.5).parts[name].equal((g[name] > 0.5).float())
    assert constant(g, 0.2, 0.0).at("b")[0].eq(0.2).all()


@pytest.mark.parametrize("shared", [True, False])
def test_an_adversary_does_at_least_the_harm_of_chance_and_finds_the_corner(
    generator: torch.Generator, shared: bool
) -> None:
    g = {"a": torch.tensor([[0.0, 1.0, 0.0]]).repeat(5, 1)}
    slope = torch.tensor([1.0, 5.0, -1.0])

    def loss(masks):
        return (masks.parts["a"] * slope).sum() - masks.rest["a"].sum()

    path = list(Adversary(20, 0.1, shared).path(g, loss, generator))
    assert all(later[1] >= earlier[1] for earlier, later in zip(path, path[1:], strict=False))
    worst = Adversary(20, 0.1, shared).worst(g, loss, generator).masks(g)
    assert worst.parts["a"].equal(torch.tensor([[1.0, 1.0, 0.0]]).repeat(5, 1))  # what matters is out of its reach
    assert worst.rest is not None and not worst.rest["a"].any()
    drawn = max(float(loss(stochastic(g, generator))) for _ in range(20))
    assert float(loss(worst)) >= drawn


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(Refusal, match="1.5"):
        rounded(importance(), 1.5)
    with pytest.raises(Refusal, match="no ascent"):
        Adversary(steps=-1)
