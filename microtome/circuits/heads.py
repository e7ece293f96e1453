"""What a head attends to, and what it does with it: scores by which heads are known.

    previous token    attention to the token just before
    duplicate token   attention to earlier copies of the current token
    induction         attention to what followed earlier copies of the current token (prefix matching)
    copying           the OV circuit raises the logit of the token that it reads
    name mover        attention from the last token to the answer, and the answer's logit raised by it

Elhage et al. 2021, A Mathematical Framework for Transformer Circuits; Olsson et al. 2022 (arXiv 2209.11895);
Wang et al. 2022 (arXiv 2211.00593).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from microtome.circuits.direct_logits import direct_logits
from microtome.circuits.head_weights import LowRank
from microtome.core.edit import fill
from microtome.core.errors import Refusal
from microtome.core.inputs import Tokens
from microtome.core.model import Model
from microtome.core.site import Site

ByHead = Float[Tensor, "layer head"]
Places = Bool[Tensor, "batch query key"]


class Attention(NamedTuple):
    """Three scores of every head: the mean share of attention that goes where the score's name says."""

    previous: ByHead
    duplicate: ByHead
    induction: ByHead


@torch.no_grad()
def attention_scores(model: Model, tokens: Tokens) -> Attention:
    """How much of each head's attention goes to the token before, to copies, and to what followed copies.

    Each is the mean over those places that have such tokens to look at. Raises Refusal where none has: text with
    repetitions, such as `repeated_tokens`, shows all three.
    """
    places = {"previous": before(tokens), "duplicate": copies(tokens), "induction": after_copies(tokens)}
    for name, where in places.items():
        if not where.any():
            raise Refusal(f"no token here has one for the {name} score to look at; give rows with repeated tokens")
    layers = {name: [] for name in places}
    for site in model.sites("pattern.*"):
        pattern = model.run(tokens, read=[site])[site]
        for name, where in places.items():
            layers[name].append(attended(pattern, where))
    return Attention(**{name: torch.stack(each) for name, each in layers.items()})


def attended(pattern: Float[Tensor, "batch head query key"], where: Places) -> Float[Tensor, "head"]:
    """The share of attention on these places, the mean over the queries that have any."""
    share = (pattern * where[:, None]).sum(-1)
    asked = where.any(-1)[:, None]
    return (share * asked).sum((0, 2)) / asked.sum()


def before(tokens: Tokens) -> Places:
    """For each token, the one just before it."""
    return real(tokens) & (steps(tokens) == 1)


def copies(tokens: Tokens) -> Places:
    """For each token, the earlier places of the same one."""
    same = tokens.ids[:, :, None] == tokens.ids[:, None]
    return real(tokens) & same & (steps(tokens) > 0)


def after_copies(tokens: Tokens) -> Places:
    """For each token, the places just after earlier ones of the same (but not itself)."""
    found = copies(tokens)
    shifted = torch.zeros_like(found)
    shifted[:, :, 1:] = found[:, :, :-1]
    return shifted & real(tokens) & (steps(tokens) > 0)


def real(tokens: Tokens) -> Places:
    """The queries and keys that are not padding."""
    return tokens.mask[:, :, None] & tokens.mask[:, None]


def steps(tokens: Tokens) -> Int[Tensor, "batch query key"]:
    """How many tokens the key stands before the query."""
    return tokens.positions[:, :, None] - tokens.positions[:, None]


def repeated_tokens(
    vocabulary: Sequence[int], length: int, rows: int, generator: torch.Generator, *, begin: int | None = None
) -> Tokens:
    """Rows of so many different random tokens, said twice; `begin` is put before them.

    On such rows the induction score is the mean of the pattern `length - 1` places back. Raises Refusal where the
    vocabulary has too few tokens for a row to have no other repetition.
    """
    allowed = torch.tensor([t for t in vocabulary if t != begin])
    if length > len(allowed):
        raise Refusal(f"{length} different tokens are asked for and the vocabulary has {len(allowed)}; ask for fewer")
    drawn = torch.stack([allowed[torch.randperm(len(allowed), generator=generator)[:length]] for _ in range(rows)])
    starts = drawn.new_full((rows, 1 if begin is not None else 0), begin or 0)
    return Tokens.of(torch.cat((starts, drawn, drawn), 1))


# ---------------------------------------------------------------- copying


