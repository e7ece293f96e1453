"""A network as a graph of edges: what writes into the residual stream, and what reads it.

Writers are the embedding, attention heads and MLPs; readers are a head's queries, keys and values, MLPs and the logits.
Each edge goes from a writer to a reader that comes after it. Elhage et al. 2021, A Mathematical Framework for
Transformer Circuits; with queries, keys and values apart as in Conmy et al. 2023 (arXiv 2304.14997).
"""

# pyright: reportUnknownMemberType=false

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from microtome.core.errors import NoSuchPlace, Refusal

ROLES = ("q", "k", "v")


class Writer(NamedTuple):
    """What adds to the stream: `input`, `a3.h4` (a head), `m3` (an MLP)."""

    kind: str  # input, head, mlp
    layer: int = -1
    head: int = 0

    def __str__(self) -> str:
        return {"input": "input", "head": f"a{self.layer}.h{self.head}", "mlp": f"m{self.layer}"}[self.kind]


class Reader(NamedTuple):
    """What reads the stream: `a3.h4<q>` (one head's queries; keys and values by key-value heads), `m3`, `logits`."""

    kind: str  # q, k, v, mlp, logits
    layer: int
    head: int = 0

    def __str__(self) -> str:
        if self.kind in ROLES:
            return f"a{self.layer}.h{self.head}<{self.kind}>"
        return "logits" if self.kind == "logits" else f"m{self.layer}"


class Edge(NamedTuple):
    """What one writer adds to what one reader reads."""

    writer: Writer
    reader: Reader

    def __str__(self) -> str:
        return f"{self.writer}->{self.reader}"


@dataclass(frozen=True)
class Anatomy:
    """How many there are of what. `parallel`: an MLP reads what its layer's attention reads, so not its heads."""

    layers: int
    heads: int
    kv_heads: int
    parallel: bool = False

    @cached_property
    def writers(self) -> tuple[Writer, ...]:
        """The embedding, then of each layer its heads and its MLP."""
        return (
            Writer("input"),
            *(
                w
                for layer in range(self.layers)
                for w in (*(Writer("head", layer, h) for h in range(self.heads)), Writer("mlp", layer))
            ),
        )

    @cached_property
    def readers(self) -> tuple[Reader, ...]:
        """Of each layer its heads' queries, keys and values and its MLP; then the logits."""
        of_layers = (
            r
            for layer in range(self.layers)
            for r in (
                *(Reader(kind, layer, h) for kind in ROLES for h in range(self.count(kind))),
                Reader("mlp", layer),
            )
        )
        return (*of_layers, Reader("logits", self.layers))

    def count(self, role: str) -> int:
        """Readers of this role in a layer: keys and values may be fewer than queries."""
        return self.heads if role == "q" else self.kv_heads

    def writers_of(self, layer: int) -> slice:
        """The heads of a layer, as places among the writers."""
        first = 1 + layer * (self.heads + 1)
        return slice(first, first + self.heads)

    def mlp_of(self, layer: int) -> int:
        """The MLP of a layer, as a place among the writers."""
        return self.writers_of(layer).stop

    def before(self, reader: Reader) -> int:
        """How many of the writers come before a reader."""
        sees_heads = reader.kind == "mlp" and not self.parallel
        return 1 + reader.layer * (self.heads + 1) + (self.heads if sees_heads else 0)

    def read_at(self, layer: int, *kinds: str) -> slice:
        """The readers of these kinds in a layer, which must stand together, as places among the readers."""
        of_layer = self.heads + 2 * self.kv_heads + 1
        starts = {"q": 0, "k": self.heads, "v": self.heads + self.kv_heads, "mlp": of_layer - 1, "logits": 0}
        sizes = {"q": self.heads, "k": self.kv_heads, "v": self.kv_heads, "mlp": 1, "logits": 1}
        first = layer * of_layer + starts[kinds[0]]
        return slice(first, first + sum(sizes[kind] for kind in kinds))

    @cached_property
    def possible(self) -> Bool[Tensor, "writers readers"]:
        """Which writers come before which readers."""
        counts = torch.tensor([self.before(r) for r in self.readers])
        return torch.arange(len(self.writers))[:, None] < counts

    def place(self, edge: Edge) -> tuple[int, int]:
        """Where an edge stands in a matrix of writers and readers. Raises NoSuchPlace where there is no such edge."""
        if edge.writer not in self.writers or edge.reader not in self.readers:
            raise NoSuchPlace(f"no edge {edge} in a network of {self.layers} layers and {self.heads} heads each")
        w, r = self.writers.index(edge.writer), self.readers.index(edge.reader)
        if not self.possible[w, r]:
            raise NoSuchPlace(f"no edge {edge}: what writes must come before what reads")
        return w, r

    def named(self, name: str) -> Edge:
        """The edge of a name such as `a0.h1->a1.h2<q>`. Raises Refusal where it is none."""
        writer, _, reader = name.partition("->")
        writers, readers = {str(w): w for w in self.writers}, {str(r): r for r in self.readers}
        if writer not in writers or reader not in readers:
            raise Refusal(f"no edge {name!r}; edges are named as in 'a0.h1->a1.h2<q>', 'input->m0' or 'm1->logits'")
        edge = Edge(writers[writer], readers[reader])
        self.place(edge)
        return edge


