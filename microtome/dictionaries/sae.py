"""Sparse autoencoders: an overcomplete basis in which activations are sparse.

Cunningham et al. 2023 (arXiv 2309.08600); Bricken et al. 2023, Towards Monosemanticity;
Gao et al. 2024 (arXiv 2406.04093).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from microtome.core.codes import Codes
from microtome.core.component import Dictionary, Directions
from microtome.core.errors import Refusal
from microtome.core.site import Site
from microtome.dictionaries.activation_functions import Activation, Affine
from microtome.dictionaries.normalisation import Normalisation


class SAE(Dictionary):
    """codes = activation(W_enc (x' - b_dec) + b_enc);  x̂' = W_dec codes + b_dec;  x' is the normalised input.

    Decoder rows have unit norm. The encoder starts as the decoder's transpose, which leaves few latents dead.
    """

    def __init__(
        self,
        site: Site,
        d_in: int,
        width: int,
        activation: Activation,
        normalisation: Normalisation | None = None,
        *,
        generator: torch.Generator | None = None,
    ):
        """`generator` draws the initial directions. Raises Refusal for a width below one."""
        if width < 1:
            raise Refusal(f"width is {width}; a dictionary needs at least one component")
        super().__init__()
        self.reads = self.writes = (site,)
        self.activation = activation
        self.normalisation = normalisation or Normalisation(d_in)
        directions = nn.functional.normalize(torch.randn(width, d_in, generator=generator), dim=1)
        self.W_dec = nn.Parameter(directions)
        self.W_enc = nn.Parameter(directions.clone())
        self.b_enc = nn.Parameter(torch.zeros(width))
        self.b_dec = nn.Parameter(torch.zeros(d_in))

    @property
    def pre(self) -> Affine:
        """Pre-activations as one affine map of the normalised input: b_dec is folded into the bias."""
        return Affine(self.W_enc, self.b_enc - self.W_enc @ self.b_dec)

    def encode(self, x: Float[Tensor, "... d_in"]) -> Codes:
        return self.activation(self.pre, self.normalisation(x))

    def decode(self, codes: Codes) -> Float[Tensor, "... d_in"]:
        return self.normalisation.undo(codes.times(self.W_dec) + self.b_dec)

    def directions(self) -> Directions:
        """In the units of the site: reading divides by the normalisation's scale, writing multiplies by it."""
        scale = self.normalisation.scale
        return Directions((self.W_enc / scale)[:, None], (self.W_dec * scale)[:, None])

    @torch.no_grad()
    def constrain(self) -> None:
        """Give the decoder's rows unit norm again."""
        self.W_dec.div_(self.W_dec.norm(dim=1, keepdim=True).clamp(min=1e-8))
