"""Products with sparse codes that never make them dense, forward and backward.

A bag is a row of `k` indices with `k` weights. Gao et al. 2024 (arXiv 2406.04093, appendix D) show why this pays: with
k of n latents active, all but the encoder's own product shrinks by n / k.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

import warnings
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

warnings.filterwarnings("ignore", message=".*Sparse (CSR|invariant).*")


def bag_sum(
    values: Float[Tensor, "rows k"], indices: Int[Tensor, "rows k"], weights: Float[Tensor, "n d"]
) -> Float[Tensor, "rows d"]:
    """Sum over each row's entries of value times the indexed row of `weights`."""
    return embedding_bag(indices, weights, per_sample_weights=values, mode="sum")


def gather_dot(
    x: Float[Tensor, "rows d"], weights: Float[Tensor, "n d"], indices: Int[Tensor, "rows k"]
) -> Float[Tensor, "rows k"]:
    """The products of each row of `x` with the rows of `weights` that its indices name, and no others."""
    rows, k = indices.shape
    starts = torch.arange(0, rows * k + 1, k, device=x.device)
    return gather_dot_ragged(x, weights, starts, indices.reshape(-1)).view(rows, k)


def gather_dot_ragged(
    x: Float[Tensor, "rows d"],
    weights: Float[Tensor, "n d"],
    starts: Int[Tensor, "rows_and_one"],
    indices: Int[Tensor, "entries"],
) -> Float[Tensor, "entries"]:
    """The same for rows with any number of entries: those of row r stand from starts[r] to starts[r + 1]."""
    zeros = x.new_zeros(len(indices))
    pattern = torch.sparse_csr_tensor(starts, indices, zeros, (len(x), len(weights)), check_invariants=False)
    return torch.sparse.sampled_addmm(pattern, x, weights.T, beta=0.0).values()


class Order(NamedTuple):
    """Entries sorted by the index they name: those of index j stand from starts[j] to starts[j + 1]."""

    order: Int[Tensor, "entries"]
    starts: Int[Tensor, "n_and_one"]


def by_index(indices: Int[Tensor, "entries"], n: int) -> Order:
    """Where entries go so that those of one index stand together, in their old order. Indices lie below n."""
    ordered, order = indices.to(torch.int32).sort(stable=True)
    return Order(order, torch.searchsorted(ordered, torch.arange(n + 1, dtype=torch.int32, device=indices.device)))


def scatter_outer(
    values: Float[Tensor, "rows k"], indices: Int[Tensor, "rows k"], x: Float[Tensor, "rows d"], n: int
) -> Float[Tensor, "n d"]:
    """The transpose of `bag_sum`: row j of the result sums value times row of `x` over the entries that name j."""
    rows = torch.arange(len(x), device=x.device).repeat_interleave(indices.shape[1])
    return scatter_outer_ragged(values.reshape(-1), rows, indices.reshape(-1), x, n)


def scatter_outer_ragged(
    values: Float[Tensor, "entries"],
    rows: Int[Tensor, "entries"],
    indices: Int[Tensor, "entries"],
    x: Float[Tensor, "rows d"],
    n: int,
) -> Float[Tensor, "n d"]:
    """The same for rows with any number of entries, each of which says its row."""
    order, starts = by_index(indices, n)
    return embedding_bag(rows[order], x, starts[:-1], per_sample_weights=values[order], mode="sum")


class _BagProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(values, indices, weights)
        return bag_sum(values, indices, weights)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        values, indices, weights = ctx.saved_tensors
        grad = grad_outputs[0].contiguous()
        to_values = gather_dot(grad, weights, indices) if ctx.needs_input_grad[0] else None
        to_weights = scatter_outer(values, indices, grad, len(weights)) if ctx.needs_input_grad[2] else None
        return to_values, None, to_weights


def bag_product(
    values: Float[Tensor, "rows k"], indices: Int[Tensor, "rows k"], weights: Float[Tensor, "n d"]
) -> Float[Tensor, "rows d"]:
    """`bag_sum` with gradients to values and weights that are as sparse as the codes."""
    return _BagProduct.apply(values, indices, weights)
