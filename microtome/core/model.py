"""What every wing asks of a model: a small protocol, so that each can be tested on a ten-line network."""

from collections.abc import Iterable, Sequence
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
    ) -> Trace:
        """The rest of a forward pass, in which block `layer` has just returned `stream`; -1 begins at the beginning.

        Where one position of the logits is read (`logits.at(pos=-1)`) they are made there alone, and the trace holds
        them under that place. Raises Refusal for a site that lies before.
        """
        ...
