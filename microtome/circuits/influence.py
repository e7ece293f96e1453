"""How much of a target goes back to each node, along all paths; and what share of it is explained.

Each node's incoming weights are made shares of their sum of magnitudes, and influence flows from the targets back along
these shares. Ameisen et al. 2025, Circuit Tracing, appendix "Graph pruning" and "Evaluating attribution graphs".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Edges:
    """Direct effects, those that are not zero; `dropped` is the magnitude that was left out of each node's row."""

    targets: Int[Tensor, "edges"]
    sources: Int[Tensor, "edges"]
    weights: Float[Tensor, "edges"]
    dropped: Float[Tensor, "nodes"]

    @classmethod
    def none(cls, nodes: int) -> "Edges":
        """No edges between so many nodes."""
        empty = torch.zeros(0, dtype=torch.long)
        return cls(empty, empty, torch.zeros(0), torch.zeros(nodes))

    @classmethod
    def of_rows(cls, targets: Sequence[int], rows: Float[Tensor, "rows sources"], nodes: int, drop: float) -> "Edges":
        """The rows of some targets, without the smallest entries that together make up the share `drop` of each."""
        sizes = rows.abs()
        order = sizes.sort(-1)
        small = order.values.cumsum(-1) <= drop * sizes.sum(-1, keepdim=True)
        gone = torch.zeros_like(small).scatter(-1, order.indices, small) | (rows == 0)
        which, sources = (~gone).nonzero(as_tuple=True)
        number = torch.tensor(targets, dtype=torch.long)
        dropped = torch.zeros(nodes).index_copy(0, number, (sizes * gone).sum(-1))
        return cls(number[which], sources, rows[which, sources], dropped)

    @classmethod
    def joined(cls, parts: Sequence["Edges"]) -> "Edges":
        """All the edges of several lists, of the same nodes."""
        return cls(
            torch.cat([p.targets for p in parts]),
            torch.cat([p.sources for p in parts]),
            torch.cat([p.weights for p in parts]),
            torch.stack([p.dropped for p in parts]).sum(0),
        )

    def __len__(self) -> int:
        return len(self.weights)

    def dense(self) -> Float[Tensor, "targets sources"]:
        """The edges as a matrix of weights."""
        size = len(self.dropped)
        return torch.zeros(size, size).index_put((self.targets, self.sources), self.weights)

    def incoming(self) -> Float[Tensor, "nodes"]:
        """The magnitude that is kept of each node's row."""
        return torch.zeros_like(self.dropped).index_add(0, self.targets, self.weights.abs())

    def shares(self, *, dropped_too: bool = True) -> "Edges":
        """Each weight's magnitude over that of its node's whole row, what was dropped counted or not."""
        whole = self.incoming() + (self.dropped if dropped_too else 0)
        by = whole.clamp(min=1e-10)
        lost = self.dropped / by if dropped_too else torch.zeros_like(self.dropped)
        return Edges(self.targets, self.sources, self.weights.abs() / by[self.targets], lost)

    def among(self, kept: Bool[Tensor, "edges"]) -> "Edges":
        """Some of the edges; what was dropped stays as it was."""
        return Edges(self.targets[kept], self.sources[kept], self.weights[kept], self.dropped)

    def back(self, amounts: Float[Tensor, "nodes"]) -> Float[Tensor, "nodes"]:
        """Amounts at targets, handed to their sources by weight."""
        return torch.zeros_like(amounts).index_add(0, self.sources, amounts[self.targets] * self.weights)

    def forth(self, amounts: Float[Tensor, "nodes"]) -> Float[Tensor, "nodes"]:
        """Amounts at sources, handed to their targets by weight."""
        return torch.zeros_like(amounts).index_add(0, self.targets, amounts[self.sources] * self.weights)


def influence(shares: Edges, start: Float[Tensor, "nodes"]) -> Float[Tensor, "nodes"]:
    """What arrives at each node when the start flows back along all paths: start (A + A² + ...), a finite sum."""
    total, now = torch.zeros_like(start), start
    for _ in range(len(start)):
        now = shares.back(now)
        if not now.any():
            break
        total = total + now
    return total


class Scores(NamedTuple):
    """Shares from 0 to 1: of the targets that goes back to tokens, and of all that was read that is no error."""

    replacement: float
    completeness: float


def scores(
    edges: Edges, start: Float[Tensor, "nodes"], tokens: Bool[Tensor, "nodes"], unexplained: Bool[Tensor, "nodes"]
) -> Scores:
    """As the paper defines them: nodes that were not explored, and weight that was dropped, count as errors.

    Only nodes that were explored count in completeness: tokens and errors read nothing that could be explained.
    `unexplained` are the errors and the components whose own sources were not worked out.
    """
    shares = edges.shares()
    reached = influence(shares, start)
    lost = (
        torch.zeros_like(start).index_add(0, shares.targets, shares.weights * unexplained[shares.sources])
        + shares.dropped
    )
    reading = (start + reached) * ~(tokens | unexplained)
    from_tokens = reached[tokens].sum()
    to_nowhere = reached[unexplained].sum() + (reading * shares.dropped).sum()
    return Scores(
        float(from_tokens / (from_tokens + to_nowhere).clamp(min=1e-10)),
        float((reading * (1 - lost)).sum() / reading.sum().clamp(min=1e-10)),
    )


def scores_as_circuit_tracer(
    edges: Edges, start: Float[Tensor, "nodes"], tokens: Bool[Tensor, "nodes"], errors: Bool[Tensor, "nodes"],
    explored: Bool[Tensor, "nodes"],
) -> Scores:  # fmt: skip
    """As circuit-tracer 0.5 prints them, for comparison with published numbers; both are inflated.

    Tokens and errors, which have no sources, count as fully explained; what flows to components that were not explored
    is left out, as is what was dropped, before weights are made shares.
    """
    kept = explored | tokens | errors
    shares = edges.among(kept[edges.sources]).shares(dropped_too=False)
    reached = influence(shares, start)
    by_error = torch.zeros_like(start).index_add(0, shares.targets, shares.weights * errors[shares.sources])
    output = (reached + start) * kept
    return Scores(
        float(reached[tokens].sum() / (reached[tokens].sum() + reached[errors].sum()).clamp(min=1e-10)),
        float((output * (1 - by_error)).sum() / output.sum().clamp(min=1e-10)),
    )
