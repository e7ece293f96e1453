"""The components that are active on one prompt: where each reads, what it reads, and what it writes."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.component import Dictionary
from microtome.core.errors import Refusal
from microtome.core.site import Site
from microtome.core.trace import Trace

ALIKE = 1e-3  # of the largest value


class Reading(NamedTuple):
    """A direction at a position of a site: what is read there is `vector . x + offset`, in the run it was `value`."""

    site: Site
    position: int
    vector: Float[Tensor, "d"]
    offset: float
    value: float


class Active:
    """A dictionary's active components on one prompt.

    One entry each for position, component and activity; `writes` is what they write at each written site, activity
    included. Activity is taken to be linear in the input while a component is active, by its direction of reading.
    """

    def __init__(self, dictionary: Dictionary, clean: Trace, leave_out: Sequence[int] = ()) -> None:
        """Raises Refusal where components do not read one direction at one site each."""
        self.dictionary, self.inputs = dictionary, dictionary.gather(clean)
        read, write = (by_site(x.detach(), dictionary) for x in dictionary.directions())
        self._refuse_width(read, clean, dictionary.reads)
        self._refuse_width(write, clean, dictionary.writes)
        rows, components, values = clean.codes(dictionary).entries()
        kept = ~torch.isin(rows, torch.tensor(leave_out, device=rows.device, dtype=rows.dtype))
        self.rows, self.components, self.values = rows[kept], components[kept], values[kept].detach()
        self.at, self.vectors = one_place(read[:, self.components], dictionary)
        self.writes = write[:, self.components] * self.values[:, None]
        found = self.inputs.reshape(len(read), -1, read.shape[-1])
        self.offsets = self.values - (found[self.at, self.rows] * self.vectors).sum(-1)
        self._refuse_other_readings()

    def __len__(self) -> int:
        return len(self.rows)

    def layer(self, row: int) -> int:
        """The layer at which a component reads; 0 for a site that is in none."""
        site = self.dictionary.reads[int(self.at[row])]
        return site.layer if site.layer is not None else 0

    def key(self, row: int) -> tuple[int, int, int]:
        """Layer, position, component: the order of nodes."""
        return self.layer(row), int(self.rows[row]), int(self.components[row])

    def reading(self, row: int) -> Reading:
        """What a component reads, as a row of the graph needs it."""
        site = self.dictionary.reads[int(self.at[row])]
        return Reading(site, int(self.rows[row]), self.vectors[row], float(self.offsets[row]), float(self.values[row]))

    def _refuse_width(self, directions: Tensor, clean: Trace, sites: Sequence[Site]) -> None:
        for site in sites:
            width = clean[site].shape[-1]
            if directions.shape[-1] != width:
                raise Refusal(
                    f"{type(self.dictionary).__name__} is {directions.shape[-1]} wide at {site}, where this model is "
                    f"{width} wide; give one that was fitted on this model"
                )

    @torch.enable_grad()
    def _refuse_other_readings(self) -> None:
        """Compares a random sum over activities' own gradients with the directions, in one backward pass."""
        x = self.inputs.detach().requires_grad_()
        rows, _, values = self.dictionary.encode(x).entries()
        kept = torch.isin(rows, self.rows)
        if not len(self) or not values.requires_grad:
            return
        weights = torch.randn(len(self), generator=torch.Generator().manual_seed(0)).to(x)
        (own,) = torch.autograd.grad((values[kept] * weights).sum(), x)
        said = torch.zeros_like(own).view(-1, *own.shape[-1:])
        places = self.at * self.inputs.shape[-2] + self.rows
        said.index_add_(0, places, weights[:, None] * self.vectors)
        if (said.view_as(own) - own).abs().max() > ALIKE * own.abs().max():
            raise Refusal(
                f"the components of {type(self.dictionary).__name__} do not respond along the directions that it says "
                "they read (its activation scales them, or its units change with the token); fold that into its weights"
            )


def by_site(directions: Tensor, dictionary: Dictionary) -> Float[Tensor, "site components d"]:
    """With a leading site axis, whether there is one or several. Raises Refusal for a rank above one."""
    if directions.shape[-2] != 1:
        raise Refusal(
            f"{type(dictionary).__name__} has components of rank {directions.shape[-2]}; a node of a graph has one "
            "direction, so give a dictionary of rank 1"
        )
    flat = directions[..., 0, :]
    return flat if flat.ndim == 3 else flat[None]


def one_place(read: Float[Tensor, "site some d"], dictionary: Dictionary) -> tuple[Tensor, Tensor]:
    """The site at which each component reads, and its direction there."""
    reads_at = read.abs().sum(-1) > 0
    if (reads_at.sum(0) > 1).any():
        raise Refusal(
            f"{type(dictionary).__name__} has components that read at several sites, so they stand at no one place "
            "of a graph; give transcoders, a cross-layer transcoder or autoencoders"
        )
    at = reads_at.int().argmax(0)
    return at, read[at, torch.arange(len(at), device=at.device)]
