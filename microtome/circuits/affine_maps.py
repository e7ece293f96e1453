"""The affine map between two sites, found by what it does: a basis is put in at one and read at the other.

So W_Q, W_K, W_V, W_O and the unembedding are had from any network with named sites, however its family stores them, and
nothing is taken for linear that is not: a random vector must come out as the sum of its parts.
"""

from collections.abc import Sequence
from math import ceil, prod
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.edit import fill
from microtome.core.errors import Refusal
from microtome.core.inputs import Inputs, Tokens
from microtome.core.model import Model
from microtome.core.site import Site

ROWS = 64  # of one forward pass
ALIKE = 1e-3  # of the largest value: far above rounding in float32, far below what a norm or a cap does
CLEAR = 10.0  # of the largest weight: where the random vector's size makes a bend show


class Affine(NamedTuple):
    """output = sum_i input_i weight[i] + bias, the input's axes (head by head, say) flattened into one."""

    weight: Float[Tensor, "d_in *out"]
    bias: Float[Tensor, "*out"]


@torch.no_grad()
def affine(
    model: Model, inputs: Inputs, before: Site, after: Site, *, pos: int | None = None, size: float = 1.0
) -> Affine:
    """The map from what stands at a place of `before` to what stands at the same place of `after`.

    `inputs` are any the network takes, without padding; their first row is used. With `pos` the map at that position,
    else that at any one of them (they are taken to be alike). `size` is that of the basis vectors put in. Raises
    Refusal where the map is not affine.
    """
    return affines(model, inputs, before, [after], pos=pos, size=size)[0]


@torch.no_grad()
def affines(
    model: Model, inputs: Inputs, before: Site, after: Sequence[Site], *, pos: int | None = None, size: float = 1.0
) -> list[Affine]:
    """The same to several sites, out of the same forward passes."""
    row = unpadded(inputs)
    shape = model.run(row, read=[before])[before].shape
    width, columns = prod(shape[2:]), list(range(shape[1])) if pos is None else [pos % shape[1]]
    basis = torch.cat((size * torch.eye(width), torch.zeros(1, width), mixture(width, size)))
    answers = [pushed(model, row, before, a, basis, shape, columns) for a in after]
    return [fitted(before, a, basis, answer, size) for a, answer in zip(after, answers, strict=True)]


def mixture(width: int, size: float) -> Float[Tensor, "1 width"]:
    """A random vector, long enough that a norm or a cap bends it."""
    drawn = torch.randn(1, width, generator=torch.Generator().manual_seed(0))
    return CLEAR * size * drawn / drawn.norm()


def unpadded(inputs: Inputs) -> Inputs:
    """The first row alone, without its padding."""
    row = inputs.rows(slice(0, 1))
    if isinstance(row, Tokens) and not row.mask.all():
        return Tokens.of(row.ids[row.mask][None])
    return row


def pushed(
    model: Model, row: Inputs, before: Site, after: Site, basis: Tensor, shape: torch.Size, columns: list[int]
) -> Float[Tensor, "vectors *out"]:
    """What comes out for each vector of the basis, several of them in one row, each in a column of its own."""
    each = len(columns)
    outputs: list[Tensor] = []
    for some in basis.split(ROWS * each):
        rows = ceil(len(some) / each)
        put = torch.zeros(rows, shape[1], *shape[2:])
        filled = torch.cat((some, some.new_zeros(rows * each - len(some), some.shape[1])))
        put[:, columns] = filled.view(rows, each, *shape[2:])
        found = model.run(row.repeat(rows), read=[after], edit=[fill(before, put)])[after]
        outputs.append(found[:, columns].flatten(0, 1)[: len(some)].float().cpu())
    return torch.cat(outputs)


def fitted(before: Site, after: Site, basis: Tensor, answers: Float[Tensor, "vectors *out"], size: float) -> Affine:
    """The affine map through these answers to a basis. Raises Refusal where a sum of vectors shows that it is none."""
    bias = answers[-2]
    weight = (answers[:-2] - bias) / size
    expected = torch.tensordot(basis[-1], weight, 1)
    off = float((answers[-1] - bias - expected).abs().max() / expected.abs().max().clamp(min=1e-30))
    if off > ALIKE:
        raise Refusal(
            f"what stands between {before} and {after} is not affine (a sum of vectors is off by {off:.1e} of the "
            "largest), as where queries and keys are normed or logits capped; choose sites with nothing but a "
            f"projection between them, such as {before.name.partition('.')[0]} and q_raw"
        )
    return Affine(weight, bias)
