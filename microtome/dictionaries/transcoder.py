"""Transcoders: what a layer computes, as sparse components that read its input and write its output.

Dunefsky, Chlenski and Nanda 2024 (arXiv 2406.11944); with a skip connection, Paulo et al. 2025 (arXiv 2501.18823).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from microtome.core.codes import Codes
from microtome.core.component import Directions
from microtome.core.site import Site
from microtome.dictionaries.activation_functions import Activation
from microtome.dictionaries.coder import LinearCoder, fixed
from microtome.dictionaries.constraints import Constraint
from microtome.dictionaries.normalisation import Normalisation


class Transcoder(LinearCoder):
    """codes = activation(W_enc x' + b_enc);  ŷ' = W_dec codes + b_dec (+ W_skip x').

    x' and y' are what is read and what is written in units of their own. No bias is taken from the input.
    """

    def __init__(
        self,
        reads: Site,
        writes: Site,
        d_in: int,
        d_out: int,
        width: int,
        activation: Activation,
        units_in: Normalisation | None = None,
        units_out: Normalisation | None = None,
        constraint: Constraint | None = None,
        *,
        skip: bool = False,
        generator: torch.Generator | None = None,
    ):
        """`skip` adds a linear path past the codes. Raises Refusal for units that depend on the token."""
        super().__init__(d_in, d_out, width, activation, constraint, generator)
        self.reads, self.writes = (reads,), (writes,)
        self.units_in, self.units_out = fixed(units_in, d_in), fixed(units_out, d_out)
        self.W_skip = nn.Parameter(torch.zeros(d_out, d_in)) if skip else None

    def read(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_in"]:
        return self.units_in(x)

    def aim(self, y: Float[Tensor, "... d_out"]) -> Float[Tensor, "... d_out"]:
        return self.units_out(y) - self.b_dec

    def decode(self, codes: Codes) -> Float[Tensor, "... d_out"]:
        return self.units_out.undo(codes.times(self.W_dec) + self.b_dec)

    def bypass(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "..."]:
        if self.W_skip is None:
            return super().bypass(x)
        return self.units_out.writing((self.units_in(x) @ self.W_skip.T).flatten(0, -2)).view(
            *x.shape[:-1], len(self.b_dec)
        )

    def writing_of(self, which: Tensor, codes: Codes) -> Float[Tensor, "... d_out"]:
        return codes.times(self.units_out.writing(self.W_dec[which]))

    def directions(self) -> Directions:
        """In the units of the sites."""
        return Directions(self.units_in.reading(self.W_enc)[:, None], self.units_out.writing(self.W_dec)[:, None])
