"""Planted polytopes are named as what they are, by their shares and by their members."""

import math

import pytest
import torch

from microtome.toys.geometry import (
    NONE,
    SHAPES,
    dimensionality,
    dimensions_per_feature,
    live,
    polytopes,
    shape_of,
    shapes,
)


def ngon(n: int) -> torch.Tensor:
    angles = torch.arange(n) * 2 * math.pi / n
    return torch.stack([angles.cos(), angles.sin()])


def antiprism() -> torch.Tensor:
    """Two squares, one turned, at such heights that the eight points spread evenly over three dimensions."""
    height = 0.5**0.5  # 8 h² = half of the sum of the others' squares, with points on circles of radius 1
    one, turned = (torch.arange(4) * math.pi / 2 + by for by in (0.0, math.pi / 4))
    rows = [torch.stack([a.cos(), a.sin(), torch.full((4,), h)]) for a, h in ((one, height), (turned, -height))]
    return torch.cat(rows, 1) / (1 + height**2) ** 0.5


PLANTED = {
    "alone": torch.ones(1, 1),
    "digon": torch.tensor([[1.0, -1.0]]),
    "triangle": ngon(3),
    "tetrahedron": torch.tensor([[1.0, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]]) / 3**0.5,
    "pentagon": ngon(5),
    "square antiprism": antiprism(),
}


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: s.name)
def test_a_polytope_has_the_share_of_its_shape(shape) -> None:
    found = dimensionality(PLANTED[shape.name])
    assert torch.allclose(found, torch.full((shape.features,), shape.share), atol=1e-5)
    assert [SHAPES[i] for i in shapes(found).tolist()] == [shape] * shape.features


def test_polytopes_are_found_side_by_side_whatever_the_basis() -> None:
    blocks = torch.block_diag(*PLANTED.values())
    order = torch.randperm(blocks.shape[1], generator=torch.Generator().manual_seed(0))
    turn = torch.linalg.qr(torch.randn(len(blocks), len(blocks), generator=torch.Generator().manual_seed(1))).Q
    weight = torch.cat([turn @ blocks[:, order], torch.zeros(len(blocks), 2)], 1)
    found = [shape_of(weight, members) for members in polytopes(weight)]
    assert sorted(s.name for s in found) == sorted(PLANTED)
    assert torch.allclose(dimensionality(weight).sum(), torch.tensor(float(len(blocks))), atol=1e-4)
    assert not live(weight)[-2:].any() and (dimensionality(weight)[-2:] == 0).all()
    assert dimensions_per_feature(weight) == pytest.approx(len(blocks) / blocks.shape[1])


def test_what_is_no_named_shape_is_not_named() -> None:
    assert shapes(torch.tensor([0.55, 0.1, 0.875])).tolist() == [NONE] * 3
    assert shape_of(ngon(6), list(range(6))) is None
