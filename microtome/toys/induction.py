"""Two layers of attention alone, and rows that repeat: the smallest network in which an induction head can form.

Elhage et al. 2021, A Mathematical Framework for Transformer Circuits; Olsson et al. 2022 (arXiv 2209.11895). What it
must learn is known: one head looks back by one, and one of the next layer looks for what that head wrote.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from microtome.core.errors import Refusal
from microtome.core.inputs import Tokens
from microtome.toys.toy import Sited


class Attention(nn.Module):
    """z = softmax(q k / sqrt(d_head)) v, written by W_O; positions are added to what queries and keys read.

    Press et al. 2021, Shortformer (arXiv 2012.15832), as in Olsson et al.'s small networks.
    """

    mask: Tensor

    def __init__(self, d: int, heads: int, length: int) -> None:
        super().__init__()
        self.heads = heads
        self.place = nn.Parameter(torch.randn(length, d) / math.sqrt(d))
        self.q, self.k, self.v, self.o = (nn.Linear(d, d, bias=False) for _ in range(4))
        self.pattern, self.split_q, self.split_k, self.split_v, self.z = (nn.Identity() for _ in range(5))
        self.register_buffer("mask", torch.ones(length, length).triu(1).bool(), persistent=False)

    def forward(self, x: Float[Tensor, "batch pos d"]) -> Float[Tensor, "batch pos d"]:
        n = x.shape[1]
        placed = x + self.place[:n]
        q, k = self.split_q(self.by_head(self.q(placed))), self.split_k(self.by_head(self.k(placed)))
        v = self.split_v(self.by_head(self.v(x)))
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(q.shape[-1])
        pattern = self.pattern(scores.masked_fill(self.mask[:n, :n], -torch.inf).softmax(-1))
        return self.o(self.z(torch.einsum("bhqk,bkhd->bqhd", pattern, v)).flatten(2))

    def by_head(self, x: Float[Tensor, "batch pos d"]) -> Float[Tensor, "batch pos head d_head"]:
        """The last axis, split into heads."""
        return x.unflatten(-1, (self.heads, -1))


class Block(nn.Module):
    """x + attention(x)"""

    def __init__(self, d: int, heads: int, length: int) -> None:
        super().__init__()
        self.attention = Attention(d, heads, length)

    def forward(self, x: Float[Tensor, "batch pos d"]) -> Float[Tensor, "batch pos d"]:
        return x + self.attention(x)


class AttentionOnly(nn.Module):
    """Embedding, two layers of attention, unembedding."""

    def __init__(self, vocabulary: int = 32, d: int = 64, heads: int = 1, length: int = 32) -> None:
        super().__init__()
        if d % heads:
            raise Refusal(f"{heads} heads cannot share {d} dimensions; give a divisor")
        self.embed = nn.Embedding(vocabulary, d)
        self.blocks = nn.ModuleList([Block(d, heads, length), Block(d, heads, length)])
        self.unembed = nn.Linear(d, vocabulary, bias=False)

    def forward(self, ids: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos vocab"]:
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x)
        return self.unembed(x)


def sites() -> Sited:
    """The names of its places, for `load`."""
    stream, heads = "batch pos d", "batch pos head d"
    named = {"embed": ("embed", "out", stream), "logits": ("", "out", "batch pos vocab")}
    for i in (0, 1):
        at = f"blocks.{i}"
        named |= {
            f"resid_pre.{i}": (at, "in", stream), f"attn_in.{i}": (f"{at}.attention", "in", stream),
            f"pattern.{i}": (f"{at}.attention.pattern", "out", "batch head query key"),
            f"attn_out.{i}": (f"{at}.attention", "out", stream), f"resid_post.{i}": (at, "out", stream),
            f"z.{i}": (f"{at}.attention.z", "out", heads),
        } | {f"{x}.{i}": (f"{at}.attention.split_{x}", "out", heads) for x in "qkv"}  # fmt: skip
    return named


@dataclass(frozen=True)
class Repeating:
    """Rows of different random tokens that come again and again, each row with a period of its own.

    `periods` are the shortest and the longest; the longest can be no longer than the vocabulary.
    """

    vocabulary: int = 32
    length: int = 32
    periods: tuple[int, int] = (6, 16)

    def __post_init__(self) -> None:
        low, high = self.periods
        if not 1 <= low <= high <= self.vocabulary:
            raise Refusal(f"periods from {low} to {high} of {self.vocabulary} tokens; give 1 <= low <= high <= tokens")

    def draw(self, rows: int, generator: torch.Generator) -> Tokens:
        """So many rows. The same state of the generator draws the same."""
        low, high = self.periods
        drawn = torch.rand(rows, self.vocabulary, generator=generator).argsort(1)
        periods = torch.randint(low, high + 1, (rows, 1), generator=generator)
        return Tokens.of(drawn.gather(1, torch.arange(self.length) % periods))
