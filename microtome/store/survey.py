"""One pass over text for all who want to see it: catalogues and measurements share a forward pass."""

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from microtome.core.inputs import Tokens
from microtome.core.model import Model
from microtome.core.site import Site
from microtome.core.trace import Trace


@runtime_checkable
class Witness(Protocol):
    """Someone who looks at some sites in every batch of windows."""

    sites: tuple[Site, ...]

    def see(self, trace: Trace, first_window: int) -> None:
        """Look at one batch, whose first row is window number `first_window`."""
        ...


def surveying(
    model: Model, witnesses: Sequence[Witness], tokens: Int[Tensor, "windows context"], *, batch: int = 32
) -> Iterator[int]:
    """Run the model over all windows once, yielding how many have been seen."""
    sites = list(dict.fromkeys(site for witness in witnesses for site in witness.sites))
    for start in range(0, len(tokens), batch):
        with torch.no_grad():
            trace = model.run(Tokens.of(tokens[start : start + batch]), read=sites)
            for witness in witnesses:
                witness.see(trace, start)
        yield min(start + batch, len(tokens))
