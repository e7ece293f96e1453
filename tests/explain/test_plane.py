"""The map: distances that principal axes keep, and what is said where UMAP is absent."""

import importlib.util

import pytest
import torch

from microtome.core.errors import Refusal
from microtome.explain.plane import neighbourly, principal

HERE = importlib.util.find_spec("umap") is not None


def two_clusters(generator: torch.Generator) -> torch.Tensor:
    middles = torch.eye(12)[:2].repeat_interleave(30, 0)
    return middles + 0.1 * torch.randn(60, 12, generator=generator)


def test_what_writes_alike_lies_together(generator: torch.Generator) -> None:
    places = principal(two_clusters(generator))
    middles = places.view(2, 30, 2).mean(1)
    assert (middles[0] - middles[1]).norm() > 5 * places.view(2, 30, 2).std(1).max()


def test_lengths_do_not_matter(generator: torch.Generator) -> None:
    directions = two_clusters(generator)
    torch.testing.assert_close(principal(directions).abs(), principal(3 * directions).abs(), atol=1e-5, rtol=1e-3)


@pytest.mark.skipif(HERE, reason="umap-learn is installed")
def test_without_umap_the_remedy_is_said(generator: torch.Generator) -> None:
    with pytest.raises(Refusal, match=r"needs umap-learn: pip install 'microtome\[umap\]', or draw it by pca"):
        neighbourly(two_clusters(generator))


@pytest.mark.skipif(not HERE, reason="umap-learn is absent")
@pytest.mark.filterwarnings("ignore")
def test_neighbours_stay_neighbours_under_umap(generator: torch.Generator) -> None:
    places = neighbourly(two_clusters(generator)).view(2, 30, 2)
    assert (places[0].mean(0) - places[1].mean(0)).norm() > 2 * places.std(1).max()
