"""The steps of sparse training in PyTorch alone: what serves wherever nothing quicker was built.

Gradients of the weights are embedding bags over entries sorted once by latent. They are made for a slice of the latents
at a time, and Adam, unit length and the search's copy of the encoder follow while the slice is in the cache: no
gradient of the whole dictionary ever stands in memory.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag
from torch.optim.adam import adam

from microtome.core.sparse import bag_sum, by_index, gather_dot
from microtome.dictionaries.kernels.parts import Active, Compared, Extra, Kernels, Rate, Weights
from microtome.dictionaries.selection import Search, searches_low

SLICE = 1024  # latents whose weights are moved at once

Moments = tuple[Tensor, Tensor]


class TorchKernels(Kernels):
    """Searches in bfloat16 where that is quicker, and exactly otherwise; `fast` chooses."""

    def __init__(self, weights: Weights, k: int, fast: bool | None = None):
        super().__init__(weights, k)
        low = searches_low(weights.W_enc, len(weights.W_enc), k) if fast is None else fast
        self.search = Search(weights.W_enc, low)

    def encode(self, x: Float[Tensor, "rows d"]) -> Active:
        values, indices = self.search.top(x, self.weights.b_enc, self.k)
        return Active(values.relu_(), indices)

    def compare(self, target: Float[Tensor, "rows d"], active: Active) -> Compared:
        error = bag_sum(active.values, active.indices, self.weights.W_dec).sub_(target)
        return Compared(error, error.pow(2).sum(), gather_dot(error, self.weights.W_dec, active.indices))

    def update(
        self,
        x: Float[Tensor, "rows d"],
        error: Float[Tensor, "rows d"],
        active: Active,
        gradients: Float[Tensor, "rows k"],
        extra: Extra | None,
        rate: Rate,
    ) -> Bool[Tensor, "n"]:
        n = len(self.weights.b_enc)
        bags = Bags(active, gradients, n)
        for start in range(0, n, SLICE):
            part = slice(start, min(start + SLICE, n))
            slopes = bags.gradients(part, x, error)
            if extra is not None:
                add_extra(slopes, extra, part)
            self._move(part, slopes, rate)
        return total(active.values.sign(), active.indices, n) > 0

    def _move(self, part: slice, gradients: Weights, rate: Rate) -> None:
        weights = Weights(*(w[part] for w in self.weights))
        for name, weight, gradient in zip(Weights._fields, weights, gradients, strict=True):
            first, second = self.moments[name]
            move(weight, gradient, (first[part], second[part]), rate)
        weights.W_dec.div_(weights.W_dec.norm(dim=1, keepdim=True).clamp(min=1e-12))
        self.search.refresh(part)

    def reload(self) -> None:
        self.search.refresh()


class Bags:
    """The entries of a batch, sorted by latent: the rows, values and gradients of each latent stand together."""

    def __init__(self, active: Active, gradients: Float[Tensor, "rows k"], n: int):
        self.order, self.starts = by_index(active.indices.reshape(-1), n)
        self.rows = self.order // active.indices.shape[1]
        self.values, self.slopes = (t.reshape(-1)[self.order] for t in (active.values, gradients))
        self.b_enc = total(gradients, active.indices, n)

    def gradients(self, part: slice, x: Float[Tensor, "rows d"], error: Float[Tensor, "rows d"]) -> Weights:
        """The gradients of some latents' weights."""
        starts = self.starts[part.start : part.stop + 1]
        here = slice(int(starts[0]), int(starts[-1]))
        bags, rows = starts[:-1] - starts[0], self.rows[here]
        return Weights(
            W_enc=embedding_bag(rows, x, bags, per_sample_weights=self.slopes[here], mode="sum"),
            b_enc=self.b_enc[part],
            W_dec=embedding_bag(rows, error, bags, per_sample_weights=self.values[here], mode="sum"),
        )


def add_extra(gradients: Weights, extra: Extra, part: slice) -> None:
    """Add those of the extra gradients that are of this slice. `extra.which` is in rising order."""
    first, last = torch.searchsorted(extra.which, extra.which.new_tensor([part.start, part.stop])).tolist()
    which = extra.which[first:last] - part.start
    for gradient, more in zip(gradients, extra[1:], strict=True):
        gradient.index_add_(0, which, more[first:last])


def total(values: Float[Tensor, "rows k"], indices: Int[Tensor, "rows k"], n: int) -> Float[Tensor, "n"]:
    """The sum of the values of each index."""
    return values.new_zeros(n).index_add_(0, indices.reshape(-1), values.reshape(-1))


def move(weight: Tensor, gradient: Tensor, moments: Moments, rate: Rate) -> None:
    """One step of Adam, in place: torch's own, fused."""
    before = torch.tensor(float(rate.step - 1), device=weight.device)  # it counts one more itself
    first, second = moments
    adam(
        [weight], [gradient], [first], [second], [], [before], fused=True, amsgrad=False, maximize=False,
        beta1=rate.betas[0], beta2=rate.betas[1], lr=rate.lr, weight_decay=0.0, eps=rate.eps,
    )  # fmt: skip
