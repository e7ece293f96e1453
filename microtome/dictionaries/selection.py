"""The k largest pre-activations of each row, exactly, without ever holding all of them.

The encoder's product is made in blocks of rows into one buffer. Where the processor multiplies bfloat16 faster, the
product only proposes k + 16 candidates, and those are scored again in full precision: on real activations the right k
are always among them (a low-precision product alone gives about a third of all rows a wrong component).
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from microtome.core.sparse import gather_dot, scatter_outer

SPARE = 16  # candidates proposed beyond k
GROUP = 16  # pre-activations compared at once in the first stage of selection
BLOCK = 512  # rows of pre-activations held at a time


def largest(scores: Float[Tensor, "rows n"], k: int) -> tuple[Float[Tensor, "rows k"], Int[Tensor, "rows k"]]:
    """The k largest of each row, in no order. Two stages: the k strided groups of largest maxima, then inside.

    Exact: an element of the top k lies in a group whose maximum is among the k largest maxima.
    """
    rows, n = scores.shape
    if n % GROUP or n // GROUP <= k:
        best = scores.topk(k, 1, sorted=False)
        return best.values, best.indices
    groups = n // GROUP
    by_group = scores.view(rows, GROUP, groups)
    chosen = by_group.amax(1).topk(k, 1, sorted=False).indices
    members = chosen[:, None] + torch.arange(GROUP, device=scores.device).view(1, -1, 1) * groups
    members = members.view(rows, GROUP * k)
    best = scores.gather(1, members).topk(k, 1, sorted=False)
    return best.values, members.gather(1, best.indices)


class _TopLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Tensor, bias: Tensor, k: int, fast: bool) -> tuple[Tensor, Tensor]:
        parts = [_top_block(rows, weights, bias, k, fast) for rows in _blocks(x, weights, fast)]
        values, indices = (torch.cat(part) for part in zip(*parts, strict=True))
        ctx.save_for_backward(x, weights, indices)
        ctx.mark_non_differentiable(indices)
        return values, indices

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, weights, indices = ctx.saved_tensors
        grad = grad_outputs[0].contiguous()  # that of the values; the indices have none
        n = len(weights)
        to_x = (
            torch.nn.functional.embedding_bag(indices, weights, per_sample_weights=grad, mode="sum")
            if ctx.needs_input_grad[0]
            else None
        )
        to_weights = scatter_outer(grad, indices, x, n) if ctx.needs_input_grad[1] else None
        to_bias = grad.new_zeros(n).index_add_(0, indices.view(-1), grad.view(-1)) if ctx.needs_input_grad[2] else None
        return to_x, to_weights, to_bias, None, None


def _blocks(x: Tensor, weights: Tensor, fast: bool) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Blocks of rows, each with the weights in the precision of the search and a shared buffer to multiply into."""
    dtype = torch.bfloat16 if fast else x.dtype
    searched = weights.detach().to(dtype)
    buffer = torch.empty(min(BLOCK, len(x)), len(weights), dtype=dtype, device=x.device)
    return [(rows, searched, buffer[: len(rows)]) for rows in x.split(BLOCK)]


def _top_block(
    block: tuple[Tensor, Tensor, Tensor], weights: Tensor, bias: Tensor, k: int, fast: bool
) -> tuple[Tensor, Tensor]:
    rows, searched, buffer = block
    torch.addmm(bias.to(searched.dtype), rows.to(searched.dtype), searched.T, out=buffer)
    if not fast:
        return largest(buffer, k)
    _, candidates = largest(buffer, k + SPARE)
    exact = gather_dot(rows, weights, candidates) + bias[candidates]
    best = exact.topk(k, 1, sorted=False)
    return best.values, candidates.gather(1, best.indices)


def fast_bfloat16(device: torch.device) -> bool:
    """Whether a bfloat16 product is quicker here than a float32 one."""
    if device.type != "cpu":
        return True
    return torch.cpu._is_avx512_bf16_supported()


def top_linear(
    x: Float[Tensor, "rows d"],
    weights: Float[Tensor, "n d"],
    bias: Float[Tensor, "n"],
    k: int,
    fast: bool | None = None,
) -> tuple[Float[Tensor, "rows k"], Int[Tensor, "rows k"]]:
    """The k largest of `x weights.T + bias` in each row, and which; with gradients as sparse as they are."""
    wanted = fast_bfloat16(x.device) and x.dtype == torch.float32 if fast is None else fast
    searched = wanted and len(weights) > k + SPARE  # else every component would be a candidate
    return _TopLinear.apply(x.contiguous(), weights, bias, k, searched)
