"""What a training step cannot do without: the operations it is made of, and the bytes that must be moved once.

A machine of F operations and B bytes a second takes at least max(operations / F, bytes / B) seconds.
Williams, Waterman and Patterson 2009, Roofline.
"""

from dataclasses import dataclass

import torch

from microtome.dictionaries.selection import SPARE

SINGLE = 4  # bytes of a float32: weights, moments, activations


@dataclass(frozen=True)
class Floor:
    """Operations (a multiplication and an addition are two) and bytes; what is done after another adds up."""

    flops: int
    bytes: int

    def __add__(self, other: "Floor") -> "Floor":
        return Floor(self.flops + other.flops, self.bytes + other.bytes)

    def seconds(self, flops_per_second: float, bytes_per_second: float) -> float:
        """The least time on a machine that computes and moves at these rates, both at once."""
        return max(self.flops / flops_per_second, self.bytes / bytes_per_second)


def floor(d: int, n: int, k: int, rows: int, dtype: torch.dtype = torch.bfloat16) -> Floor:
    """A whole step of a TopK dictionary in float32 whose search is made in `dtype`."""
    return encoding(d, n, k, rows, dtype) + comparing(d, n, k, rows) + updating(d, n, k, rows, dtype)


def encoder_product(d: int, n: int, rows: int, dtype: torch.dtype = torch.bfloat16) -> Floor:
    """x W_encᵀ alone, its result not even written: nothing that looks at every latent does with less."""
    return Floor(2 * rows * d * n, (rows + n) * d * dtype.itemsize)


def encoding(d: int, n: int, k: int, rows: int, dtype: torch.dtype = torch.bfloat16) -> Floor:
    """The product, and k + 16 candidates of each row scored again in float32."""
    c = min(k + SPARE, n)
    again = Floor(2 * rows * c * d, SINGLE * d * (rows + met(rows * c, n)))
    return encoder_product(d, n, rows, dtype) + again


def comparing(d: int, n: int, k: int, rows: int) -> Floor:
    """Decoder rows added up and multiplied with the error. Target and each row met are read once, the error written."""
    return Floor(4 * rows * k * d, SINGLE * d * (2 * rows + met(rows * k, n)))


def updating(d: int, n: int, k: int, rows: int, dtype: torch.dtype = torch.bfloat16) -> Floor:
    """Gradients of two weights, and Adam: both and their moments read and written, the search's copy written.

    Operations that Adam makes on each number (about a dozen) are left out: moving it takes longer.
    """
    return Floor(4 * rows * k * d, SINGLE * d * (2 * rows + 2 * 6 * n) + n * d * dtype.itemsize)


def met(entries: int, n: int) -> int:
    """Latents that may be met at the most, each of which must be read once; a cache may serve the rest."""
    return min(entries, n)
