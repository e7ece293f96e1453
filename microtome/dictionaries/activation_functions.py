"""How active a component is, given its pre-activation: one axis of the grid of dictionaries.

An activation is handed the affine map and its input, so that a sparse one need never make all the pre-activations.
"""

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from microtome.core.codes import Codes, DenseCodes, RaggedCodes, TopCodes
from microtome.core.errors import Refusal
from microtome.dictionaries.selection import batch_top, starts_of, top_linear


class Pre:
    """Pre-activations W x + b, made only when somebody looks at all of them."""

    def __init__(self, weight: Float[Tensor, "n d"], bias: Float[Tensor, "n"], x: Float[Tensor, "... d"]):
        self.weight, self.bias, self.x = weight, bias, x

    @property
    def lead(self) -> torch.Size:
        """The axes before the components'."""
        return self.x.shape[:-1]

    @cached_property
    def values(self) -> Float[Tensor, "... n"]:
        """Every pre-activation, made now."""
        return self.x @ self.weight.T + self.bias

    def largest(self, k: int) -> tuple[Float[Tensor, "rows k"], Int[Tensor, "rows k"]]:
        """The k largest of each row and where they stand, without making the rest."""
        return top_linear(self.x.reshape(-1, self.x.shape[-1]), self.weight, self.bias, k)

    def largest_of_all(self, k: int) -> tuple[Float[Tensor, "entries"], Int[Tensor, "entries"]]:
        """The rows x k largest of all rows together, and their places, row * n + component, in rising order."""
        return batch_top(self.x.reshape(-1, self.x.shape[-1]), self.weight, self.bias, k)


class Activation(nn.Module, ABC):
    """From pre-activations to codes."""

    @abstractmethod
    def forward(self, pre: Pre) -> Codes:
        """The codes of these pre-activations."""

    def constrain(self) -> None:
        """Put parameters of its own back where they must be."""

    def calibrate(self, pre: Pre) -> None:
        """Set by these pre-activations what training only estimates."""

    def settings(self) -> dict:
        """The constructor's arguments, as plain values."""
        return {}


def ragged(values: Float[Tensor, "... n"], active: Tensor) -> RaggedCodes:
    """The values of a dense tensor that are active, and no others."""
    lead, n = values.shape[:-1], values.shape[-1]
    rows, components = active.reshape(-1, n).nonzero(as_tuple=True)
    offsets = torch.searchsorted(rows, torch.arange(lead.numel() + 1, device=rows.device))
    return RaggedCodes(values.reshape(-1, n)[rows, components], components, offsets, lead, n)


class ReLU(Activation):
    """codes = max(0, pre)"""

    def forward(self, pre: Pre) -> Codes:
        return DenseCodes(torch.relu(pre.values))


class TopK(Activation):
    """codes = max(0, the k largest pre-activations), all others zero.  Gao et al. 2024, arXiv 2406.04093, eq. 3."""

    def __init__(self, k: int):
        super().__init__()
        self.k = at_least_one(k)

    def forward(self, pre: Pre) -> Codes:
        refuse_more_than_there_are(self.k, pre)
        values, indices = pre.largest(self.k)
        lead = (*pre.lead, self.k)
        return TopCodes(torch.relu(values).view(lead), indices.view(lead), len(pre.bias))

    def settings(self) -> dict:
        return {"k": self.k}


class AbsTopK(Activation):
    """codes = the k pre-activations of largest magnitude, with their signs; all others zero.

    Zhu et al. 2025 (arXiv 2510.00404): one latent for both ends of an axis.
    """

    def __init__(self, k: int):
        super().__init__()
        self.k = at_least_one(k)

    def forward(self, pre: Pre) -> Codes:
        refuse_more_than_there_are(self.k, pre)
        indices = pre.values.abs().topk(self.k, -1).indices
        return TopCodes(pre.values.gather(-1, indices), indices, len(pre.bias))

    def settings(self) -> dict:
        return {"k": self.k}


