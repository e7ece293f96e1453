"""What k active rows of a decoder add up to, and how weights learn from them, on a GPU, in Triton.

    compare   one program a row: the decoder's rows are read once, for the error and for its products with them
    update    one program a latent: its entries, sorted together, make its gradients, which move its weights at once

No gradient is written, and no two programs write to one place, so the same step gives the same bits.
"""
# ruff: noqa: ANN001, ANN202  (the arguments of a kernel are pointers and numbers of the GPU)
# The numbers of warps and of stages are arguments of the launch, which the program does not have.
# pyright: reportCallIssue=false

from typing import NamedTuple, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Bool, Float, Int
from torch import Tensor

from microtome.dictionaries.kernels.parts import Active, Compared, Extra, Rate, Weights
from microtome.dictionaries.kernels.triton_select import tile_of_entries

AT_ONCE = 8  # entries of a latent that are added up together
STRETCH = 256  # of d


def compare(target: Float[Tensor, "rows d"], active: Active, decoder: Float[Tensor, "n d"]) -> Compared:
    """The error of the active rows' sum, its summed square, and its products with these rows."""
    (rows, d), k = target.shape, active.indices.shape[1]
    error, squares = torch.empty_like(target), target.new_empty(rows)
    products = target.new_empty(rows, k)
    _compare[(rows,)](
        target, active.values, active.indices, decoder, error, squares, products, d, k, *tile_of_entries(k), num_warps=8
    )
    return Compared(error, squares.sum(), products)


@triton.jit
@no_type_check
def _compare(
    target, values, indices, decoder, error, squares, products, d, k, block_k: tl.constexpr, block_d: tl.constexpr
):
    """Owns a row; reads its target and decoder rows, a stretch of d at a time; writes error, square and products."""
    row = tl.program_id(0).to(tl.int64)
    entry = tl.arange(0, block_k)
    value = tl.load(values + row * k + entry, mask=entry < k, other=0.0)
    index = tl.load(indices + row * k + entry, mask=entry < k, other=0)
    product = tl.zeros((block_k,), tl.float32)
    square = tl.zeros((block_d,), tl.float32)
    for start in range(0, d, block_d):
        at = start + tl.arange(0, block_d)
        inside = (entry < k)[:, None] & (at < d)[None, :]
        direction = tl.load(decoder + index[:, None] * d + at[None, :], mask=inside, other=0.0)
        here = tl.load(target + row * d + at, mask=at < d, other=0.0)
        missed = tl.sum(value[:, None] * direction, axis=0) - here
        tl.store(error + row * d + at, missed, mask=at < d)
        product += tl.sum(direction * missed[None, :], axis=1)
        square += missed * missed
    tl.store(products + row * k + entry, product, mask=entry < k)
    tl.store(squares + row, tl.sum(square))


class Entries(NamedTuple):
    """The entries of a batch that say anything, by latent: latent i has those from starts[i] to starts[i + 1]."""

    rows: Int[Tensor, "entries"]
    values: Float[Tensor, "entries"]
    gradients: Float[Tensor, "entries"]
    starts: Int[Tensor, "n+1"]


