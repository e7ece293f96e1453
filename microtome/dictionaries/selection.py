"""The largest pre-activations of each row, or of a whole batch, exactly, without ever holding all of them.

The encoder's product is made in blocks of rows into one buffer. Where the processor multiplies bfloat16 faster, the
product only proposes k + 16 candidates, and those are scored again in full precision: on real activations the right k
are always among them (a low-precision product alone gives about a third of all rows a wrong component).
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

from microtome.core.sparse import gather_dot, gather_dot_ragged, scatter_outer, scatter_outer_ragged

SPARE = 16  # candidates proposed beyond k
GROUP = 4  # scores that stand behind one maximum
ENOUGH = 4  # groups for each that is wanted, below which looking at all is quicker
BLOCK = 512  # rows of pre-activations held at a time
SAMPLE = 64  # rows from which the bound of a batch is guessed


def largest(scores: Float[Tensor, "rows n"], k: int) -> tuple[Float[Tensor, "rows k"], Int[Tensor, "rows k"]]:
    """The k largest of each row, in no order: the k strided groups of largest maxima, then inside those.

    Exact: an element of the top k lies in a group whose maximum is among the k largest maxima.
    """
    indices = _strongest(scores, k)
    return scores.gather(1, indices), indices


def _strongest(scores: Float[Tensor, "rows n"], k: int) -> Int[Tensor, "rows k"]:
    """Where the k largest stand.

    The bits of bfloat16 numbers that are not negative, read as integers, are in their order, and every negative one
    comes below; a processor compares integers several times as fast.
    """
    if scores.dtype == torch.bfloat16 and scores.device.type == "cpu":
        bits = scores.view(torch.int16)
        found = _in_groups(bits, k)
        if bits.gather(1, found).amin() >= 0:
            return found
    return _in_groups(scores, k)


def _in_groups(keys: Tensor, k: int) -> Int[Tensor, "rows k"]:
    rows, n = keys.shape
    if n % GROUP or n // GROUP < ENOUGH * k:
        return keys.topk(k, 1, sorted=False).indices
    groups = n // GROUP
    chosen = _in_groups(keys.view(rows, GROUP, groups).amax(1), k)
    members = chosen[:, None] + torch.arange(GROUP, device=keys.device).view(1, -1, 1) * groups
    members = members.view(rows, GROUP * k)
    return members.gather(1, keys.gather(1, members).topk(k, 1, sorted=False).indices)


class Search:
    """Looks for the largest of `x weights.T + bias`, block by block of rows.

    It holds the weights in the precision of the search, and room for one block of scores. After the weights have
    changed, `refresh` it.
    """

    def __init__(self, weights: Float[Tensor, "n d"], fast: bool):
        self.weights, self.fast = weights, fast
        self.dtype = torch.bfloat16 if fast else weights.dtype
        self.searched = weights.to(self.dtype)  # itself, where the search is exact
        self.room = weights.new_empty(0, len(weights), dtype=self.dtype)

    def refresh(self, part: slice = slice(None)) -> None:
        """Take over the weights of these components as they are now."""
        if self.fast:
            self.searched[part].copy_(self.weights[part])

    def scores(self, x: Float[Tensor, "rows d"], bias: Float[Tensor, "n"]) -> Iterator[tuple[Tensor, Tensor]]:
        """(a block of rows, their scores in the precision of the search), which hold until the next is asked for."""
        if len(self.room) < min(BLOCK, len(x)):
            self.room = self.room.new_empty(min(BLOCK, len(x)), len(self.weights))
        low, added = x.to(self.dtype), bias.to(self.dtype)
        for rows, searching in zip(x.split(BLOCK), low.split(BLOCK), strict=True):
            yield rows, torch.mm(searching, self.searched.T, out=self.room[: len(rows)]).add_(added)

    def top(
        self, x: Float[Tensor, "rows d"], bias: Float[Tensor, "n"], k: int
    ) -> tuple[Float[Tensor, "rows k"], Int[Tensor, "rows k"]]:
        """The k largest of each row, exactly, in no order, and which."""
        if self.fast:
            candidates = [_strongest(scores, k + SPARE) for _, scores in self.scores(x, bias)]
            return self._best_of(torch.cat(candidates), x, bias, k)
        values, indices = zip(*(largest(scores, k) for _, scores in self.scores(x, bias)), strict=True)
        return torch.cat(values), torch.cat(indices)

    def _best_of(self, candidates: Tensor, x: Tensor, bias: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The k largest of each row's candidates, by scores in full precision.

        For all rows at once: between two blocks the product drives the weights out of the cache.
        """
        exact = gather_dot(x, self.weights, candidates) + bias[candidates]
        best = exact.topk(k, 1, sorted=False)
        return best.values, candidates.gather(1, best.indices)

    def of_batch(
        self, x: Float[Tensor, "rows d"], bias: Float[Tensor, "n"], k: int
    ) -> tuple[Float[Tensor, "entries"], Int[Tensor, "entries"]]:
        """The rows x k largest of all rows together, exactly, and where: row * n + component, rising."""
        n = len(self.weights)
        values, places = self._candidates(x, bias, k + SPARE if self.fast else k)
        if self.fast:
            components = places % n
            values = gather_dot_ragged(x, self.weights, starts_of(places, len(x), n), components) + bias[components]
        best = values.topk(len(x) * k, sorted=False).indices.sort().values
        return values[best], places[best]

    def _candidates(self, x: Tensor, bias: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The rows x k largest scores in the precision of the search, ties and all, and where they stand, rising.

        They are those that reach a bound, which is guessed from some of the rows, and lowered where fewer do.
        """
        wanted, sample = len(x) * k, x[:: max(1, len(x) // SAMPLE)]
        scores = torch.cat([scores.flatten() for _, scores in self.scores(sample, bias)])
        rank = min(len(scores), len(sample) * k * 5 // 4)
        while True:
            bound = scores.kthvalue(len(scores) - rank + 1).values.item() if rank < len(scores) else -math.inf
            values, places = self._reaching(x, bias, bound)
            if len(values) >= wanted:
                break
            rank = min(len(scores), 2 * rank)
        kept = values >= values.kthvalue(len(values) - wanted + 1).values
        return values[kept], places[kept]

    def _reaching(self, x: Tensor, bias: Tensor, bound: float) -> tuple[Tensor, Tensor]:
        """The scores that are not below the bound, and where."""
        found, n = [], len(self.weights)
        for block, (_, scores) in enumerate(self.scores(x, bias)):
            flat = scores.flatten()
            here = at_least(flat, bound).nonzero()[:, 0]
            found.append((flat[here], here + block * BLOCK * n))
        values, places = (torch.cat(part) for part in zip(*found, strict=True))
        return values, places


def at_least(scores: Float[Tensor, "scores"], bound: float) -> Bool[Tensor, "scores"]:
    """Which are not below the bound; what is not a number is not. Where it can be, by comparing bits."""
    if scores.dtype == torch.bfloat16 and 0 < bound < math.inf:
        return scores.view(torch.int16) >= torch.tensor(bound).bfloat16().view(torch.int16).item()
    return (scores < bound).logical_not_()


def starts_of(places: Int[Tensor, "entries"], rows: int, n: int) -> Int[Tensor, "rows_and_one"]:
    """Where the entries of each row begin, among places (row * n + component) in rising order."""
    return torch.searchsorted(places, torch.arange(rows + 1, device=places.device) * n)


class _TopLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Tensor, bias: Tensor, k: int, fast: bool) -> tuple[Tensor, Tensor]:
        values, indices = Search(weights, fast).top(x, bias, k)
        ctx.save_for_backward(x, weights, indices)
        ctx.mark_non_differentiable(indices)
        return values, indices

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, weights, indices = ctx.saved_tensors
        grad = grad_outputs[0].contiguous()  # that of the values; the indices have none
        n = len(weights)
        to_x = embedding_bag(indices, weights, per_sample_weights=grad, mode="sum") if ctx.needs_input_grad[0] else None
        to_weights = scatter_outer(grad, indices, x, n) if ctx.needs_input_grad[1] else None
        to_bias = grad.new_zeros(n).index_add_(0, indices.view(-1), grad.view(-1)) if ctx.needs_input_grad[2] else None
        return to_x, to_weights, to_bias, None, None


def fast_bfloat16(device: torch.device) -> bool:
    """Whether a bfloat16 product is quicker here than a float32 one."""
    if device.type != "cpu":
        return True
    return torch.cpu._is_avx512_bf16_supported()


def searches_low(x: Float[Tensor, "*_ d"], n: int, k: int) -> bool:
    """Whether to search in bfloat16: where that is quicker, and not every component would be a candidate."""
    return fast_bfloat16(x.device) and x.dtype == torch.float32 and n > k + SPARE


def top_linear(
    x: Float[Tensor, "rows d"],
    weights: Float[Tensor, "n d"],
    bias: Float[Tensor, "n"],
    k: int,
    fast: bool | None = None,
) -> tuple[Float[Tensor, "rows k"], Int[Tensor, "rows k"]]:
    """The k largest of `x weights.T + bias` in each row, and which; with gradients as sparse as they are."""
    n = len(weights)
    searched = searches_low(x, n, k) if fast is None else fast and n > k + SPARE
    return _TopLinear.apply(x.contiguous(), weights, bias, k, searched)


class _BatchTop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Tensor, bias: Tensor, k: int, fast: bool) -> tuple[Tensor, Tensor]:
        values, places = Search(weights, fast).of_batch(x, bias, k)
        ctx.save_for_backward(x, weights, places)
        ctx.mark_non_differentiable(places)
        return values, places

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, weights, places = ctx.saved_tensors
        grad, n = grad_outputs[0].contiguous(), len(weights)
        rows, components = places // n, places % n
        starts = starts_of(places, len(x), n)[:-1]
        to_x = embedding_bag(components, weights, starts, per_sample_weights=grad, mode="sum")
        to_weights = scatter_outer_ragged(grad, rows, components, x, n) if ctx.needs_input_grad[1] else None
        return to_x, to_weights, grad.new_zeros(n).index_add_(0, components, grad), None, None


def batch_top(
    x: Float[Tensor, "rows d"],
    weights: Float[Tensor, "n d"],
    bias: Float[Tensor, "n"],
    k: int,
    fast: bool | None = None,
) -> tuple[Float[Tensor, "entries"], Int[Tensor, "entries"]]:
    """The rows x k largest of all of `x weights.T + bias` together, with gradients as sparse as they are.

    Says their values and their places, row * n + component, in rising order: `places // n` are the rows,
    `places % n` the components, and `starts_of` finds where each row begins. k is at most n.
    """
    n = len(weights)
    searched = searches_low(x, n, k) if fast is None else fast and n > k + SPARE
    return _BatchTop.apply(x.contiguous(), weights, bias, k, searched)
