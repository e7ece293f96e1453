"""Planted parts and planted sources are found again."""

import pytest
import torch
from torch.nn.functional import normalize

from microtome.core.errors import Refusal
from microtome.core.site import Site
from microtome.dictionaries.factorisations import independent_components, non_negative, shares

SITE = Site("mlp_act.0", "batch pos d")


def best_cosines(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return (normalize(one, dim=1) @ normalize(other, dim=1).T).abs().amax(1)


def test_planted_parts_are_found_by_non_negative_factorisation(generator: torch.Generator) -> None:
    parts = torch.eye(3).repeat_interleave(4, 1) * (0.5 + torch.rand(3, 12, generator=generator))
    x = torch.rand(500, 3, generator=generator).pow(3) @ parts
    found = non_negative(SITE, x, 3, generator)
    assert best_cosines(parts, found.parts).min() > 0.99
    assert (x - found.reconstruct(x)).pow(2).sum() < 1e-3 * x.pow(2).sum()


def test_shares_are_the_best_that_are_not_negative(generator: torch.Generator) -> None:
    parts, x = torch.rand(4, 9, generator=generator), torch.rand(50, 9, generator=generator)
    found = shares(x, parts, 20_000)
    slope = (found @ parts - x) @ parts.T  # at the optimum zero where a share is positive, not negative elsewhere
    assert (slope[found > 1e-3].abs() < 1e-3).all() and (slope > -1e-3).all()


def test_planted_sources_are_found_by_independent_components(generator: torch.Generator) -> None:
    sources = torch.rand(5000, 4, generator=generator).log() * (torch.rand(5000, 4, generator=generator) < 0.3)
    mixing = torch.randn(4, 6, generator=generator)
    x = sources @ mixing + 2
    found = independent_components(SITE, x, 4, generator)
    assert best_cosines(mixing, found.directions().write[:, 0]).min() > 0.99
    torch.testing.assert_close(found.reconstruct(x), x, rtol=1e-3, atol=1e-3)
    codes = found.encode(x).dense()
    torch.testing.assert_close(torch.cov(codes.T), torch.eye(4), rtol=1e-3, atol=1e-2)


def test_what_cannot_be_factorised_is_refused(generator: torch.Generator) -> None:
    with pytest.raises(Refusal, match="an activation is -1; non-negative factorisation is for sites"):
        non_negative(SITE, -torch.ones(5, 3), 2, generator)
    with pytest.raises(Refusal, match="the sample varies along 1 directions, so choose 1 to 1"):
        independent_components(SITE, torch.arange(9.0)[:, None] * torch.ones(3), 2, generator)