@dataclass(frozen=True, eq=False)
class EdgeGraph:
    """Edges with a score each, for every pair of prompts that it was found on, and which of them are kept.

    A score estimates (or is) what the measure gains when what goes along this edge alone is the corrupt prompt's.
    """

    anatomy: Anatomy
    each: Float[Tensor, "pairs writers readers"]
    kept: Bool[Tensor, "writers readers"]
    label: str = ""

    @classmethod
    def of(cls, anatomy: Anatomy, each: Float[Tensor, "pairs writers readers"], label: str = "") -> "EdgeGraph":
        """A graph that keeps every possible edge, from the score of each on each pair."""
        return cls(anatomy, each, anatomy.possible.clone(), label)

    @property
    def scores(self) -> Float[Tensor, "writers readers"]:
        """The mean over the pairs; nothing where there is no edge."""
        return self.each.mean(0)

    def __getitem__(self, edge: Edge | str) -> float:
        place = self.anatomy.place(self.anatomy.named(edge) if isinstance(edge, str) else edge)
        return float(self.scores[place])

    def __len__(self) -> int:
        """How many edges are kept."""
        return int(self.kept.sum())

    def __iter__(self) -> Iterator[Edge]:
        """The kept edges, the strongest first."""
        size = self.scores.abs().masked_fill(~self.kept, -1).flatten()
        for flat in size.argsort(descending=True, stable=True)[: len(self)].tolist():
            w, r = divmod(flat, self.kept.shape[1])
            yield Edge(self.anatomy.writers[w], self.anatomy.readers[r])

    def top(self, count: int, *, signed: bool = False) -> "EdgeGraph":
        """The `count` edges of largest score: in absolute value, or `signed` as it stands. Fewer if there are fewer."""
        value = (self.scores if signed else self.scores.abs()).masked_fill(~self.anatomy.possible, -torch.inf)
        count = min(count, int(self.anatomy.possible.sum()))
        kept = torch.zeros_like(self.kept.flatten())
        kept[value.flatten().argsort(descending=True, stable=True)[:count]] = True
        return replace(self, kept=kept.view_as(self.kept))

    def above(self, threshold: float) -> "EdgeGraph":
        """The edges whose score is at least so large in absolute value."""
        return replace(self, kept=self.anatomy.possible & (self.scores.abs() >= threshold))

    def connected(self) -> "EdgeGraph":
        """Without the edges that lie on no path from the embedding to the logits."""
        kept = self.kept & self.fed()[:, None]
        return replace(self, kept=kept & replace(self, kept=kept).used()[None])

    def fed(self) -> Bool[Tensor, "writers"]:
        """The writers that something reaches from the embedding."""
        reached = torch.zeros(len(self.anatomy.writers), dtype=torch.bool)
        reached[0] = True
        for i, writer in enumerate(self.anatomy.writers[1:], 1):
            reached[i] = (self.kept[:, self.inlets(writer)] & reached[:, None]).any()
        return reached

    def used(self) -> Bool[Tensor, "readers"]:
        """The readers of what goes on to reach the logits."""
        used = torch.zeros(len(self.anatomy.readers), dtype=torch.bool)
        used[-1] = True
        for i in reversed(range(1, len(self.anatomy.writers))):
            if (self.kept[i] & used).any():
                used[self.inlets(self.anatomy.writers[i])] = True
        return used

    def inlets(self, writer: Writer) -> list[int]:
        """The readers of what a writer makes its writing of, as places."""
        return inlets(self.anatomy, writer)


def inlets(anatomy: Anatomy, writer: Writer) -> list[int]:
    """The readers through which a writer is reached."""
    if writer.kind == "mlp":
        return [anatomy.read_at(writer.layer, "mlp").start]
    kv_head = writer.head * anatomy.kv_heads // anatomy.heads
    starts = [anatomy.read_at(writer.layer, role).start for role in ROLES]
    return [starts[0] + writer.head, starts[1] + kv_head, starts[2] + kv_head]
