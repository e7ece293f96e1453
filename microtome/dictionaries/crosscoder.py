"""Crosscoders: one set of latents for several layers, or for several models.

Lindsey et al. 2024, Sparse Crosscoders for Cross-Layer Features and Model Diffing (Transformer Circuits).
"""

from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from microtome.core.codes import Codes
from microtome.core.component import Directions
from microtome.core.site import Site
from microtome.dictionaries.activation_functions import Activation
from microtome.dictionaries.coder import LinearCoder, fixed
from microtome.dictionaries.constraints import Constraint
from microtome.dictionaries.normalisation import Fixed, Normalisation


class Crosscoder(LinearCoder):
    """codes = activation(sum over sites of W_enc[s] x'[s] + b_enc);  x̂'[s] = W_dec[s] codes + b_dec[s].

    The sites stand side by side in the weights. Each has units of its own, so that none outweighs the others.
    """

    def __init__(
        self,
        sites: Sequence[Site],
        d_in: int,
        width: int,
        activation: Activation,
        units: Sequence[Normalisation] | None = None,
        constraint: Constraint | None = None,
        *,
        generator: torch.Generator | None = None,
    ):
        """All sites are `d_in` wide. Raises Refusal for units that depend on the token."""
        flat = len(sites) * d_in
        super().__init__(flat, flat, width, activation, constraint, generator)
        self.reads = self.writes = tuple(sites)
        self.units = nn.ModuleList(fixed(u, d_in) for u in units or [None] * len(sites))

    def _units(self) -> list[Fixed]:
        return [unit for unit in self.units if isinstance(unit, Fixed)]

    def read(self, x: Float[Tensor, "site ... d"]) -> Float[Tensor, "... site_d"]:
        normal = torch.stack([unit(part) for unit, part in zip(self._units(), x, strict=True)])
        return rearrange(normal, "site ... d -> ... (site d)")

    def aim(self, y: Float[Tensor, "site ... d"]) -> Float[Tensor, "... site_d"]:
        return self.read(y) - self.b_dec

    def _apart(self, written: Float[Tensor, "... site_d"]) -> Float[Tensor, "site ... d"]:
        return rearrange(written, "... (site d) -> site ... d", site=len(self.reads))

    def decode(self, codes: Codes) -> Float[Tensor, "site ... d"]:
        parts = self._apart(codes.times(self.W_dec) + self.b_dec)
        return torch.stack([unit.undo(part) for unit, part in zip(self._units(), parts, strict=True)])

    def writing_of(self, which: Tensor, codes: Codes) -> Float[Tensor, "site ... d"]:
        write = self.directions().write[:, which, 0]
        return torch.stack([codes.times(part) for part in write])

    def contribution(self, codes: Codes, component: int) -> Float[Tensor, "site ... d"]:
        write = self.directions().write[:, component, 0]
        return torch.stack([codes.of(component)[..., None] * part for part in write])

    @property
    def lengths(self) -> Float[Tensor, "components"]:
        """Summed over sites: a latent that lives at several pays at each."""
        return self._apart(self.W_dec).norm(dim=-1).sum(0)

    def directions(self) -> Directions:
        """In the units of the sites."""
        read, write = self._apart(self.W_enc), self._apart(self.W_dec)
        units = self._units()
        reads = torch.stack([unit.reading(part) for unit, part in zip(units, read, strict=True)])
        writes = torch.stack([unit.writing(part) for unit, part in zip(units, write, strict=True)])
        return Directions(reads[:, :, None], writes[:, :, None])

    def shares(self) -> Float[Tensor, "components site"]:
        """How a component's writing is divided among the sites: a half each is shared, all in one is its own."""
        lengths = self._apart(self.W_dec).norm(dim=-1).T
        return lengths / lengths.sum(1, keepdim=True)