def by_latent(active: Active, gradients: Float[Tensor, "rows k"], n: int) -> Entries:
    """Entries without value or gradient are sorted past the last latent, where nobody looks."""
    says = (active.values != 0) | (gradients != 0)
    latent, order = torch.where(says, active.indices, n).flatten().to(torch.int32).sort(stable=True)
    starts = torch.searchsorted(latent, torch.arange(n + 1, dtype=torch.int32, device=latent.device))
    rows = (order // active.indices.shape[1]).to(torch.int32)
    return Entries(rows, active.values.flatten()[order], gradients.flatten()[order], starts)


def update(
    weights: Weights,
    moments: dict[str, tuple[Tensor, Tensor]],
    searched: Float[Tensor, "n d"],
    x: Float[Tensor, "rows d"],
    error: Float[Tensor, "rows d"],
    entries: Entries,
    extra: Extra | None,
    rate: Rate,
) -> Bool[Tensor, "n"]:
    """One step of Adam on all weights, decoder rows back to unit length, and `searched` made anew from W_enc."""
    n, d = weights.W_enc.shape
    fired = torch.empty(n, dtype=torch.bool, device=x.device)
    slots = torch.full((n,), -1, device=x.device)
    if extra is not None:
        slots[extra.which] = torch.arange(len(extra.which), device=x.device)
    more = extra[1:] if extra is not None else (x, x, x)  # nobody reads these where there are none
    busiest_first = entries.starts.diff().argsort(descending=True)  # or the last program would have the longest turn
    correction, spread = 1 - rate.betas[0] ** rate.step, (1 - rate.betas[1] ** rate.step) ** 0.5
    _update[(n,)](
        busiest_first, *entries, x, error, slots, *more,
        weights.W_enc, *moments["W_enc"], weights.b_enc, *moments["b_enc"], weights.W_dec, *moments["W_dec"],
        searched, fired, d, rate.lr / correction, *rate.betas, 1 / spread, rate.eps,
        AT_ONCE, min(STRETCH, triton.next_power_of_2(d)), num_warps=4,
    )  # fmt: skip
    return fired


@triton.jit
@no_type_check
def _update(
    turns, rows, values, gradients, starts, x, error, slots, extra_enc, extra_b, extra_dec,
    w_enc, m_enc, v_enc, b, m_b, v_b, w_dec, m_dec, v_dec, searched, fired,
    d, lr, beta1, beta2, inverse_spread, eps, block_e: tl.constexpr, block_d: tl.constexpr,
):  # fmt: skip
    """Owns a latent: its row of each weight and of each moment; reads the rows of x and error that its entries name."""
    latent = tl.load(turns + tl.program_id(0))
    start, stop = tl.load(starts + latent), tl.load(starts + latent + 1)
    slot = tl.load(slots + latent)
    given = tl.where(slot >= 0, d, 0)  # how much of an extra row there is: all or none
    to_b, active = _bias(gradients, values, start, stop, block_e)
    to_b += tl.load(extra_b + slot, mask=slot >= 0, other=0.0)
    tl.store(b + latent, _moved(b, m_b, v_b, latent, True, to_b, lr, beta1, beta2, inverse_spread, eps))
    tl.store(fired + latent, active > 0)
    length = tl.zeros((block_d,), tl.float32)
    for first in range(0, d, block_d):
        at = first + tl.arange(0, block_d)
        inside = at < d
        to_enc = tl.load(extra_enc + slot * d + at, mask=at < given, other=0.0)
        to_dec = tl.load(extra_dec + slot * d + at, mask=at < given, other=0.0)
        to_enc += _summed(gradients, x, rows, start, stop, d, at, block_e, block_d)
        to_dec += _summed(values, error, rows, start, stop, d, at, block_e, block_d)
        place = latent * d + at
        enc = _moved(w_enc, m_enc, v_enc, place, inside, to_enc, lr, beta1, beta2, inverse_spread, eps)
        dec = _moved(w_dec, m_dec, v_dec, place, inside, to_dec, lr, beta1, beta2, inverse_spread, eps)
        tl.store(w_enc + place, enc, mask=inside)
        tl.store(searched + place, enc.to(tl.bfloat16).to(searched.dtype.element_ty), mask=inside)
        tl.store(w_dec + place, dec, mask=inside)
        length += tl.where(inside, dec * dec, 0.0)
    tl.debug_barrier()  # all of the row must have been written before it is read again
    _shorten(w_dec + latent * d, d, tl.sqrt(tl.sum(length)), block_d)


@triton.jit
@no_type_check
def _bias(gradients, values, start, stop, block_e: tl.constexpr):
    """The summed gradient of a latent's entries, and how many of them are active."""
    total = tl.zeros((block_e,), tl.float32)
    active = tl.zeros((block_e,), tl.int32)
    for first in range(start, stop, block_e):
        entry = first + tl.arange(0, block_e)
        total += tl.load(gradients + entry, mask=entry < stop, other=0.0)
        active += (tl.load(values + entry, mask=entry < stop, other=0.0) > 0).to(tl.int32)
    return tl.sum(total), tl.sum(active)


@triton.jit
@no_type_check
def _summed(factors, table, rows, start, stop, d, at, block_e: tl.constexpr, block_d: tl.constexpr):
    """Sum over a latent's entries of factor times the stretch `at` of the row of `table` that the entry names."""
    total = tl.zeros((block_e, block_d), tl.float32)
    for first in range(start, stop, block_e):
        entry = first + tl.arange(0, block_e)
        factor = tl.load(factors + entry, mask=entry < stop, other=0.0)
        row = tl.load(rows + entry, mask=entry < stop, other=0).to(tl.int64)
        inside = (entry < stop)[:, None] & (at < d)[None, :]
        total += factor[:, None] * tl.load(table + row[:, None] * d + at[None, :], mask=inside, other=0.0)
    return tl.sum(total, axis=0)


@triton.jit
@no_type_check
def _moved(w, m, v, at, inside, gradient, lr, beta1, beta2, inverse_spread, eps):
    """Where Adam puts the weights at `at`; their moments are written here. Corrections for bias come in lr and spread.

    Kingma and Ba 2015, arXiv 1412.6980, algorithm 1.
    """
    mean = beta1 * tl.load(m + at, mask=inside, other=0.0) + (1 - beta1) * gradient
    square = beta2 * tl.load(v + at, mask=inside, other=0.0) + (1 - beta2) * gradient * gradient
    tl.store(m + at, mean, mask=inside)
    tl.store(v + at, square, mask=inside)
    return tl.load(w + at, mask=inside, other=0.0) - lr * mean / (tl.sqrt(square) * inverse_spread + eps)


@triton.jit
@no_type_check
def _shorten(row, d, length, block_d: tl.constexpr):
    """The row to length 1; one that is nothing stays so."""
    for first in range(0, d, block_d):
        at = first + tl.arange(0, block_d)
        here = tl.load(row + at, mask=at < d, other=0.0)
        tl.store(row + at, here / tl.maximum(length, 1e-12), mask=at < d)
