"""Hidden progress on the way to grokking: the loss of a network for modular addition with or without its key waves.

Logits are over all pairs (a, b) in order and all answers c. What the network learns depends on a + b through a few
waves cos(w (a + b)), sin(w (a + b)): the *restricted* loss is that of the logits' constant and these waves alone, over
all pairs; the *excluded* loss that of the logits without them, over the pairs trained on, where only what was learnt by
heart is left. Nanda et al. 2023, Progress measures for grokking via mechanistic interpretability (arXiv 2301.05217),
Section 5.1. Losses are in nats, in double precision: in single precision the smallest are rounded to 0.
"""

import math
from collections.abc import Callable, Sequence

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from microtome.core.edit import Edit, function
from microtome.core.errors import Refusal
from microtome.core.site import Site
from microtome.dynamics.fourier import basis, rows_of

Logits = Float[Tensor, "p p p"]
Waves = Callable[[Logits, Sequence[int]], Logits]


def pair_sums(p: int) -> Int[Tensor, "p p"]:
    """(a + b) mod p, which is the right answer too."""
    a = torch.arange(p)
    return (a[:, None] + a) % p


def losses(logits: Logits) -> Float[Tensor, "p p"]:
    """The loss of each pair in nats, against (a + b) mod p."""
    flat = rearrange(logits, "a b c -> (a b) c").double()
    return F.cross_entropy(flat, pair_sums(len(logits)).flatten().to(logits.device), reduction="none").view(
        logits.shape[:2]
    )


def mean_of_sums(logits: Logits) -> Float[Tensor, "p p"]:
    """The mean over the pairs of each sum s: the part of the logits that depends on a + b alone, by (s, c)."""
    p = len(logits)
    sums = pair_sums(p).flatten().to(logits.device)
    return logits.new_zeros(p, p).index_add_(0, sums, logits.flatten(0, 1)) / p


def waves(logits: Logits, frequencies: Sequence[int]) -> Logits:
    """The exact projection on cos(w (a + b)) and sin(w (a + b)) of these frequencies, for each answer."""
    p = len(logits)
    modes = basis(p, logits.dtype).to(logits.device)[rows_of(frequencies, p)]
    return (modes.T @ (modes @ mean_of_sums(logits)))[pair_sums(p).to(logits.device)]


def restricted(logits: Logits, frequencies: Sequence[int]) -> Logits:
    """The constant and the waves of these frequencies, nothing else."""
    return logits.mean((0, 1)) + waves(logits, frequencies)


def excluded(logits: Logits, frequencies: Sequence[int]) -> Logits:
    """Everything but the waves of these frequencies."""
    return logits - waves(logits, frequencies)


def restricted_loss(logits: Logits, frequencies: Sequence[int]) -> float:
    """Mean loss over all pairs, in nats, of the constant and the key waves alone."""
    return float(losses(restricted(logits, frequencies)).mean())


def excluded_loss(logits: Logits, frequencies: Sequence[int], trained_on: Bool[Tensor, "p p"]) -> float:
    """Mean loss in nats without the key waves, over the pairs that were trained on."""
    return float(losses(excluded(logits, frequencies))[trained_on].mean())


def explained_by_waves(logits: Logits, frequencies: Sequence[int]) -> float:
    """The share of the logits' variance in sum over k of alpha_k cos(w_k (a + b - c)), alpha_k fitted.

    Logits are centred for each pair first, since a softmax does not see their mean.
    """
    p = len(logits)
    centred = (logits - logits.mean(2, keepdim=True)).double()
    return float(lengths_along(centred, frequencies).square().sum() / (centred.square().sum() / p))


def lengths_along(logits: Float[Tensor, "p p p"], frequencies: Sequence[int]) -> Float[Tensor, "frequencies"]:
    """The logits' inner product with each unit cos(w_k (a + b - c)), over the square root of p."""
    p = len(logits)
    modes = basis(p, logits.dtype).to(logits.device)[rows_of(frequencies, p)]
    table = modes @ mean_of_sums(logits) @ modes.T  # cos cos + sin sin is the cosine of the difference
    both = table.diagonal().view(-1, 2).sum(1)
    return both / math.sqrt(2)


# ---------------------------------------------------------------- as edits


def keep_waves(site: Site, frequencies: Sequence[int]) -> Edit:
    """Restrict logits to the constant and these waves. The batch must be all pairs (a, b) in order."""
    return over_pairs(site, restricted, frequencies)


def remove_waves(site: Site, frequencies: Sequence[int]) -> Edit:
    """Take these waves out of logits. The batch must be all pairs (a, b) in order."""
    return over_pairs(site, excluded, frequencies)


def over_pairs(site: Site, change: Waves, frequencies: Sequence[int]) -> Edit:
    """A change of a site's last axis as a function of the pair. It looks at the whole batch, so it cannot be saved."""

    def changed(part: Tensor) -> Tensor:
        p = part.shape[-1]
        if part.numel() != p**3:
            raise Refusal(
                f"{tuple(part.shape)} at {site} is not one answer for each of {p} x {p} pairs; "
                "run all pairs in order and edit one position"
            )
        return change(part.reshape(p, p, p), frequencies).reshape(part.shape)

    return function(site, changed)