class BatchTopK(Activation):
    """codes = max(0, the rows x k largest pre-activations of a whole batch).  Bussmann et al. 2024, arXiv 2412.06410.

    That is while it learns. A token's codes must not depend on its neighbours, so afterwards a latent is active where
    its pre-activation exceeds `threshold`: the mean over recent batches of the smallest that was kept (eq. 6), or what
    `calibrate` found. Before any learning the threshold is zero.
    """

    threshold: Tensor

    def __init__(self, k: int, memory: float = 0.99):
        super().__init__()
        self.k, self.memory = at_least_one(k), memory
        self.register_buffer("threshold", torch.zeros(()))

    def forward(self, pre: Pre) -> Codes:
        if not self.training:
            return ragged(pre.values, pre.values > self.threshold)
        refuse_more_than_there_are(self.k, pre)
        values, places = pre.largest_of_all(self.k)
        n = len(pre.bias)
        self._remember(torch.relu(values.detach()).min())
        return RaggedCodes(torch.relu(values), places % n, starts_of(places, pre.lead.numel(), n), pre.lead, n)

    def calibrate(self, pre: Pre) -> None:
        """Set the threshold so that k are active on the mean token of these."""
        least = torch.relu(pre.largest_of_all(self.k)[0].detach()).min()
        self.threshold.copy_(torch.nextafter(least, torch.zeros_like(least)))  # that one is active too

    def _remember(self, least: Float[Tensor, ""]) -> None:
        first = self.threshold == 0
        self.threshold.copy_(torch.where(first, least, torch.lerp(least, self.threshold, self.memory)))

    def settings(self) -> dict:
        return {"k": self.k, "memory": self.memory}


class _Jump(torch.autograd.Function):
    """z H(z - t); the threshold's pseudo-derivative is -t/w where z is within w/2 of it.  arXiv 2407.14435, eq. 11."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, threshold: Tensor, width: float) -> Tensor:
        ctx.save_for_backward(z, threshold)
        ctx.width = width
        return z * (z > threshold)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        z, threshold = ctx.saved_tensors
        grad = grad_outputs[0]
        near = (z - threshold).abs() < ctx.width / 2
        to_threshold = (-threshold / ctx.width * near * grad).reshape(-1, z.shape[-1]).sum(0)
        return grad * (z > threshold), to_threshold, None


class _Heaviside(torch.autograd.Function):
    """H(z - t); the threshold's pseudo-derivative is -1/w where z is within w/2 of it.  arXiv 2407.14435, eq. 12."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, threshold: Tensor, width: float) -> Tensor:
        ctx.save_for_backward(z, threshold)
        ctx.width = width
        return (z > threshold).to(z.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        z, threshold = ctx.saved_tensors
        near = (z - threshold).abs() < ctx.width / 2
        return None, (-1 / ctx.width * near * grad_outputs[0]).reshape(-1, z.shape[-1]).sum(0), None


class JumpReLU(Activation):
    """codes = pre where pre > threshold, else zero; a threshold for each latent.

    Rajamanoharan et al. 2024 (arXiv 2407.14435). `bandwidth` is the width of the window in which a threshold learns.
    The threshold is learned as it is, not as a logarithm, under which Adam would hardly move it.
    """

    def __init__(self, width: int, threshold: float = 1e-3, bandwidth: float = 1e-3):
        super().__init__()
        self.width, self.initial, self.bandwidth = width, threshold, bandwidth
        self.thresholds = nn.Parameter(torch.full((width,), float(threshold)))

    def forward(self, pre: Pre) -> Codes:
        near = (pre.values - self.thresholds).abs() < self.bandwidth / 2 if self.training else False
        return ragged(self.amount(pre), (pre.values > self.thresholds) | near)

    def amount(self, pre: Pre) -> Float[Tensor, "... n"]:
        """How active each latent is, with the pseudo-derivative to its threshold."""
        return _Jump.apply(pre.values, self.thresholds, self.bandwidth)

    def fires(self, pre: Pre) -> Float[Tensor, "... n"]:
        """1 where a latent is active, with the pseudo-derivative to its threshold."""
        return _Heaviside.apply(pre.values, self.thresholds, self.bandwidth)

    def constrain(self) -> None:
        with torch.no_grad():
            self.thresholds.clamp_(min=0.0)

    def settings(self) -> dict:
        return {"width": self.width, "threshold": self.initial, "bandwidth": self.bandwidth}


class Gated(Activation):
    """codes = max(0, exp(r) pre + b) where pre > 0, else zero.  Rajamanoharan et al. 2024, arXiv 2404.16014, eq. 6.

    The gate decides whether a latent is active, the magnitude how much; the two share the encoder's weights.
    """

    def __init__(self, width: int):
        super().__init__()
        self.width = width
        self.r = nn.Parameter(torch.zeros(width))
        self.b = nn.Parameter(torch.zeros(width))

    def forward(self, pre: Pre) -> Codes:
        magnitude = torch.relu(self.r.exp() * pre.values + self.b)
        return ragged(magnitude, (pre.values > 0) & (magnitude > 0))

    def settings(self) -> dict:
        return {"width": self.width}


def at_least_one(k: int) -> int:
    """k itself. Raises Refusal below 1."""
    if k < 1:
        raise Refusal(f"k is {k}; at least one component must be active")
    return k


def refuse_more_than_there_are(k: int, pre: Pre) -> None:
    """Raises Refusal where more components are to be active than there are."""
    if k > len(pre.bias):
        raise Refusal(f"k is {k}, more than the {len(pre.bias)} components there are")
