"""A small transformer without norms: what it computes can be set by hand, or learnt in a minute.

Tokens and places are embedded; each block adds attention and then a ReLU MLP; the last stream is read as logits.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from microtome.core.errors import Refusal
from microtome.models.load import Named


class Attention(nn.Module):
    """z = softmax(q k / sqrt(d_head)) v, written by W_O. No token sees a later one."""

    def __init__(self, d: int, heads: int, d_head: int) -> None:
        super().__init__()
        self.heads, self.d_head = heads, d_head
        self.q, self.k, self.v = (nn.Linear(d, heads * d_head, bias=False) for _ in range(3))
        self.o = nn.Linear(heads * d_head, d, bias=False)
        self.pattern, self.split_q, self.split_k, self.split_v, self.z = (nn.Identity() for _ in range(5))

    def forward(self, x: Float[Tensor, "batch pos d"]) -> Float[Tensor, "batch pos d"]:
        q, k, v = (
            split(linear(x).unflatten(-1, (self.heads, -1)))
            for split, linear in ((self.split_q, self.q), (self.split_k, self.k), (self.split_v, self.v))
        )
        later = torch.ones(x.shape[1], x.shape[1], device=x.device).triu(1).bool()
        scores = torch.einsum("bqhe,bkhe->bhqk", q, k) / math.sqrt(self.d_head)
        pattern = self.pattern(scores.masked_fill(later, -torch.inf).softmax(-1))
        return self.o(self.z(torch.einsum("bhqk,bkhe->bqhe", pattern, v)).flatten(2))


class MLP(nn.Module):
    """W_out relu(W_in x + b)"""

    def __init__(self, d: int, neurons: int) -> None:
        super().__init__()
        self.inner, self.act, self.outer = nn.Linear(d, neurons), nn.ReLU(), nn.Linear(neurons, d, bias=False)

    def forward(self, x: Float[Tensor, "batch pos d"]) -> Float[Tensor, "batch pos d"]:
        return self.outer(self.act(self.inner(x)))


class Block(nn.Module):
    """x + attention(x), then x + mlp(x): a block without norms."""

    def __init__(self, d: int, heads: int, d_head: int, neurons: int) -> None:
        super().__init__()
        self.attention, self.mid, self.mlp = Attention(d, heads, d_head), nn.Identity(), MLP(d, neurons)

    def forward(self, x: Float[Tensor, "batch pos d"]) -> Float[Tensor, "batch pos d"]:
        x = self.mid(x + self.attention(x))
        return x + self.mlp(x)


class Transformer(nn.Module):
    """Token ids in, logits of the next token out. `load(it, sites=it.sites)` names its sites."""

    def __init__(
        self, vocabulary: int, length: int, *, d: int, heads: int, d_head: int, neurons: int, layers: int = 2
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, d)
        self.place = nn.Parameter(torch.randn(length, d) / math.sqrt(d))
        self.blocks = nn.ModuleList([Block(d, heads, d_head, neurons) for _ in range(layers)])
        self.unembed = nn.Linear(d, vocabulary, bias=False)
        nn.init.normal_(self.embed.weight, std=1 / math.sqrt(d))

    def forward(self, ids: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos vocab"]:
        if ids.shape[1] > len(self.place):
            raise Refusal(
                f"rows have {ids.shape[1]} tokens and this network has {len(self.place)} places; shorten them"
            )
        x = self.embed(ids) + self.place[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.unembed(x)

    @property
    def sites(self) -> Named:
        """Where the network's sites are, under the names that families have for them."""
        stream, heads = "batch pos d", "batch pos head d"
        named = {"embed": ("embed", "out", stream), "logits": ("", "out", "batch pos vocab")}
        for i in range(len(self.blocks)):
            at = f"blocks.{i}"
            named |= {
                f"resid_pre.{i}": (at, "in", stream), f"attn_in.{i}": (f"{at}.attention", "in", stream),
                f"pattern.{i}": (f"{at}.attention.pattern", "out", "batch head query key"),
                f"z.{i}": (f"{at}.attention.z", "out", heads), f"attn_out.{i}": (f"{at}.attention", "out", stream),
                f"resid_mid.{i}": (f"{at}.mid", "out", stream), f"mlp_in.{i}": (f"{at}.mlp", "in", stream),
                f"mlp_act.{i}": (f"{at}.mlp.act", "out", "batch pos neuron"),
                f"mlp_out.{i}": (f"{at}.mlp", "out", stream), f"resid_post.{i}": (at, "out", stream),
            } | {f"{x}.{i}": (f"{at}.attention.split_{x}", "out", heads) for x in "qkv"}  # fmt: skip
        return named
