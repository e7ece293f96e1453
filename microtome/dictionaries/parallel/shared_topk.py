"""TopK over latents that many processes hold: each proposes its k largest, and the k largest of those are kept.

Only candidates' values travel, ranks x k numbers a row, never pre-activations. All see the same candidates, so each
knows which of its own were chosen without being told.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

from microtome.core.codes import Codes, Entries, TopCodes
from microtome.core.errors import Refusal
from microtome.core.sparse import scatter_outer
from microtome.dictionaries.activation_functions import Activation, Pre, at_least_one
from microtome.dictionaries.parallel.group import Group, summed


class SharedTopK(Activation):
    """codes = max(0, the k largest pre-activations of all ranks' latents); each rank has those of its own.

    Every rank of the group must be given the same rows.
    """

    def __init__(self, k: int, group: Group):
        super().__init__()
        self.k, self.group = at_least_one(k), group

    def forward(self, pre: Pre) -> Codes:
        width = len(pre.bias) * self.group.size
        if self.k > width:
            raise Refusal(f"k is {self.k}, more than the {width} components there are")
        with torch.no_grad():
            values, indices = pre.largest(min(self.k, len(pre.bias)))
            values, indices = packed(values, indices, chosen(values, self.k, self.group))
        values = _Scored.apply(values, indices, pre.x.reshape(-1, pre.x.shape[-1]), pre.weight, pre.bias)
        lead = (*pre.lead, values.shape[1])
        own = TopCodes(torch.relu(values).view(lead), indices.view(lead), len(pre.bias))
        return PartCodes(own, self.group)

    def settings(self) -> dict:
        return {"k": self.k}


def chosen(candidates: Float[Tensor, "rows c"], k: int, group: Group) -> Bool[Tensor, "rows c"]:
    """Which of this rank's candidates are among the k largest of all ranks'; all bring equally many."""
    c = candidates.shape[1]
    everybody = group.beside(candidates)
    best = everybody.topk(k, 1, sorted=False).indices
    kept = torch.zeros_like(everybody, dtype=torch.bool).scatter_(1, best, True)
    return kept[:, group.rank * c : (group.rank + 1) * c]


def packed(
    values: Float[Tensor, "rows c"], indices: Int[Tensor, "rows c"], kept: Bool[Tensor, "rows c"]
) -> tuple[Float[Tensor, "rows m"], Int[Tensor, "rows m"]]:
    """The kept entries in as few columns as hold them; where a row has fewer, entries of value zero fill up."""
    m = max(1, int(kept.sum(1).max()))
    first = kept.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :m]
    return (values * kept).gather(1, first), indices.gather(1, first)


class _Scored(torch.autograd.Function):
    """Pre-activations that are known already, with gradients as sparse as they are."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, indices: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(indices, x, weight)
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        indices, x, weight = ctx.saved_tensors
        grad, n = grad_outputs[0].contiguous(), len(weight)
        to_x = embedding_bag(indices, weight, per_sample_weights=grad, mode="sum") if ctx.needs_input_grad[2] else None
        to_bias = grad.new_zeros(n).index_add_(0, indices.reshape(-1), grad.reshape(-1))
        return None, None, to_x, scatter_outer(grad, indices, x.contiguous(), n), to_bias


class PartCodes(Codes):
    """One rank's part of codes that a group holds together, by its own numbers; decoding adds up what all write."""

    def __init__(self, own: Codes, group: Group):
        self.own, self.group, self.width = own, group, own.width

    @property
    def shape(self) -> torch.Size:
        return self.own.shape

    def dense(self) -> Float[Tensor, "... width"]:
        return self.own.dense()

    def top(self, n: int) -> TopCodes:
        return self.own.top(n)

    def entries(self) -> Entries:
        return self.own.entries()

    def of(self, component: int) -> Float[Tensor, "..."]:
        return self.own.of(component)

    def times(self, weights: Float[Tensor, "width d"]) -> Float[Tensor, "... d"]:
        return summed(self.own.times(weights), self.group)

    def scaled(self, by: Float[Tensor, "width"]) -> "PartCodes":
        return PartCodes(self.own.scaled(by), self.group)

    def sized(self, by: Float[Tensor, "..."]) -> "PartCodes":
        return PartCodes(self.own.sized(by), self.group)

    def part(self, start: int, stop: int) -> Codes:
        return self.own.part(start, stop)

    def __iter__(self) -> Iterator[tuple[int, int, float]]:
        return iter(self.own)