def copying(ov: LowRank, embedding: Tensor | None = None, unembedding: Tensor | None = None) -> float:
    """Sum of the OV circuit's eigenvalues over the sum of their sizes: 1 copies, -1 does the reverse.

    With an embedding (vocab d) and an unembedding (d vocab), of the whole path from token to logit; else of the stream.
    The eigenvalues are those of a matrix as small as the head is wide (Elhage et al. 2021, "Copying").
    """
    left = ov.left if embedding is None else embedding @ ov.left
    right = ov.right if unembedding is None else ov.right @ unembedding
    values = torch.linalg.eigvals((right @ left).double())
    return float(values.sum().real / values.abs().sum().clamp(min=1e-30))


# ---------------------------------------------------------------- name movers


class NameMover(NamedTuple):
    """Of every head: attention from the last token to the answer, and what the head adds to its logit there.

    `toward` is the correlation of the two over rows (Wang et al. 2022, figure 3c), nan where either does not vary.
    """

    attention: ByHead
    direct_logit: ByHead
    toward: ByHead


@torch.no_grad()
def name_movers(
    model: Model, tokens: Tokens, answer: Int[Tensor, "batch"], wrong: Int[Tensor, "batch"] | None = None
) -> NameMover:
    """Scores by which heads that move the answer to the end are known. Rows in which it does not stand are refused."""
    where = real(tokens) & (tokens.ids == answer[:, None])[:, None]
    missing = (~where.any((1, 2))).nonzero()[:, 0].tolist()
    if missing:
        raise Refusal(
            f"the answer of row {missing[0]}, token {int(answer[missing[0]])}, is not in it; none can be moved"
        )
    last = Site("places", "batch pos key").at(pos=-1).take(where, tokens)
    looked: list[Tensor] = []
    for site in model.sites("pattern.*"):
        pattern = model.run(tokens, read=[site])[site]
        end = Site("pattern", "batch pos head key").at(pos=-1).take(pattern.transpose(1, 2), tokens)
        looked.append((end * last[:, None]).sum(-1))
    attention = torch.stack(looked)
    by_head = direct_logits(model, tokens, answer, wrong).heads()
    logit = torch.stack([torch.stack([last_of(h, tokens) for h in layer]) for layer in by_head]).transpose(1, 2)
    return NameMover(attention.mean(1), logit.mean(1), correlation(attention, logit))


def last_of(x: Float[Tensor, "batch pos"], tokens: Tokens) -> Float[Tensor, "batch"]:
    """The value at each row's last real position."""
    return Site("value", "batch pos").at(pos=-1).take(x, tokens)


def correlation(x: Float[Tensor, "layer batch head"], y: Float[Tensor, "layer batch head"]) -> ByHead:
    """Pearson's over the rows of a batch, of every layer and head."""
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    return (x * y).sum(1) / (x.norm(dim=1) * y.norm(dim=1))


@torch.no_grad()
def copy_score(model: Model, tokens: Tokens, layer: int, *, top: int = 5) -> Float[Tensor, "head"]:
    """How often what a head of this layer would write, having attended to a token alone, names that token.

    The stream after the first layer goes through the layer's norm and the head's OV circuit and is read as the last
    stream is; a hit is a token among the `top` first (Wang et al. 2022, section 3.1). The mean over real tokens.
    """
    stream, enters, end = model.site("resid_post.0"), model.site(f"resid_pre.{layer}"), model.sites("resid_post.*")[-1]
    attn_in, v, z, out = (model.site(f"{name}.{layer}") for name in ("attn_in", "v", "z", "attn_out"))
    logits, shown = model.site("logits"), model.run(tokens, read=[stream])[stream]
    values = model.run(tokens, read=[attn_in, v], edit=[fill(enters, shown)])[v]
    width = model.run(tokens, read=[z])[z].shape
    moved = values.repeat_interleave(width[2] // values.shape[2], 2)
    scores: list[Tensor] = []
    for head in range(width[2]):
        alone = torch.zeros_like(moved)
        alone[:, :, head] = moved[:, :, head]
        written = model.run(tokens, read=[out], edit=[fill(z, alone)])[out]
        said = model.run(tokens, read=[logits], edit=[fill(end, written)])[logits]
        hit = (said.topk(top, -1).indices == tokens.ids[..., None]).any(-1)
        scores.append(hit[tokens.mask].float().mean())
    return torch.stack(scores)
