"""The shapes that features in superposition take: how much of a dimension each has, and with which others it shares.

Elhage et al. 2022, Toy Models of Superposition. Features that interfere form small polytopes in subspaces of their own;
k features of one polytope in r dimensions have r / k of a dimension each, so the fraction tells which polytope it is.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Shape(NamedTuple):
    """So many features, evenly spread over so many dimensions."""

    name: str
    features: int
    dimensions: int

    @property
    def share(self) -> float:
        """The dimensionality of each of its features."""
        return self.dimensions / self.features


SHAPES = (
    Shape("alone", 1, 1),
    Shape("tetrahedron", 4, 3),
    Shape("triangle", 3, 2),
    Shape("digon", 2, 1),
    Shape("pentagon", 5, 2),
    Shape("square antiprism", 8, 3),
)  # those that the paper names, by falling share
NONE = -1  # in place of the number of a shape


def dimensionality(weight: Float[Tensor, "... hidden features"]) -> Float[Tensor, "... features"]:
    """D_i = |w_i|² / sum over j of (w_i / |w_i| . w_j)²: 1 for a feature alone, 0 for one that is not represented.

    Where every feature lies in a subspace on which the others spread evenly, the sum over features is the rank.
    """
    squares = weight.pow(2).sum(-2)
    overlaps = (weight.mT @ weight).pow(2).sum(-1)  # |w_i|² times the denominator
    return (squares.pow(2) / overlaps.clamp(min=torch.finfo(weight.dtype).tiny)).where(squares > 0, 0.0)


def dimensions_per_feature(weight: Float[Tensor, "... hidden features"]) -> Float[Tensor, "..."]:
    """D* = hidden / |W|²: the norm counts features, as a feature has about norm one or none."""
    return weight.shape[-2] / weight.pow(2).sum((-2, -1))


def live(weight: Float[Tensor, "... hidden features"], least: float = 0.5) -> Bool[Tensor, "... features"]:
    """Which features are represented: those whose norm is at least `least`, where one that is has about 1."""
    return weight.norm(dim=-2) >= least


def shapes(shares: Float[Tensor, "..."], tolerance: float = 0.02) -> Int[Tensor, "..."]:
    """For each dimensionality the shape it is of, as a place in SHAPES; -1 where none is within the tolerance."""
    named = shares.new_tensor([shape.share for shape in SHAPES])
    distance, nearest = (shares[..., None] - named).abs().min(-1)
    return nearest.where(distance <= tolerance, NONE)


def polytopes(weight: Float[Tensor, "hidden features"], cosine: float = 0.1) -> Iterator[list[int]]:
    """Live features in sets that interfere: a chain of cosines of more than `cosine` joins any two of a set."""
    names = live(weight).nonzero()[:, 0]
    directions = weight[:, names] / weight[:, names].norm(dim=0)
    joined = (directions.T @ directions).abs() > cosine
    left = set(range(len(names)))
    while left:
        found, edge = set(), {min(left)}
        while edge:
            found |= edge
            edge = set(joined[sorted(edge)].any(0).nonzero()[:, 0].tolist()) - found
        left -= found
        yield names[sorted(found)].tolist()


def shape_of(weight: Float[Tensor, "hidden features"], members: list[int]) -> Shape | None:
    """The named shape with as many features in as many dimensions as these; None where there is none."""
    values = torch.linalg.svdvals(weight[:, members])
    rank = int((values > 0.2 * values[0]).sum())
    return next((s for s in SHAPES if (s.features, s.dimensions) == (len(members), rank)), None)
