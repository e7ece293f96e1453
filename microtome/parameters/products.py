"""A matrix in the place of a weight: what it makes of the input of a product, whichever kind of product it was."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from microtome.parameters.addresses import Address, within
from microtome.parameters.uses import Use


def applied(use: Use, matrix: Float[Tensor, "*seeds k in"], lead: tuple[int, ...]) -> Float[Tensor, "... k"]:
    """The product with another matrix (k, in) in the weight's place; its k numbers stand last."""
    if use.moves is not None:
        return convolved(use, matrix).movedim(1, -1)
    if not use.x.is_floating_point():  # ids: an embedding picks columns
        return matrix[..., use.x].movedim(matrix.ndim - 2, -1)
    x = use.x
    if x.ndim <= len(lead) + 2:
        return x @ matrix.mT
    flat = x.flatten(len(lead), -2)
    return (flat @ matrix.mT).unflatten(-2, x.shape[len(lead) : -1])


def convolved(use: Use, matrix: Float[Tensor, "k in"]) -> Float[Tensor, "batch k ..."]:
    """A layer's inputs through the kernels that the rows of a matrix are."""
    assert use.moves is not None
    channels = use.x.shape[1]
    kernel = matrix.unflatten(-1, (channels, -1))
    moves = use.moves
    if use.x.ndim == 3:
        return F.conv1d(use.x, kernel, None, moves.stride, moves.padding, moves.dilation)
    return F.conv2d(use.x, kernel.unflatten(-1, use.kernel), None, moves.stride, moves.padding, moves.dilation)


def padded(use: Use, address: Address) -> Use:
    """The use with the part of its input that an address reads, and a one behind it for the bias."""
    if address.reads is None and address.bias is None and address.writes is None:
        return use
    at = address.writes if use.turned else address.reads
    x = use.x if at is None else use.x[..., within(at)]
    if address.bias is not None and not use.turned:
        x = torch.cat((x, torch.ones_like(x[..., :1])), -1)
    return replace(use, x=x)


def laid_out(y: Tensor, use: Use) -> Tensor:
    """As the module's own product lays it out: a convolution has its channels second."""
    return y if use.moves is None else y.movedim(-1, 1)
