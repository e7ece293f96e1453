"""A head's projections, found on the network itself: linear maps between its heads and the stream.

What a projection's weight is shows in how gradients go back through it, so no family needs a table of weights. Mostly
it stands, as it is, in one of the network's parameters: it is found there by how two of its rows begin, and known by
what it makes of one arbitrary vector (Freivalds 1977, Probabilistic Machines Can Use Less Running Time). Elsewhere it
is made entry by entry, which costs as much as a pass over as many tokens as it has outputs.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

SAMPLE = 8  # numbers of a row by which it is found again
ROUNDING = 1e-5  # of the largest value, in sums as long as a row


@dataclass(frozen=True, eq=False)
class Projection(ABC):
    """A linear map in one run, looked at where its first position stands."""

    of: Float[Tensor, "1 pos *made"]
    by: Float[Tensor, "1 pos *given"]

    @property
    @abstractmethod
    def shape(self) -> torch.Size:
        """How many heads there are, how wide they are, and how wide the stream is."""

    @abstractmethod
    def weight(self) -> Float[Tensor, "head e d"]:
        """All of it."""

    @abstractmethod
    def begins(self) -> Float[Tensor, "heads sample"]:
        """How the first row of each of the first two heads begins."""

    @abstractmethod
    def applied(self, weight: Float[Tensor, "head e d"], vector: Tensor) -> Tensor:
        """What gradients become if this is the weight."""

    def is_(self, weight: Float[Tensor, "head e d"]) -> bool:
        """Whether this is the weight: whether it makes the same of a vector that it was not made for."""
        vector = torch.randn(self.of.shape[2:], generator=torch.Generator().manual_seed(0)).to(self.of)
        found, expected = self.applied(weight, vector), self.pulled(vector[None])[0]
        return bool((found - expected).abs().max() <= ROUNDING * expected.abs().max())

    def pulled(self, vectors: Float[Tensor, "some *made"]) -> Float[Tensor, "some *given"]:
        """Gradients at what it is given, of gradients at what it makes."""
        put = vectors.new_zeros(len(vectors), *self.of.shape)
        put[:, 0, 0] = vectors
        (back,) = torch.autograd.grad(self.of, self.by, put, is_grads_batched=True, retain_graph=True)
        return back[:, 0, 0].detach()

    def units(self, entries: list[int] | None = None) -> Float[Tensor, "some *made"]:
        """A unit vector for each entry of what it makes, or for some."""
        size = self.of[0, 0].numel()
        every = torch.arange(size) if entries is None else torch.tensor(entries)
        found = self.of.new_zeros(len(every), size)
        found[torch.arange(len(every)), every] = 1
        return found.unflatten(1, self.of.shape[2:])


@dataclass(frozen=True, eq=False)
class Inward(Projection):
    """What queries, keys or values make of the normed stream."""

    @property
    def shape(self) -> torch.Size:
        return torch.Size((*self.of.shape[2:], self.by.shape[-1]))

    def weight(self) -> Float[Tensor, "head e d"]:
        return self.pulled(self.units()).unflatten(0, self.of.shape[2:])

    def begins(self) -> Float[Tensor, "heads sample"]:
        heads, e, _ = self.shape
        return self.pulled(self.units([h * e for h in range(min(2, heads))]))[:, :SAMPLE]

    def applied(self, weight: Float[Tensor, "head e d"], vector: Tensor) -> Tensor:
        return torch.einsum("he,hed->d", vector, weight)


@dataclass(frozen=True, eq=False)
class Outward(Projection):
    """What is added to the stream of the heads' z."""

    @property
    def shape(self) -> torch.Size:
        return torch.Size((*self.by.shape[2:], self.of.shape[-1]))

    def weight(self) -> Float[Tensor, "head e d"]:
        return self.pulled(self.units()).movedim(0, -1)

    def begins(self) -> Float[Tensor, "heads sample"]:
        return self.pulled(self.units(list(range(min(SAMPLE, self.shape[-1])))))[:, :2, 0].T

    def applied(self, weight: Float[Tensor, "head e d"], vector: Tensor) -> Tensor:
        return weight @ vector


# ---------------------------------------------------------------- as they stand in the network


def own_weight(parameters: Iterable[Tensor], projection: Projection) -> Float[Tensor, "head e d"] | None:
    """The weight as a view of one of a network's parameters; None where it stands in none."""
    begins, shape = projection.begins(), projection.shape
    views = (inside(m, begins, shape) for p in parameters if p.ndim == 2 for m in (p, p.T))
    return next((view for view in views if view is not None and projection.is_(view)), None)


def inside(
    matrix: Float[Tensor, "rows width"], begins: Float[Tensor, "heads sample"], shape: torch.Size
) -> Float[Tensor, "head e d"] | None:
    """Where rows that begin so stand in a matrix: one head's together, and from head to head at equal distances."""
    heads, e, d = shape
    if matrix.shape[1] != d or len(matrix) < heads * e or matrix.dtype != begins.dtype:
        return None
    starts = [first_row(matrix, row) for row in begins]
    if -1 in starts:
        return None
    first, step = starts[0], e if heads == 1 else starts[1] - starts[0]
    if step < e or first + (heads - 1) * step + e > len(matrix):
        return None
    return matrix.detach()[first : first + (heads - 1) * step + e].unfold(0, e, step).mT


def first_row(matrix: Float[Tensor, "rows width"], begin: Float[Tensor, "sample"]) -> int:
    """The first row that begins so; -1 where none does."""
    hit = (matrix[:, : len(begin)] == begin).all(1).nonzero()
    return int(hit[0]) if len(hit) else -1
