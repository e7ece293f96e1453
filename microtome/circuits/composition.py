"""Does a later head read what an earlier one wrote, with its queries, its keys or its values?

    Q-composition  |OV1 QK2| / (|OV1| |QK2|)
    K-composition  |OV1 QK2^T| / (|OV1| |QK2|)
    V-composition  |OV1 OV2| / (|OV1| |OV2|)

in Frobenius norms. Over all rotations of one head against the other their root mean square is 1 / sqrt(d), exactly:
two heads that know nothing of each other score that. It is the baseline, and `excess` is what is above it.
Elhage et al. 2021, A Mathematical Framework for Transformer Circuits, "Composition".
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.circuits.head_weights import HeadWeights
from microtome.core.errors import Refusal

Scores = Float[Tensor, "writer reader"]
Factors = Float[Tensor, "head rank d"]


class Composition(NamedTuple):
    """Scores of every pair of heads, from 0 to 1, and what a random rotation between the two would give."""

    q: Scores
    k: Scores
    v: Scores
    baseline: float

    def excess(self) -> "Composition":
        """What is above the baseline."""
        return Composition(self.q - self.baseline, self.k - self.baseline, self.v - self.baseline, 0.0)


class Outer(NamedTuple):
    """One side of a product: the inner factor, of small rank, and the Gram matrix of all that lies beyond it."""

    inner: Factors
    gram: Float[Tensor, "head rank rank"]


@torch.no_grad()
def composition(writer: HeadWeights, reader: HeadWeights) -> Composition:
    """How much each head of `reader` composes with each of `writer`, a layer before it.

    Both read and write the stream: `stream_weights`. Raises Refusal where their streams differ in width.
    """
    refuse_widths(writer, reader)
    q, k, v = (pairwise_scores(written(writer), side) for side in read(reader))
    return Composition(q, k, v, baseline=writer.o.shape[-1] ** -0.5)


@torch.no_grad()
def random_composition(
    writer: HeadWeights, reader: HeadWeights, samples: int, generator: torch.Generator
) -> Float[Tensor, "samples way writer reader"]:
    """Scores by queries, keys and values with a random rotation between the heads: chance, with its spread."""
    refuse_widths(writer, reader)
    wrote = written(writer)
    drawn = [[pairwise_scores(wrote, rotated(side, generator)) for side in read(reader)] for _ in range(samples)]
    return torch.stack([torch.stack(each) for each in drawn])


def refuse_widths(writer: HeadWeights, reader: HeadWeights) -> None:
    """Raises Refusal for heads of two streams."""
    if writer.o.shape[-1] != reader.q.shape[1]:
        raise Refusal(
            f"the writer's stream is {writer.o.shape[-1]} wide and the reader's {reader.q.shape[1]}; "
            "heads of one model compose"
        )


def written(heads: HeadWeights) -> Outer:
    """What a head writes along, and how much of anything comes to be written."""
    v, o = heads.v.double(), heads.o.double()
    return Outer(o, v.transpose(1, 2) @ v)


def read(heads: HeadWeights) -> tuple[Outer, Outer, Outer]:
    """What a head reads along by its queries, keys and values, and what becomes of each."""
    q, k, v, o = (x.double() for x in heads)
    return (
        Outer(q.transpose(1, 2), k.transpose(1, 2) @ k),
        Outer(k.transpose(1, 2), q.transpose(1, 2) @ q),
        Outer(v.transpose(1, 2), o @ o.transpose(1, 2)),
    )


def pairwise_scores(wrote: Outer, reads: Outer) -> Scores:
    """The Frobenius norm of every product over those of its factors, without making any matrix of d x d."""
    between = torch.einsum("wid,rjd->wrij", wrote.inner, reads.inner)
    product = torch.einsum("wrij,wik,wrkl,rjl->wr", between, wrote.gram, between, reads.gram)
    sizes = size(wrote)[:, None] * size(reads)[None]
    return (product.clamp(min=0).sqrt() / sizes.clamp(min=1e-30)).float()


def size(side: Outer) -> Float[Tensor, "head"]:
    """The Frobenius norm of each head's matrix."""
    return ((side.inner @ side.inner.transpose(1, 2)) * side.gram).sum((1, 2)).clamp(min=0).sqrt()


def rotated(side: Outer, generator: torch.Generator) -> Outer:
    """The inner factor in a random frame of as many directions, with its own lengths and angles."""
    lengths = torch.linalg.qr(side.inner.transpose(1, 2)).R
    drawn = torch.randn(side.inner.transpose(1, 2).shape, generator=generator, dtype=side.inner.dtype)
    frame, upper = torch.linalg.qr(drawn)
    frame = frame * upper.diagonal(dim1=1, dim2=2).sign()[:, None]  # without this the frames are not evenly spread
    return Outer((frame @ lengths).transpose(1, 2), side.gram)
