"""Modular addition: from the tokens a, b, = to (a + b) mod p, by one layer of attention and one of neurons.

Nanda et al. 2023, Progress Measures for Grokking via Mechanistic Interpretability (arXiv 2301.05217): no layer norm,
biases at the neurons alone, learned positions, the loss taken at "=". There "=" has a logit too; here the p numbers.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from microtome.core.errors import Refusal
from microtome.core.linear import Linear
from microtome.core.site import Site
from microtome.toys.toy import Toy

STREAM, HEADS = "batch pos d", "batch pos head d_head"
PLACES = {
    "embed": STREAM, "q": HEADS, "k": HEADS, "v": HEADS, "scores": "batch head query key",
    "pattern": "batch head query key", "z": HEADS, "attn_out": STREAM, "resid_mid": STREAM,
    "mlp_pre": "batch pos neuron", "mlp_act": "batch pos neuron", "mlp_out": STREAM, "resid_post": STREAM,
}  # fmt: skip
SITES = (
    {place if place == "embed" else f"{place}.0": (f"at.{place}", "out", axes) for place, axes in PLACES.items()}
    | {"resid_pre.0": ("at.embed", "out", STREAM), "mlp_in.0": ("at.resid_mid", "out", STREAM)}
    | {"logits": ("", "out", "batch pos number")}
)


class ModularAddition(Toy):
    """logits = unembed (x + attention(x) + w_out relu(w_in (x + attention(x)) + b_in) + b_out), x = embed + place.

    `forward` takes rows of three tokens, a, b and p (which stands for "="), and gives logits everywhere.
    `answers(a, b)` gives those at "=", the only ones that are trained, several times quicker: "=" always asks the
    same, so scores, and what each head writes, are tables with one row for each number at each place.
    """

    sites = SITES

    def __init__(
        self,
        p: int = 113,
        d: int = 128,
        heads: int = 4,
        neurons: int = 512,
        *,
        generator: torch.Generator,
        seeds: int | None = None,
    ) -> None:
        """Weights as in the paper's code: normal, over the root of d (over that of p where numbers are written)."""
        super().__init__()
        if p < 2 or d % heads:
            raise Refusal(f"p = {p}, {d} dimensions, {heads} heads: give p of 2 or more, and heads that divide d")
        self.p, self.seeds = p, seeds
        lead, each = () if seeds is None else (seeds,), d // heads

        def drawn(*shape: int, over: int = d) -> nn.Parameter:
            return nn.Parameter(torch.randn(*lead, *shape, generator=generator, device=generator.device) / over**0.5)

        self.embed, self.place = drawn(p + 1, d), drawn(3, d)
        self.w_q, self.w_k, self.w_v = (drawn(heads, each, d) for _ in range(3))
        self.w_o = drawn(heads, d, each)
        self.w_in, self.w_out, self.unembed = drawn(neurons, d), drawn(d, neurons), drawn(p, d, over=p)
        self.b_in, self.b_out = (nn.Parameter(self.embed.new_zeros(*lead, n)) for n in (neurons, d))
        self.at = nn.ModuleDict({place: nn.Identity() for place in PLACES})

    def forward(self, x: Int[Tensor, "batch 3"]) -> Float[Tensor, "... batch 3 p"]:
        at = self.at
        stream = at["embed"](self.embed[..., x, :] + self.place[..., None, :, :])
        asked = {"q": self.w_q, "k": self.w_k, "v": self.w_v}
        q, k, v = (at[n](torch.einsum("...bpd,...hed->...bphe", stream, w)) for n, w in asked.items())
        scores = at["scores"](torch.einsum("...bqhe,...bkhe->...bhqk", q, k) / q.shape[-1] ** 0.5)
        later = torch.ones(3, 3, dtype=torch.bool, device=x.device).triu(1)
        pattern = at["pattern"](scores.masked_fill(later, -torch.inf).softmax(-1))
        z = at["z"](torch.einsum("...bhqk,...bkhe->...bqhe", pattern, v))
        mid = at["resid_mid"](stream + at["attn_out"](torch.einsum("...bphe,...hde->...bpd", z, self.w_o)))
        act = at["mlp_act"](F.relu(at["mlp_pre"](across(mid, self.w_in, self.b_in))))
        last = at["resid_post"](mid + at["mlp_out"](across(act, self.w_out, self.b_out)))
        return across(last, self.unembed)

    def answers(self, a: Int[Tensor, "batch"], b: Int[Tensor, "batch"]) -> Float[Tensor, "... batch p"]:
        """The logits at "=", as `forward` gives them at the last position."""
        mid = self.attended(a, b)
        act = (mid @ self.w_in.mT).add_(self.b_in[..., None, :]).relu_()
        return (act @ self.w_out.mT).add_(mid + self.b_out[..., None, :]) @ self.unembed.mT

    def attended(self, a: Int[Tensor, "batch"], b: Int[Tensor, "batch"]) -> Float[Tensor, "... batch d"]:
        """The stream at "=" between attention and neurons: rows of tables, weighted by the pattern."""
        numbers, asking = self.embed[..., : self.p, :], self.embed[..., -1:, :] + self.place[..., 2:, :]
        sees = torch.cat((numbers + self.place[..., :1, :], numbers + self.place[..., 1:2, :], asking), -2)
        query = torch.einsum("...hed,...qd->...he", self.w_q, asking) / self.w_q.shape[-2] ** 0.5
        reads = torch.einsum("...hed,...he->...hd", self.w_k, query)  # what a key is read with
        rows = torch.stack((a, b + self.p, torch.full_like(a, 2 * self.p)), -1)
        pattern = (sees @ reads.mT)[..., rows, :].softmax(-2)
        writes = torch.einsum("...nd,...hed,...hfe->...hnf", sees, self.w_v, self.w_o)
        return asking + weighted(writes, rows, pattern)

    def target(self, x: Int[Tensor, "batch 3"]) -> Int[Tensor, "batch"]:
        """(a + b) mod p"""
        return (x[:, 0] + x[:, 1]) % self.p

    def pairs(self) -> Int[Tensor, "pairs 3"]:
        """All p² inputs: row p a + b is a, b, "="."""
        numbers = torch.arange(self.p, device=self.embed.device)
        pairs = torch.cartesian_prod(numbers, numbers)
        return torch.cat([pairs, pairs.new_full((len(pairs), 1), self.p)], 1)

    def truth(self) -> Linear:
        """A component for each answer, that reads the last stream as the unembedding does.

        In which frequencies the numbers are held is not decided by the task: each seed finds some of its own.
        """
        self.alone()
        return Linear(Site("resid_post.0", STREAM), None, self.unembed.detach())


def across(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """weight x + bias, at every position of every row."""
    out = torch.einsum("...bpi,...oi->...bpo", x, weight)
    return out if bias is None else out + bias[..., None, None, :]


def weighted(
    tables: Float[Tensor, "... head n d"], rows: Int[Tensor, "batch k"], weights: Float[Tensor, "... batch k head"]
) -> Float[Tensor, "... batch d"]:
    """The sum over heads of k rows of each head's table, without a copy of any row."""
    *lead, heads, n, _ = tables.shape
    begins = n * torch.arange(math.prod(lead) * heads, device=rows.device).view(*lead, 1, 1, heads)
    places = (rows[..., None] + begins).flatten(-2)
    shares = weights.flatten(-2).flatten(0, -2)
    found = F.embedding_bag(places.flatten(0, -2), tables.flatten(0, -2), per_sample_weights=shares, mode="sum")
    return found.unflatten(0, places.shape[:-1])
