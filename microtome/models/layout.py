"""The words in which a family of networks says which of its modules holds which site.

One name is one tensor definition in every family:

    embed                       what the token (or patch) embedding returns, before positions are added
    resid_pre, resid_post       what a block is given and returns
    resid_mid                   the stream between attention and MLP (absent where both read resid_pre)
    attn_in, mlp_in             what attention and the MLP are given, after a norm where there is one
    q_raw, k_raw                what the projections return, before norm and rotation (absent where q and k are that)
    q, k, v                     what attention multiplies: after norm and rotation; k and v by key-value heads
    scores, pattern             what enters and leaves the softmax
    z                           what the output projection is given, by head
    mlp_pre, mlp_up             what enters the nonlinearity; the other branch of a gated MLP
    mlp_act                     what the down projection is given: the neurons
    attn_out, mlp_out           what is added to the residual stream
    attn_out_raw, mlp_out_raw   what the modules return, in families that norm before adding; absent in the others
    final_norm                  what the last norm returns: the unembedding reads it
    logits                      the scores of the vocabulary, or of the classes

Where a family norms the sum (BERT, OPT-350m: post-norm) the stream between blocks is the normed one: resid_mid and
resid_post are what the norm returns, and resid_mid = norm(resid_pre + attn_out).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from microtome.models.adapter import Columns, Equation, Fused, Heads, Into, OutOf, PerToken, Place, Stream
from microtome.models.attention import Attended

ORDER = (
    "resid_pre", "attn_in", "q_raw", "k_raw", "q", "k", "v", "scores", "pattern", "z", "attn_out_raw", "attn_out",
    "resid_mid", "mlp_in", "mlp_pre", "mlp_up", "mlp_act", "mlp_out_raw", "mlp_out", "resid_post",
)  # fmt: skip
HEADS, PATTERN, STREAM = "batch pos head d", "batch head query key", "batch pos d"
AXES: dict[str, str] = (
    dict.fromkeys(map(str, ORDER), STREAM)
    | dict.fromkeys(("q_raw", "k_raw", "q", "k", "v", "z"), HEADS)
    | dict.fromkeys(("scores", "pattern"), PATTERN)
)


class Block(NamedTuple):
    """One layer of one model: where it is, and the numbers that split its tensors."""

    path: str
    heads: int
    kv_heads: int
    head_dim: int
    inner: int

    def at(self, path: str) -> str:
        """The full path of a module of this layer, given from the layer on."""
        return f"{self.path}.{path}" if path else self.path


Where = Callable[[Block], Place]


# ---------------------------------------------------------------- the words of the table; paths begin at the layer


def into(path: str, first: bool = False) -> Where:
    """What a module is given; `first`: ahead of the other visitors there."""
    return lambda b: Into(b.at(path), first)


def out_of(path: str) -> Where:
    """What a module returns."""
    return lambda b: OutOf(b.at(path))


def by_head(inner: Where) -> Where:
    """The same, split by query heads."""
    return lambda b: Heads(inner(b), b.heads)


def by_kv_head(inner: Where) -> Where:
    """The same, split by key-value heads."""
    return lambda b: Heads(inner(b), b.kv_heads)


def fused(path: str, index: int) -> Where:
    """One of three, heads first, of what a module returns for queries, keys and values together."""
    return lambda b: Fused(OutOf(b.at(path)), b.heads, index)


def columns(path: str, span: Callable[[Block], tuple[int, int]]) -> Where:
    """Columns start..stop of what a module returns, by the numbers of the layer."""
    return lambda b: Columns(OutOf(b.at(path)), *span(b))


def stream(inner: Where) -> Where:
    """The residual stream, edited where a branch reads it."""
    return lambda b: Stream(inner(b), b.path)


def per_token(inner: Where) -> Where:
    """The same in families that lay out a batch as one row of tokens."""
    return lambda b: PerToken(inner(b), b.path)


def attended(path: str) -> dict[str, Where]:
    """What only attention itself sees."""
    return {role: (lambda b, role=role: Attended(b.at(path), role)) for role in ("q", "k", "v", "scores", "pattern")}


# ---------------------------------------------------------------- a family


@dataclass(frozen=True)
class Layout:
    """A family: paths of the whole model, the sites of a layer, what must hold in it, what is lacking and why."""

    embed: str
    layers: str
    final_norm: str | None
    unembed: tuple[str, ...]
    sites: dict[str, Where]
    equations: tuple[Equation, ...]
    lacking: dict[str, str] = field(default_factory=dict)
    logits_axes: str = "batch pos vocab"
    reads_position: int | None = None  # the one position that a classifier reads


def rules(out: str, down: str, added: str = "", *, attn_norm: str = "", mlp_norm: str = "") -> tuple[Equation, ...]:
    """What holds in a pre-norm layer. `added`: "_raw" where the modules' outputs are normed before they are added."""
    norms = (("attn_in", "resid_pre", attn_norm), ("mlp_in", "resid_mid", mlp_norm))
    return (
        *(Equation(target, (source,), (path,)) for target, source, path in norms if path),
        Equation(f"attn_out{added}", ("z",), (out,)),
        Equation(f"mlp_out{added}", ("mlp_act",), (down,)),
    )


def changed(base: dict[str, Where], lost: tuple[str, ...] = (), **places: Where) -> dict[str, Where]:
    """A family's sites, as another's with some lost and others elsewhere."""
    return {name: place for name, place in {**base, **places}.items() if name not in lost}
