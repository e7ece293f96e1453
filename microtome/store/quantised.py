"""How rows are stored: two bytes a number, one and a scale for each row, or four. Each says how far it may be off.

A codec turns rows into named tensors, which a shard holds, and back. Its name stands in the manifest.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from microtome.core.errors import Refusal

Parts = dict[str, Tensor]  # each with one entry, or one row, for each row written


@runtime_checkable
class Codec(Protocol):
    """Rows to what stands on disk, and back."""

    name: ClassVar[str]

    def encode(self, x: Float[Tensor, "rows d"]) -> Parts:
        """The rows as they are stored."""
        ...

    def decode(self, parts: Mapping[str, Tensor], which: Int[Tensor, "some"]) -> Float[Tensor, "some d"]:
        """These rows, as float32."""
        ...

    def bytes_per_row(self, width: int) -> int:
        """What a row of this width takes on disk."""
        ...

    def error_bound(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows d"]:
        """How far each number may come back from what it was."""
        ...


@dataclass(frozen=True)
class Bfloat16:
    """Eight significant bits: each number comes back within 2⁻⁸ of its own size."""

    name: ClassVar[str] = "bfloat16"

    def encode(self, x: Float[Tensor, "rows d"]) -> Parts:
        return {"x": x.bfloat16()}

    def decode(self, parts: Mapping[str, Tensor], which: Int[Tensor, "some"]) -> Float[Tensor, "some d"]:
        return parts["x"][which].float()

    def bytes_per_row(self, width: int) -> int:
        return 2 * width

    def error_bound(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows d"]:
        return x.abs() * 2.0**-8


@dataclass(frozen=True)
class Int8:
    """q = round(x / s), with s = max |x| / 127 of the row: each number comes back within s / 2, and a little rounding.

    A row with one huge number is coarse everywhere else: look at `error_bound` before storing a site with outliers.
    """

    name: ClassVar[str] = "int8"

    def encode(self, x: Float[Tensor, "rows d"]) -> Parts:
        scale = scale_of(x)
        return {"x": (x.float() / scale[:, None]).round().to(torch.int8), "scale": scale}

    def decode(self, parts: Mapping[str, Tensor], which: Int[Tensor, "some"]) -> Float[Tensor, "some d"]:
        return parts["x"][which].float() * parts["scale"][which][:, None]

    def bytes_per_row(self, width: int) -> int:
        return width + 4

    def error_bound(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows d"]:
        half = scale_of(x)[:, None] * 0.5
        return (half * (1 + 2.0**-12)).expand_as(x)


def scale_of(x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows"]:
    """What one step of eight bits is worth in each row; never nought."""
    return (x.abs().amax(1).float() / 127).clamp(min=torch.finfo(torch.float32).tiny)


@dataclass(frozen=True)
class Float32:
    """As it was."""

    name: ClassVar[str] = "float32"

    def encode(self, x: Float[Tensor, "rows d"]) -> Parts:
        return {"x": x.float()}

    def decode(self, parts: Mapping[str, Tensor], which: Int[Tensor, "some"]) -> Float[Tensor, "some d"]:
        return parts["x"][which]

    def bytes_per_row(self, width: int) -> int:
        return 4 * width

    def error_bound(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows d"]:
        return torch.zeros_like(x)


BFLOAT16 = Bfloat16()
CODECS: dict[str, Codec] = {codec.name: codec for codec in (BFLOAT16, Int8(), Float32())}


def codec_named(name: str) -> Codec:
    """The way of storing of this name. Raises Refusal where there is none."""
    if name not in CODECS:
        raise Refusal(f"no way of storing rows is called {name!r}; there are {', '.join(CODECS)}")
    return CODECS[name]
