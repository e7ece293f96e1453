"""A component reads a direction at one site and writes a direction at another. A dictionary is many of them.

Neurons, latents of sparse autoencoders and transcoders, probes, steering vectors, parts of weights: everything that
browses, explains, steers, ablates or attributes is written once, for these two classes.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from microtome.core.codes import Codes
from microtome.core.errors import NoSuchComponent, Refusal
from microtome.core.site import Site


class Directions(NamedTuple):
    """What each component reads and what it writes; `rank` is 1 but for components that span a subspace.

    A dictionary of several sites has a leading `site` axis, as its inputs and outputs have.
    """

    read: Float[Tensor, "*site components rank d_in"]
    write: Float[Tensor, "*site components rank d_out"]


@runtime_checkable
class Held(Protocol):
    """What holds something for each of several sites: a trace, or rows."""

    def __getitem__(self, site: Site) -> Tensor: ...


class Dictionary(nn.Module, ABC):
    """Many components that read at the same site or sites and write at the same site or sites (often the same)."""

    reads: tuple[Site, ...]
    writes: tuple[Site, ...]

    @abstractmethod
    def encode(self, x: Float[Tensor, "... d_in"]) -> Codes:
        """How strongly each component is active. Several read sites stand on a leading `site` axis."""

    @abstractmethod
    def decode(self, codes: Codes) -> Float[Tensor, "... d_out"]:
        """What the components together write, biases included. Several written sites stand on a leading `site` axis."""

    @abstractmethod
    def directions(self) -> Directions:
        """What each component reads and writes."""

    def contribution(self, codes: Codes, component: int) -> Float[Tensor, "... d_out"]:
        """What one component writes. By default its activity times its one direction."""
        return codes.of(component)[..., None] * self[component].direction

    def constrain(self) -> None:
        """Put the parameters back where they must be; `fit` calls this after every step."""

    def bypass(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "..."]:
        """What reaches the written site past the codes: nothing, but for skip connections and units of a token."""
        return x.new_zeros(())

    def reconstruct(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_out"]:
        """What the dictionary makes of its input: what its components write, and what goes past them."""
        return self.decode(self.encode(x)) + self.bypass(x)

    def rebuild(self, codes: Codes, held: Held) -> Float[Tensor, "... d_out"]:
        """What stands at the written site if these were the codes; what goes past them is found in a trace or rows."""
        return self.decode(codes) + self.bypass(self.gather(held))

    def gather(self, held: Held) -> Float[Tensor, "... d_in"]:
        """This dictionary's input, out of a trace or rows.

        Raises Refusal where it reads the heads of a place side by side, and a trace holds them apart.
        """
        for site in self.reads:
            self._refuse_heads_apart(held[site], site)
        return stacked([width_last(held[site], site) for site in self.reads])

    def _refuse_heads_apart(self, x: Tensor, site: Site) -> None:
        if "head" not in site.axes.split() or x.ndim != len(site.axes.split()):
            return
        heads, each, width = x.shape[-2], x.shape[-1], self.directions().read.shape[-1]
        if width != each:
            raise Refusal(
                f"{type(self).__name__} reads {width} numbers at a place, and {site} holds {heads} heads of {each} "
                "each, apart; give one as wide as a head, one of attn_out, or encode rows, in which heads are joined"
            )

    def target(self, held: Held) -> Float[Tensor, "... d_out"]:
        """What the dictionary should make of its input, out of a trace or rows: what stands at the written sites."""
        return stacked([width_last(held[site], site) for site in self.writes])

    def __getitem__(self, index: int) -> "Component":
        size = len(self)
        if not -size <= index < size:
            raise NoSuchComponent(f"component {index} is outside 0..{size - 1}")
        return Component(self, index % size)

    def __iter__(self) -> "Iterator[Component]":
        return (Component(self, index) for index in range(len(self)))

    def __len__(self) -> int:
        return self.directions().read.shape[-3]


def width_last(x: Tensor, site: Site) -> Tensor:
    """With the axis that components read last, as pictures' channels are not. Rows have it there already."""
    return x.movedim(site.width_axis, -1) if x.ndim == len(site.axes.split()) else x


def stacked(parts: list[Tensor]) -> Tensor:
    """One tensor as it is; several on a new first axis, that of their sites."""
    return parts[0] if len(parts) == 1 else torch.stack(parts)


@dataclass(frozen=True)
class Component:
    """One thing that a network computes: it reads a direction here and writes a direction there."""

    dictionary: Dictionary
    index: int

    def activity(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "..."]:
        """How strongly it is active on these inputs of its dictionary."""
        return self.dictionary.encode(x).of(self.index)

    @property
    def read(self) -> Float[Tensor, "*site rank d_in"]:
        """The directions that it reads, at each site that its dictionary reads."""
        return self.dictionary.directions().read[..., self.index, :, :]

    @property
    def write(self) -> Float[Tensor, "*site rank d_out"]:
        """The directions that it writes, at each site that its dictionary writes."""
        return self.dictionary.directions().write[..., self.index, :, :]

    @property
    def direction(self) -> Float[Tensor, "d_out"]:
        """The one direction it writes. Raises Refusal for a component of higher rank, or one that writes nothing."""
        if not self.dictionary.writes:
            raise Refusal(f"{self} writes nothing, so it can be read but not ablated, clamped or added")
        if len(self.dictionary.writes) > 1:
            raise Refusal(f"{self} writes at {len(self.dictionary.writes)} sites; choose one with `OneSite`")
        if len(self.write) != 1:
            raise Refusal(f"{self} writes a subspace of rank {len(self.write)}, not one direction; use its `write`")
        return self.write[0]

    def __str__(self) -> str:
        places = ", ".join(map(str, self.dictionary.writes or self.dictionary.reads))
        return f"{type(self.dictionary).__name__}@{places}:{self.index}"
