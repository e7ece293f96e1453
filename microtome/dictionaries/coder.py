"""What every fitted dictionary is made of: an encoder, an activation, a decoder. A wiring says where they are attached.

codes = activation(W_enc u + b_enc)        u: what the wiring makes of the input
written = W_dec codes + b_dec              which the wiring brings to the written sites
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from microtome.core.codes import Codes, joined
from microtome.core.component import Dictionary
from microtome.core.errors import Refusal
from microtome.dictionaries.activation_functions import Activation, Pre
from microtome.dictionaries.constraints import Constraint, UnitRows
from microtome.dictionaries.normalisation import Fixed, Normalisation, Unchanged


class Reading(NamedTuple):
    """Pre-activations, and the activation that makes codes of them."""

    pre: Pre
    activation: Activation


class Coder(Dictionary, ABC):
    """A dictionary that is fitted. It is in training mode only inside a step, so what is read outside never learns."""

    @abstractmethod
    def readings(self, x: Float[Tensor, "... d_in"]) -> list[Reading]:
        """One for each group of components that is selected by itself; their codes, joined, are the dictionary's."""

    @abstractmethod
    def writing_of(self, which: Tensor, codes: Codes) -> Float[Tensor, "... d_out"]:
        """What some components write, given their codes numbered from 0: no bias."""

    @property
    @abstractmethod
    def lengths(self) -> Float[Tensor, "components"]:
        """The length of what each component writes in the dictionary's own units, summed over sites."""

    def resized(self, codes: Codes, x: Float[Tensor, "... d_in"]) -> Codes:
        """Codes in the units that `decode` takes: other than as selected where units depend on the token."""
        return codes

    def codes_of(self, readings: list[Reading]) -> Codes:
        """The codes of pre-activations, those of all its parts joined."""
        return joined([activation(pre) for pre, activation in readings])

    @torch.no_grad()
    def calibrate(self, x: Float[Tensor, "... d_in"]) -> None:
        """Set thresholds that training only estimates (BatchTopK) by these inputs."""
        for pre, activation in self.readings(x):
            activation.calibrate(pre)

    def forward(self, codes: Codes) -> Float[Tensor, "... d_out"]:
        return self.decode(codes)

    def frozen_decode(self, codes: Codes) -> Float[Tensor, "... d_out"]:
        """What decoding gives, with no gradient to the decoder."""
        held = {name: parameter.detach() for name, parameter in self.named_parameters()}
        return torch.func.functional_call(self, held, (codes,))

    def encode(self, x: Float[Tensor, "... d_in"]) -> Codes:
        return self.resized(self.codes_of(self.readings(x)), x)


class LinearCoder(Coder, ABC):
    """A coder with one encoder and one decoder."""

    W_enc: nn.Parameter
    b_enc: nn.Parameter
    W_dec: nn.Parameter
    b_dec: nn.Parameter

    def __init__(
        self,
        d_read: int,
        d_write: int,
        width: int,
        activation: Activation,
        constraint: Constraint | None,
        generator: torch.Generator | None,
    ):
        if width < 1:
            raise Refusal(f"width is {width}; a dictionary needs at least one component")
        super().__init__()
        self.activation, self.constraint = activation, constraint or UnitRows()
        directions = nn.functional.normalize(torch.randn(width, d_write, generator=generator), dim=1)
        self.W_dec = nn.Parameter(directions)
        tied = d_read == d_write
        other = directions if tied else nn.functional.normalize(torch.randn(width, d_read, generator=generator), dim=1)
        self.W_enc = nn.Parameter(other.clone())
        self.b_enc = nn.Parameter(torch.zeros(width))
        self.b_dec = nn.Parameter(torch.zeros(d_write))
        self.eval()

    @abstractmethod
    def read(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_read"]:
        """What the encoder sees of the input."""

    @abstractmethod
    def aim(self, y: Float[Tensor, "... d_out"]) -> Float[Tensor, "... d_write"]:
        """What W_dec codes should be for `decode` to give this, skip connections left out."""

    def readings(self, x: Float[Tensor, "... d_in"]) -> list[Reading]:
        return [Reading(Pre(self.W_enc, self.b_enc, self.read(x)), self.activation)]

    @property
    def lengths(self) -> Float[Tensor, "components"]:
        return self.W_dec.norm(dim=1)

    def __len__(self) -> int:
        return len(self.W_dec)

    def constrain(self) -> None:
        self.constraint.hold(self.W_dec)
        self.activation.constrain()


def fixed(given: Normalisation | None, width: int) -> Fixed:
    """A normalisation that can be undone from codes alone. Raises Refusal for one that depends on the token."""
    if given is None:
        return Unchanged(width)
    if not isinstance(given, Fixed):
        raise Refusal(
            f"{type(given).__name__} depends on the token, and what is read here is not what is written; "
            "use UnitMeanSquare or Whitening"
        )
    return given
