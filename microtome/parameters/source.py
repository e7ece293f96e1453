"""What a decomposition is learnt on: rows drawn as they are needed, those on which nothing happens drawn but once."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from microtome.core.errors import NotFinite, Refusal
from microtome.parameters.objectives import Weighted


@runtime_checkable
class Source(Protocol):
    """Rows of inputs, such as `microtome.toys.Sparse` draws, or of ids; without a seed axis."""

    def draw(self, rows: int, generator: torch.Generator) -> Shaped[Tensor, "rows d"]:
        """Rows, drawn anew."""
        ...


@dataclass(frozen=True)
class Given:
    """Rows that are there already; each draw picks some. Raises NotFinite where one is not a number."""

    x: Tensor

    def __post_init__(self) -> None:
        if not self.x.isfinite().all():
            raise NotFinite("the rows hold numbers that are not finite; mend or leave out such rows")

    def draw(self, rows: int, generator: torch.Generator) -> Tensor:
        return self.x[torch.randint(len(self.x), (rows,), generator=generator, device=self.x.device)]


class Feed(ABC):
    """Batches for a number of seeds (an empty tuple: no seed axis)."""

    @abstractmethod
    def batch(self, rows: int, lead: tuple[int, ...], generator: torch.Generator) -> Weighted:
        """Rows for every seed, each with what it counts for."""
        ...

    def batches(self, rows: int, n: int, lead: tuple[int, ...], generator: torch.Generator) -> Iterator[Weighted]:
        """So many batches, for `fit`."""
        return (self.batch(rows, lead, generator) for _ in range(n))


class Every(Feed):
    """Rows as the source draws them."""

    def __init__(self, source: Source):
        self.source = source

    def batch(self, rows: int, lead: tuple[int, ...], generator: torch.Generator) -> Weighted:
        x = self.source.draw(rows * lead_size(lead), generator).unflatten(0, (*lead, rows))
        return Weighted(x, each(x, rows, 1 / rows))


class Occupied(Feed):
    """Rows that are not all zero, and one that is, weighted by how often such rows occur.

    At five features of probability .05, three rows of four are empty, and all of them alike.
    """

    def __init__(self, source: Source, generator: torch.Generator, counted: int = 100_000):
        """The share of empty rows is counted on so many rows. Raises Refusal where all are empty."""
        self.source = source
        self.empty = float((source.draw(counted, generator) == 0).all(-1).float().mean())
        if self.empty == 1:
            raise Refusal(f"all of {counted:,} rows drawn are zero; nothing can be learnt from them")

    def batch(self, rows: int, lead: tuple[int, ...], generator: torch.Generator) -> Weighted:
        if self.empty == 0:
            return Every(self.source).batch(rows, lead, generator)
        x = self._occupied((rows - 1) * lead_size(lead), generator).unflatten(0, (*lead, rows - 1))
        weight = each(x, rows, (1 - self.empty) / (rows - 1))
        weight[0] = self.empty
        return Weighted(torch.cat((torch.zeros_like(x[..., :1, :]), x), -2), weight)

    def _occupied(self, rows: int, generator: torch.Generator) -> Shaped[Tensor, "rows d"]:
        found: list[Tensor] = []
        while sum(map(len, found)) < rows:
            missing = rows - sum(map(len, found))
            x = self.source.draw(int(1.1 * missing / (1 - self.empty)) + 16, generator)
            found.append(x[(x != 0).any(-1)])
        return torch.cat(found)[:rows]


def each(x: Tensor, rows: int, weight: float) -> Float[Tensor, "rows"]:
    """The same weight for so many rows of the kind of x, a fraction also where that is ids."""
    return torch.full((rows,), weight, dtype=x.dtype if x.is_floating_point() else None, device=x.device)


def lead_size(lead: tuple[int, ...]) -> int:
    """How many seeds there are."""
    return lead[0] if lead else 1
