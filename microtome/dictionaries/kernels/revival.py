"""AuxK without autograd: the loss and the gradients of dead latents that explain what the living leave.

Gao et al. 2024 (arXiv 2406.04093), appendix A.2. Few latents are dead, and d / 2 of them are kept on each row, so these
are plain products over the dead alone, in bfloat16 where that is quicker, a block of rows at a time.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from microtome.dictionaries.kernels.parts import Extra, Weights
from microtome.dictionaries.selection import largest

ROOM = 2**22  # pre-activations of dead latents held at a time


class Revived(NamedTuple):
    """The loss, and its gradients."""

    loss: Float[Tensor, ""]
    extra: Extra


def revive(
    weights: Weights,
    dead: Int[Tensor, "dead"],
    k_aux: int,
    weight: float,
    x: Float[Tensor, "rows d"],
    missing: Float[Tensor, "rows d"],
    dtype: torch.dtype,
) -> Revived | None:
    """`weight` times the share of the variance of `missing` that the k_aux strongest dead latents of each row miss.

    `x` is what the encoder reads. Products are made in `dtype`. None where `missing` does not vary: then there is
    nothing to explain.
    """
    spread = (missing - missing.mean(0)).pow(2).sum()
    if not spread > 0:
        return None
    low = Weights(*(w[dead].to(dtype) for w in weights))
    extra = Extra(dead, *(torch.zeros_like(w[dead]) for w in weights))
    squares = x.new_zeros(())
    block = max(1, ROOM // len(dead))
    for rows, target in zip(x.to(dtype).split(block), missing.split(block), strict=True):
        squares += _add(low, extra, min(k_aux, len(dead)), rows, target)
    for gradient in extra[1:]:
        gradient.mul_(-2 * weight / spread)
    return Revived(weight * squares / spread, extra)


def _add(weights: Weights, extra: Extra, k: int, x: Tensor, target: Tensor) -> Tensor:
    """Add a block's gradients, in units of -2 weight / spread, to `extra`; says the summed square of what it misses."""
    pre = torch.addmm(weights.b_enc, x, weights.W_enc.T).relu_()
    codes = pre
    if k < pre.shape[1]:
        values, indices = largest(pre, k)
        codes = torch.zeros_like(pre).scatter_(1, indices, values)
    missed = target - codes @ weights.W_dec
    low = missed.to(x.dtype)
    slopes = (low @ weights.W_dec.T).mul_(codes > 0)
    extra.W_dec.add_(codes.T @ low)
    extra.W_enc.add_(slopes.T @ x)
    extra.b_enc.add_(slopes.sum(0, dtype=extra.b_enc.dtype))
    return missed.pow(2).sum()
