"""Which places of a forward pass are served. Filters are asked one after another, and what each dropped is counted.

A place is one token of one window, or one (y, x) of one picture. Padding is none: it is gone before the first.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from microtome.core.errors import Refusal
from microtome.core.inputs import Inputs, Tokens
from microtome.core.site import Site


@dataclass(frozen=True, eq=False)
class Seen:
    """What a filter may look at: a batch, all its places at every site, and which of them are still wanted.

    `axes` holds the axes that number the places, with their sizes: {"batch": 32, "pos": 256}.
    """

    inputs: Inputs
    axes: dict[str, int]
    values: Mapping[str, Float[Tensor, "places _"]]
    wanted: Bool[Tensor, "places"]


@runtime_checkable
class Filter(Protocol):
    """A frozen value: its text is its name, in the counts and in the manifest of a harvest."""

    def keep(self, seen: Seen) -> Bool[Tensor, "places"]:
        """Which places stay. What it says of places that are not wanted any more does not matter."""
        ...


@dataclass(frozen=True)
class Positions:
    """Keep the positions from `start` to before `stop`: by default all but position 0, before which nothing stands.

    Positions count a row's real tokens, negative ones back from its end, wherever the padding lies.
    """

    start: int | None = 1
    stop: int | None = None

    def keep(self, seen: Seen) -> Bool[Tensor, "places"]:
        """Raises Refusal where the places have no position."""
        if "pos" not in seen.axes:
            raise Refusal(f"{self} needs a site with a 'pos' axis, and these places have {', '.join(seen.axes)}")
        return at_positions(seen.inputs, seen.axes, slice(self.start, self.stop)).to(seen.wanted.device)


@dataclass(frozen=True)
class SpecialTokens:
    """Drop the places of these token ids: begin-of-text, end-of-text, padding, the parts of a chat template."""

    ids: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: object) -> "SpecialTokens":
        """Those that a Hugging Face tokenizer calls special."""
        return cls(tuple(sorted(set(getattr(tokenizer, "all_special_ids", ())))))

    def keep(self, seen: Seen) -> Bool[Tensor, "places"]:
        """Raises Refusal where the inputs have no token ids, or the sites no positions."""
        if not isinstance(seen.inputs, Tokens) or "pos" not in seen.axes:
            raise Refusal(f"{self} needs rows of tokens and sites with a 'pos' axis, not {type(seen.inputs).__name__}")
        ids = seen.inputs.ids.flatten()
        return ~torch.isin(ids, torch.tensor(self.ids, device=ids.device, dtype=ids.dtype)).to(seen.wanted.device)


@dataclass(frozen=True)
class HighNorm:
    """Drop a place whose row, at any of the sites, is longer than `times` the median length there.

    The median is that of the same forward pass, over the places that earlier filters kept. So nothing is remembered,
    and a stream that goes on after a stop drops the same places. Attention sinks are often a hundred times as long as
    the median (Sun et al. 2024, arXiv 2402.17762).
    """

    times: float = 10.0

    def keep(self, seen: Seen) -> Bool[Tensor, "places"]:
        """Places whose norm is at most `times` the median of the wanted ones, at every site."""
        keep = torch.ones_like(seen.wanted)
        if not seen.wanted.any():
            return keep
        for x in seen.values.values():
            norms = x.float().norm(dim=1)
            keep &= norms <= self.times * norms[seen.wanted].median()
        return keep


def at_positions(inputs: Inputs, axes: Mapping[str, int], which: slice) -> Bool[Tensor, "places"]:
    """The places of a `batch pos` grid whose position is among these; never padding."""
    found = inputs.places(which, axes["pos"])
    keep = torch.zeros(axes["batch"], axes["pos"], dtype=torch.bool, device=found.rows.device)
    keep[found.rows, found.columns] = True
    return keep.flatten()


def usual(sites: Sequence[Site], given: Iterable[Filter] | None) -> tuple[Filter, ...]:
    """The filters given, or where None are: position 0 is dropped, if there are positions."""
    if given is not None:
        return tuple(given)
    return (Positions(),) if all("pos" in site.axes.split() for site in sites) else ()
