"""Sparse autoencoders: an overcomplete basis in which activations are sparse.

Cunningham et al. 2023 (arXiv 2309.08600); Bricken et al. 2023, Towards Monosemanticity;
Gao et al. 2024 (arXiv 2406.04093).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.codes import Codes
from microtome.core.component import Directions
from microtome.core.fit import Adam, Engine, Objective
from microtome.core.site import Site
from microtome.dictionaries.activation_functions import Activation
from microtome.dictionaries.coder import LinearCoder
from microtome.dictionaries.constraints import Constraint
from microtome.dictionaries.normalisation import Normalisation, OfToken, Unchanged


class SAE(LinearCoder):
    """codes = activation(W_enc (x' - b_dec) + b_enc);  x̂' = W_dec codes + b_dec;  x' is the normalised input.

    Decoder rows have unit norm, unless another constraint is given. The encoder starts as the decoder's transpose,
    which leaves few latents dead. With units of a token (LayerNorm, UnitNorm) codes carry the token's scale.
    """

    def __init__(
        self,
        site: Site,
        d_in: int,
        width: int,
        activation: Activation,
        normalisation: Normalisation | None = None,
        constraint: Constraint | None = None,
        *,
        generator: torch.Generator | None = None,
    ):
        """`generator` draws the initial directions. Raises Refusal for a width below one."""
        super().__init__(d_in, d_in, width, activation, constraint, generator)
        self.reads = self.writes = (site,)
        self.normalisation = normalisation or Unchanged(d_in)

    def read(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_in"]:
        return self.normalisation(x) - self.b_dec

    def aim(self, y: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_in"]:
        return self.read(y)

    def resized(self, codes: Codes, x: Float[Tensor, "... d_in"]) -> Codes:
        units = self.normalisation
        return codes.sized(units.scale(x)[..., 0]) if isinstance(units, OfToken) else codes

    def decode(self, codes: Codes) -> Float[Tensor, "... d_in"]:
        return self.normalisation.undo(codes.times(self.W_dec) + self.b_dec)

    def bypass(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "..."]:
        """With units of a token: its offset, and what its scale makes of the bias beyond what `decode` adds."""
        units = self.normalisation
        if not isinstance(units, OfToken):
            return super().bypass(x)
        return units.offset(x) + (units.scale(x) - 1) * self.b_dec

    def writing_of(self, which: Tensor, codes: Codes) -> Float[Tensor, "... d_in"]:
        return codes.times(self.normalisation.writing(self.W_dec[which]))

    def engine(self, objective: Objective, adam: Adam) -> Engine | None:
        """A quicker way of making the same steps, where there is one for this objective here."""
        from microtome.dictionaries.kernels.engine import offered

        return offered(self, objective, adam)

    def directions(self) -> Directions:
        """In the units of the site."""
        units = self.normalisation
        return Directions(units.reading(self.W_enc)[:, None], units.writing(self.W_dec)[:, None])
