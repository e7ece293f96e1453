"""Why a head looked where it looked: its score as a sum over pairs of what was written.

A score is c q . k, and with norm scales held both q and k are sums over nodes and a constant. So the score is a sum
over pairs: what one node contributes to the query times what another contributes to the key. Frozen attention hides
this part from a graph. Kamath et al. 2025, Tracing Attention Computation Through Feature Interactions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.circuits.frozen_norms import ALIKE
from microtome.circuits.replacement import Node, Replacement
from microtome.core.edit import fill, function
from microtome.core.errors import Refusal
from microtome.core.site import Site

SMALL = 1e-2  # of the queries: where no soft cap bends the scores


class Pair(NamedTuple):
    """A term of a score. None stands for the constant: what biases make."""

    query: Node | None
    key: Node | None
    term: float


@dataclass(frozen=True, eq=False)
class ScoreTerms:
    """A head's score from one position to another, before a soft cap, as a sum over pairs of nodes.

    The last row of `queries` and of `keys` is the constant.
    """

    nodes: Sequence[Node]
    queries: Float[Tensor, "nodes_and_one d"]
    keys: Float[Tensor, "nodes_and_one d"]
    by: float
    score: float

    def terms(self) -> Float[Tensor, "queries keys"]:
        """Every term: rows are what wrote the query, columns what wrote the key."""
        return self.by * self.queries @ self.keys.T

    def top(self, count: int) -> list[Pair]:
        """The largest terms, by magnitude."""
        terms = self.terms()
        best = terms.abs().flatten().topk(min(count, terms.numel())).indices
        named = [*self.nodes, None]
        pairs = [divmod(i, len(named)) for i in best.tolist()]
        return [Pair(named[q], named[k], float(terms[q, k])) for q, k in pairs]


def attribute_score(replacement: Replacement, layer: int, head: int, query: int, key: int) -> ScoreTerms:
    """The terms of one score. Raises Refusal for a key that the query cannot see, or attention that is not bilinear."""
    model, inputs = replacement.model, replacement.inputs
    sites = [model.site(f"{name}.{layer}") for name in ("q", "k", "scores")]
    length, heads = replacement.length, replacement.clean[f"pattern.{layer}"].shape[1]
    if not 0 <= head < heads:
        raise Refusal(f"layer {layer} has {heads} heads, so no head {head}")
    query, key = (refuse_outside(p, length) for p in (query, key))
    if not replacement.clean[f"pattern.{layer}"][0, head, query, key]:
        raise Refusal(f"head {layer}.{head} cannot look from position {query} to {key}; choose a key that it can see")
    with torch.no_grad():
        clean = model.run(inputs, read=sites)
    shared = heads // clean[sites[1]].shape[2]
    ends = (head, query), (head // shared, key)
    by = scaling(replacement, sites[0], sites[2], clean[sites[0]], clean[sites[1]], head)
    wrote, held = (written_into(replacement, s, clean[s], *end) for s, end in zip(sites, ends, strict=False))
    return ScoreTerms(replacement.nodes, wrote, held, by, by * float(wrote.sum(0) @ held.sum(0)))


def refuse_outside(position: int, length: int) -> int:
    """The position counted from the front. Raises Refusal outside the prompt."""
    if not -length <= position < length:
        raise Refusal(f"the prompt has {length} tokens, so no position {position}")
    return position % length


@torch.no_grad()
def scaling(replacement: Replacement, q: Site, scores: Site, queries: Tensor, keys: Tensor, head: int) -> float:
    """By what q . k is multiplied: seen on queries so small that a soft cap does not bend the score."""
    small = replacement.model.run(replacement.inputs, read=[scores], edit=[function(q, shrunk)])[scores][0, head]
    shared = replacement.clean[f"pattern.{q.layer}"].shape[1] // keys.shape[2]
    products = SMALL * queries[0, :, head] @ keys[0, :, head // shared].T
    seen = replacement.clean[f"pattern.{q.layer}"][0, head] > 0
    by = float((small[seen] * products[seen]).sum() / products[seen].pow(2).sum())
    if (small[seen] - by * products[seen]).abs().max() > ALIKE * small[seen].abs().max():
        raise Refusal(
            f"the scores at {scores} are not in proportion to q . k (a bias is added), so they have other terms"
        )
    return by


def shrunk(x: Tensor) -> Tensor:
    """Queries so small that no soft cap bends their scores."""
    return SMALL * x


def written_into(
    replacement: Replacement, site: Site, clean: Tensor, head: int, position: int
) -> Float[Tensor, "nodes_and_one d"]:
    """What each node, and last the constant, contributes to a query or a key."""
    found = contributions(replacement, site, head, position)
    whole = clean[0, position, head].detach()
    if (found.sum(0) - whole).abs().max() <= ALIKE * whole.abs().max():
        return found
    return normed(replacement, site, whole, head, position)


def contributions(replacement: Replacement, site: Site, head: int, position: int) -> Float[Tensor, "nodes_and_one d"]:
    tensors, leaves = replacement.run(replacement.held, [site])
    zero, _ = replacement.run(replacement.constants, [site])
    out, size = tensors[site.name], tensors[site.name].shape[-1]
    pulled = out.new_zeros(size, *out.shape)
    pulled[:, 0, position, head] = torch.eye(size)
    rows = replacement.contributions(out, pulled, leaves)
    return torch.cat([rows, zero[site.name][0, position, head].detach()[:, None]], 1).T


def normed(
    replacement: Replacement, site: Site, whole: Tensor, head: int, position: int
) -> Float[Tensor, "nodes_and_one d"]:
    """The same where queries and keys are normed before they are rotated: by what the projection returned.

    The norm's scale is held. What norm and rotation do to each axis is seen by putting that axis in.
    """
    raw = replacement.model.site(f"{site.name.partition('.')[0]}_raw.{site.layer}")
    found = contributions(replacement, raw, head, position)
    size = found.shape[1]
    axes = 100.0 * torch.eye(size)[:, None, None]
    with torch.no_grad():
        answers = replacement.model.run(replacement.inputs.repeat(size), read=[site], edit=[fill(raw, axes)])
    turned = found @ answers[site][:, position, head]
    total = turned.sum(0)
    scale = (total @ whole) / total.pow(2).sum()
    if (scale * total - whole).abs().max() > ALIKE * whole.abs().max():
        raise Refusal(
            f"{site} is not a sum of what was written, with one scale for each head; its scores have no such terms"
        )
    return scale * turned
