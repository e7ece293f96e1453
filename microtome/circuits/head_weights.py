"""What a head reads and writes, as two low-rank matrices: OV moves, QK looks.

    OV = W_V W_O      what is written, given what was attended to
    QK = W_Q W_K^T    the score, given who asks and who is asked; before the family's own scaling, and without biases
Vectors stand in rows, as they do in activations. Elhage et al. 2021, A Mathematical Framework for Transformer Circuits.
No d x d matrix is ever made: a head's rank is its width.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.circuits.affine_maps import affine, unpadded
from microtome.circuits.direct_logits import Stream
from microtome.circuits.frozen_norms import Norm, centred
from microtome.core.errors import NoSuchSite, Refusal
from microtome.core.inputs import Inputs, Tokens
from microtome.core.model import Model
from microtome.core.site import Site


@dataclass(frozen=True, eq=False)
class LowRank:
    """The matrix left @ right, kept as its two factors."""

    left: Float[Tensor, "d_in rank"]
    right: Float[Tensor, "rank d_out"]

    def dense(self) -> Float[Tensor, "d_in d_out"]:
        """The product."""
        return self.left @ self.right

    def then(self, other: "LowRank") -> "LowRank":
        """This matrix and after it the other, at the smaller of the two ranks."""
        between = self.right @ other.left
        if len(between) <= between.shape[1]:
            return LowRank(self.left, between @ other.right)
        return LowRank(self.left @ between, other.right)

    @property
    def T(self) -> "LowRank":  # noqa: N802  (as tensors have it)
        """The transpose, of the same rank."""
        return LowRank(self.right.T, self.left.T)

    def norm(self) -> Float[Tensor, ""]:
        """Frobenius norm: the square root of tr((left^T left)(right right^T))."""
        return ((self.left.T @ self.left) * (self.right @ self.right.T).T).sum().clamp(min=0).sqrt()

    def eigenvalues(self) -> Tensor:
        """Those that need not be zero, complex: of right @ left, which is as small as the rank."""
        return torch.linalg.eigvals(self.right @ self.left)

    def singular_values(self) -> Float[Tensor, "rank"]:
        """Those that need not be zero, the largest first."""
        inner = torch.linalg.qr(self.left).R @ torch.linalg.qr(self.right.T).R.T
        return torch.linalg.svdvals(inner)


class HeadWeights(NamedTuple):
    """The four maps of a layer's heads; grouped keys and values stand once for each query head that shares them."""

    q: Float[Tensor, "head d d_head"]
    k: Float[Tensor, "head d d_head"]
    v: Float[Tensor, "head d d_head"]
    o: Float[Tensor, "head d_head d"]

    def ov(self, head: int) -> LowRank:
        """What a head writes of what it reads."""
        return LowRank(self.v[head], self.o[head])

    def qk(self, head: int) -> LowRank:
        """What a head scores of what its query and its key read."""
        return LowRank(self.q[head], self.k[head].T)


@torch.no_grad()
def head_weights(model: Model, inputs: Inputs, layer: int, *, query: int = 0, key: int = 0) -> HeadWeights:
    """From what attention reads (`attn_in`) to what its module returns, `attn_out` or `attn_out_raw`.

    Where queries and keys are rotated, QK depends on where they stand: it is that of a query at position `query` and a
    key at position `key`, by default both at one place, where it is what the weights alone say. `inputs` are any that
    the network takes, long enough to have these positions. Raises Refusal where queries or keys are normed by head, so
    that no one matrix makes the score.
    """
    reads, v, z = (model.site(f"{name}.{layer}") for name in ("attn_in", "v", "z"))
    row = unpadded(inputs)
    heads = model.run(row, read=[z])[z].shape[2]
    values = affine(model, row, reads, v).weight
    out = affine(model, row, z, raw_or(model, f"attn_out.{layer}")).weight
    q, k = (asked(model, row, layer, name, at, query == key) for name, at in (("q", query), ("k", key)))
    q, k, values = (by_query_head(x, heads) for x in (q, k, values))
    return HeadWeights(q, k, values, out.view(heads, -1, out.shape[-1]))


@torch.no_grad()
def stream_weights(model: Model, inputs: Inputs, layer: int) -> HeadWeights:
    """The same from the stream to what is added to it: the gains and the centring of norms folded in, their scales not.

    So directions are right and sizes are not those of any one token. Raises Refusal where the stream itself is normed.
    """
    stream = Stream(model, inputs)
    weights = head_weights(model, inputs, layer)
    entering = stream.norm(stream_before(stream, layer), stream.sites[f"attn_in.{layer}"])
    raw = stream.sites.get(f"attn_out_raw.{layer}")
    leaving = None if raw is None else stream.norm(raw, stream.sites[f"attn_out.{layer}"])
    q, k, v = (folded_in(x, entering) for x in weights[:3])
    o = weights.o if leaving is None else centred(weights.o, leaving.centres) * leaving.gain
    return HeadWeights(q, k, v, o)


def stream_before(stream: Stream, layer: int) -> Site:
    """The stream that a layer reads, run where it was not kept."""
    site = stream.sites[f"resid_pre.{layer}"]
    if site.name not in stream.clean:
        stream.clean.values_by_name.update(
            stream.model.run(stream.inputs, read=[site, stream.sites[f"attn_in.{layer}"]])
        )
    return site


def folded_in(weight: Float[Tensor, "head d d_head"], norm: Norm | None) -> Float[Tensor, "head d d_head"]:
    """Weights as they stand before a norm: its gain taken in, and its centring."""
    if norm is None:
        return weight
    return centred((norm.gain[:, None] * weight).transpose(1, 2), norm.centres).transpose(1, 2)


def raw_or(model: Model, name: str) -> Site:
    """What the module returns: the raw site in families that norm it before adding."""
    kind, _, layer = name.partition(".")
    try:
        return model.site(f"{kind}_raw.{layer}")
    except NoSuchSite:
        return model.site(name)


def asked(
    model: Model, row: Inputs, layer: int, name: str, position: int, together: bool
) -> Float[Tensor, "d head d_head"]:
    """From what attention reads to queries or keys at a position."""
    reads = model.site(f"attn_in.{layer}")
    try:
        site = model.site(f"{name}.{layer}")
    except NoSuchSite:
        if not together:  # a rotation that cannot be seen is the same for both, and leaves their product alone
            raise
        site = model.site(f"{name}_raw.{layer}")
    return affine(model, up_to(row, position), reads, site, pos=position).weight


def up_to(row: Inputs, position: int) -> Inputs:
    """The row's first tokens, as few as there must be for it to have this position."""
    if not isinstance(row, Tokens):
        return row
    if not 0 <= position < row.ids.shape[1]:
        raise Refusal(f"the row has {row.ids.shape[1]} tokens, so no position {position}; give a longer one")
    return Tokens.of(row.ids[:, : position + 1])


def by_query_head(x: Float[Tensor, "d kv_head d_head"], heads: int) -> Float[Tensor, "head d d_head"]:
    """Keys' or values' weights, one for each query head."""
    return x.transpose(0, 1).repeat_interleave(heads // x.shape[1], 0)
