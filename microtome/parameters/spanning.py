"""Where parts begin that span all weights at once: drawn, or as what each row asks of the whole network."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from microtome.parameters.addresses import Address, weight_at
from microtome.parameters.begin import commonest, directions, likeness, meetings, pick, pursued
from microtome.parameters.classes import pure, split
from microtome.parameters.decomposed import Factors, Given


@dataclass(frozen=True)
class Span:
    """So many parts of such a rank in each of these weights of a network, for seeds."""

    module: nn.Module
    addresses: Sequence[Address]
    parts: int
    rank: int
    lead: tuple[int, ...]

    def weight(self, address: Address) -> Tensor:
        weight = weight_at(self.module, address)
        return weight if weight.ndim == 2 + len(self.lead) else weight.expand(*self.lead, *weight.shape)


class Start(ABC):
    """The first factors of every weight, a part's ranks one after another."""

    @abstractmethod
    def factors(self, span: Span, sample: Given, generator: torch.Generator) -> dict[Address, Factors]: ...


@dataclass(frozen=True)
class Random(Start):
    """Drawn, the parts of one weight of about its size together: as in the paper."""

    def factors(self, span: Span, sample: Given, generator: torch.Generator) -> dict[Address, Factors]:
        ranks = span.parts * span.rank
        made: dict[Address, Factors] = {}
        for address in span.addresses:
            out, inside = weight_at(span.module, address).shape[-2:]
            read, write = (
                torch.randn(*span.lead, ranks, width, generator=generator, device=generator.device) / width**0.5
                for width in (inside, out)
            )
            made[address] = Factors(read, write / ranks**0.5)
        return made


@dataclass(frozen=True)
class OfGradients(Start):
    """Each part begins along a row's gradient in all weights, those that occur most often; further ranks begin small.

    Rows are alike where their gradients' cosines, a mean over weights, are above `near` of a row's with itself. Drawn
    parts often end with two features in one of them and none in another, at a loss that is no higher.
    """

    near: float = 0.9
    small: float = 0.02

    def factors(self, span: Span, sample: Given, generator: torch.Generator) -> dict[Address, Factors]:
        met = meetings(span.module, span.addresses, sample, span.lead)
        sides = {a: (normalize(m.x, dim=-1), normalize(m.slope, dim=-1)) for a, m in met.items()}
        alike = torch.stack([likeness(*side) for side in sides.values()]).mean(0)
        own = alike.diagonal(dim1=-2, dim2=-1)  # below 1 for rows that are silent in some weight
        most = torch.maximum(own[..., :, None], own[..., None, :])
        rows, found = commonest(alike > self.near * most, span.parts)
        made: dict[Address, Factors] = {}
        for address, side in sides.items():
            read, write = (pick(x, rows) for x in side)
            size = pursued(read, write, span.weight(address)) * found
            made[address] = self._spread(read, write * size[..., None], span, generator)
        return made

    def _spread(self, read: Tensor, write: Tensor, span: Span, generator: torch.Generator) -> Factors:
        """With directions of their own for further ranks, all parts a little off, so that none is stuck at zero."""
        shape = (*span.lead, span.parts, span.rank)
        noise = [self.small * directions((*shape, w.shape[-1]), generator) for w in (read, write)]
        for x, way in zip(noise, (read, write), strict=True):
            x[..., 0, :] += way
        return Factors(*(x.flatten(-3, -2) for x in noise))


@dataclass(frozen=True)
class OfClasses(Start):
    """Each part begins as what a class of rows uses of every weight and other classes do not; together they are it.

    Rows are of one class whose inputs lie within `near` of a line, whatever their sign (`of="inputs"`), or whose
    gradients in all weights are alike (`of="gradients"`), where rows that belong to several classes at once are left
    aside. A class's share of a weight is taken on the side that tells classes apart best: what it reads, or where
    slopes come from.
    """

    of: Literal["inputs", "gradients"] = "inputs"
    near: float = 0.9
    small: float = 0.02

    def factors(self, span: Span, sample: Given, generator: torch.Generator) -> dict[Address, Factors]:
        met = meetings(span.module, span.addresses, sample, span.lead)
        sides = {a: (normalize(m.x, dim=-1), normalize(m.slope, dim=-1)) for a, m in met.items()}
        members = self._members(sample, list(sides.values()), span.parts, generator)
        return {a: self._cut(split(span.weight(a), members, *side), span.rank, generator) for a, side in sides.items()}

    def _members(
        self, sample: Given, sides: list[tuple[Tensor, Tensor]], parts: int, generator: torch.Generator
    ) -> Float[Tensor, "*seeds parts rows"]:
        if self.of == "gradients":
            alike = torch.stack([likeness(*side) for side in sides]).mean(0)
            own = alike.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()
            alike = alike / (own[..., :, None] * own[..., None, :]).clamp(min=1e-6)
            return pure(alike.clamp(min=0).sqrt(), parts, self.near, generator)  # the mean of its two cosines
        assert isinstance(sample, Tensor)
        x = normalize(sample, dim=-1)
        alike = (x @ x.mT).abs() > self.near
        rows, found = commonest(alike, parts)
        return (alike.gather(-2, rows[..., None].expand(*rows.shape, alike.shape[-1])) & found[..., None]).to(x)

    def _cut(self, parts: Tensor, rank: int, generator: torch.Generator) -> Factors:
        """The largest ranks of each, a little off so that none is stuck at zero."""
        left, sizes, right = torch.linalg.svd(parts, full_matrices=False)
        root = sizes[..., None, :rank].sqrt()
        write, read = (left[..., :rank] * root).mT, right[..., :rank, :] * root.mT
        missing = rank - write.shape[-2]
        both = [torch.nn.functional.pad(f, (0, 0, 0, missing)) for f in (read, write)]
        return Factors(*((f + self.small * directions(tuple(f.shape), generator)).flatten(-3, -2) for f in both))
