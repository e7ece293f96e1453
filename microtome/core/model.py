"""What every wing asks of a model: a small protocol, so that each can be tested on a ten-line network."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

from torch import Tensor

from microtome.core.edit import Edit
from microtome.core.inputs import Inputs
from microtome.core.site import Site
from microtome.core.trace import Trace


@runtime_checkable
class Model(Protocol):
    """A network with named sites that can be read and edited. No hook outlives a run."""

    def site(self, name: str) -> Site:
        """The site of this name. Raises NoSuchSite, naming the nearest."""
        ...

    def sites(self, pattern: str = "*") -> list[Site]:
        """The sites whose names match a pattern such as `resid_post.*`, in the order of the network."""
        ...

    def run(
        self,
        inputs: Inputs,
        *,
        read: Iterable[Site] | None = None,
        edit: Sequence[Edit] = (),
        leaves: Iterable[Site] = (),
    ) -> Trace:
        """One forward pass, stopped at the last site that is read (the logits, when none is named).

        Edits look at what arrived at a site; the trace holds what left it. `leaves` are sites where gradients start.
        Raises SiteNeverFired where a site that was asked for, or edited, was not met.
        """
        ...


@runtime_checkable
class Quickened(Model, Protocol):
    """A network that can be read at less cost, where values up to rounding are enough."""

    def quickened(self) -> AbstractContextManager[None]:
        """Runs within the block take less time, and give the same up to rounding."""
        ...


@runtime_checkable
class Memory(Protocol):
    """A run that is remembered: where only later columns are edited, they alone need run again."""

    def resume(
        self,
        copies: int,
        layer: int,
        stream: Tensor | None,
        column: int,
        *,
        read: Iterable[Site],
        edit: Sequence[Edit] = (),
    ) -> Trace:
        """As `Resumable.resume` on so many copies of the batch, from a column on: `stream` holds no earlier one.

        The trace holds no earlier one either; its positions are those of the whole rows. No edit may be at a site that
        also shows what came before (keys, values, scores, patterns).
        """
        ...


@runtime_checkable
class Resumable(Model, Protocol):
    """A network that can also begin in the middle, which is what makes sweeps of many edits cheap."""

    def resume(
        self,
        inputs: Inputs,
        layer: int = -1,
        stream: Tensor | None = None,
        *,
        read: Iterable[Site],
        edit: Sequence[Edit] = (),
        leaves: Iterable[Site] = (),
    ) -> Trace:
        """The rest of a forward pass, in which block `layer` has just returned `stream`; -1 begins at the beginning.

        Where one position of the logits is read (`logits.at(pos=-1)`) they are made there alone, and the trace holds
        them under that place. `leaves` are sites where gradients start. Raises Refusal for a site that lies before.
        """
        ...

    def remember(self, inputs: Inputs) -> Memory | None:
        """This batch, run without edits; None for a network of which later columns cannot be run alone."""
        ...

    def weights(self) -> Iterator[Tensor]:
        """The network's own parameters, so that a map found by what it does can be kept as a view of them."""
        ...
