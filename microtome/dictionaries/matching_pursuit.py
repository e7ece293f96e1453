"""Matching pursuit: latents are chosen one after another, each for what the ones before it left.

Mallat and Zhang 1993; as the encoder of a sparse autoencoder, Costa et al. 2025 (arXiv 2506.03093).
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from microtome.core.codes import Codes, TopCodes
from microtome.core.component import Dictionary, Directions
from microtome.core.errors import Refusal
from microtome.core.site import Site
from microtome.dictionaries.activation_functions import at_least_one
from microtome.dictionaries.coder import fixed
from microtome.dictionaries.constraints import UnitRows
from microtome.dictionaries.normalisation import Normalisation

GRAM = 8192  # latents, of which all products with one another are kept: 256 MB


class MatchingPursuit(Dictionary):
    """k times over: the row d of W_dec with the largest r . d is chosen, its code is r . d, and r loses (r . d) d.

    r starts as x' - b_dec. Decoder and encoder are the same unit rows. A code that would be negative is zero.
    """

    def __init__(
        self,
        site: Site,
        d_in: int,
        width: int,
        k: int,
        normalisation: Normalisation | None = None,
        *,
        generator: torch.Generator | None = None,
    ):
        """Raises Refusal for a k outside 1..width, and for units that depend on the token."""
        if at_least_one(k) > width:
            raise Refusal(f"k is {k}, more than the {width} components there would be")
        super().__init__()
        self.reads = self.writes = (site,)
        self.k, self.normalisation = k, fixed(normalisation, d_in)
        self.W_dec = nn.Parameter(nn.functional.normalize(torch.randn(width, d_in, generator=generator), dim=1))
        self.b_dec = nn.Parameter(torch.zeros(d_in))

    def __len__(self) -> int:
        return len(self.W_dec)

    def encode(self, x: Float[Tensor, "... d_in"]) -> Codes:
        left = (self.normalisation(x) - self.b_dec).reshape(-1, x.shape[-1])
        scores = Scores(self.W_dec.detach(), left.detach(), self.k)
        values, indices = [], []
        for _ in range(self.k):
            index = scores.best()
            value = torch.relu((left * self.W_dec[index]).sum(1))
            left = left - value[:, None] * self.W_dec[index]
            scores.leave(index, value.detach(), left.detach())
            values.append(value)
            indices.append(index)
        lead = (*x.shape[:-1], self.k)
        return TopCodes(torch.stack(values, 1).view(lead), torch.stack(indices, 1).view(lead), len(self))

    def decode(self, codes: Codes) -> Float[Tensor, "... d_in"]:
        return self.normalisation.undo(codes.times(self.W_dec) + self.b_dec)

    def constrain(self) -> None:
        UnitRows().hold(self.W_dec)

    def directions(self) -> Directions:
        """What is read is a latent's direction as if it were chosen first."""
        units = self.normalisation
        return Directions(units.reading(self.W_dec)[:, None], units.writing(self.W_dec)[:, None])


class Scores:
    """r . d for every row and latent, kept as r shrinks: by the products of latents where these fit, else anew.

    Only the choice is made here, which has no gradient; what a choice is worth is one product a row.
    """

    def __init__(self, latents: Float[Tensor, "components d"], left: Float[Tensor, "rows d"], choices: int):
        """The products are made where `choices` of a row are dearer without them."""
        self.latents, self.now = latents, left @ latents.T
        self.gram = latents @ latents.T if len(latents) <= GRAM and len(left) * choices > len(latents) else None

    def best(self) -> Int[Tensor, "rows"]:
        """The component of each row that explains most of what is left."""
        return self.now.argmax(1)

    def leave(self, index: Int[Tensor, "rows"], value: Float[Tensor, "rows"], left: Float[Tensor, "rows d"]) -> None:
        """Each row has lost `value` times its chosen latent, and `left` is what remains."""
        if self.gram is None:
            self.now = left @ self.latents.T
        else:
            self.now -= value[:, None] * self.gram[index]
