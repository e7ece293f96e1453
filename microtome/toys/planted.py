"""A transformer whose every weight was set by hand, so that its circuit is known and not found.

It sees eight letters, the last of which came before, and says which class the letter after the earlier copy has. A head
of the first layer tells each letter which one stands before it; a head of the second looks for the letter that has the
last one before it and moves its class, which the first MLP made, to the end; the second MLP says it. Beside it that MLP
knows by heart which class mostly follows a letter. Other heads and neurons work as hard and are never asked.

In the spirit of InterpBench (Gupta et al. 2024, arXiv 2407.14494), whose circuits are trained in; here nothing is.
"""

import math
from typing import cast

import torch
from torch import nn

from microtome.core.errors import Refusal
from microtome.core.inputs import Tokens
from microtome.data.pairs import Pairs, Prompt
from microtome.models.hooked import HookedModel
from microtome.models.load import load
from microtome.toys.transformer import MLP, Attention, Block, Transformer

LETTERS, CLASSES, LENGTH, HEADS = 8, 4, 8, 3
OTHER = LETTERS + CLASSES  # the one token that is neither letter nor class
SHARP, SURE = 20.0, 8.0  # scores of the head that looks back by one, and of the one that looks for a copy
CIRCUIT = frozenset(
    (
        "input->m0", "input->a0.h0<v>", "a0.h0->a1.h0<k>", "input->a1.h0<q>", "m0->a1.h0<v>", "a1.h0->m1", "input->m1",
        "m1->logits",
    )
)  # fmt: skip


class Stream:
    """Where in the stream each thing is written, as ranges that do not overlap."""

    def __init__(self) -> None:
        sizes = {
            "letter": LETTERS, "place": LENGTH, "before": LETTERS, "kind": CLASSES, "moved": CLASSES, "same": LETTERS,
            "all": LETTERS, "spare": CLASSES, "said": CLASSES, "other": 1,
        }  # fmt: skip
        self.d, self._ranges = 0, {}
        for name, size in sizes.items():
            self._ranges[name] = range(self.d, self.d + size)
            self.d += size

    def __getitem__(self, name: str) -> range:
        return self._ranges[name]


STREAM = Stream()


# ---------------------------------------------------------------- the weights


@torch.no_grad()
def by_hand() -> Transformer:
    """Letters in; out come logits of letters, classes and one other token."""
    neurons = max(2 * LETTERS, 2 * CLASSES + 3 * LETTERS)
    network = Transformer(OTHER + 1, LENGTH, d=STREAM.d, heads=HEADS, d_head=LETTERS, neurons=neurons)
    for parameter in network.parameters():
        parameter.zero_()
    network.embed.weight[range(LETTERS), STREAM["letter"]] = 1.0
    network.place[range(LENGTH), STREAM["place"]] = 1.0
    first, second = network.blocks
    set_first(cast(Block, first))
    set_second(cast(Block, second))
    for name, start in (("letter", 0), ("said", LETTERS), ("other", OTHER)):
        join(network.unembed, STREAM[name], range(start, start + len(STREAM[name])))
    return network


def set_first(block: Block) -> None:
    """Which letter stands before, and which class each has; two heads and as many neurons that nobody asks."""
    set_head(block.attention, 0, query="place", key="place", value="letter", into="before", score=SHARP)
    set_head(block.attention, 1, query="letter", key="letter", value="letter", into="same", score=SURE)
    set_head(block.attention, 2, query="letter", key="place", value="letter", into="all", score=1.0)
    neurons = Neurons(block.mlp)
    for letter in range(LETTERS):
        neurons.add(STREAM["letter"][letter], STREAM["kind"][class_of(letter)])
        neurons.add(STREAM["same"][letter], STREAM["spare"][class_of(letter)])


def set_second(block: Block) -> None:
    """The copy's follower and its class, and what is known by heart; two heads and some neurons that nobody asks."""
    set_head(block.attention, 0, query="letter", key="before", value="kind", into="moved", score=SURE)
    set_head(block.attention, 1, query="before", key="same", value="kind", into="spare", score=SURE)
    set_head(block.attention, 2, query="all", key="letter", value="before", into="all", score=SURE)
    neurons = Neurons(block.mlp)
    for kind in range(CLASSES):
        neurons.add(STREAM["moved"][kind], STREAM["said"][kind], by=4.0)
        neurons.add(STREAM["spare"][kind], STREAM["other"][0])
    for letter in range(LETTERS):  # from 0 to 1 between a quarter of a letter and three quarters, and no further
        known = STREAM["said"][follows(letter)]
        neurons.add(STREAM["letter"][letter], known, size=2.0, bias=-0.5)
        neurons.add(STREAM["letter"][letter], known, by=-1.0, size=2.0, bias=-1.5)
        neurons.add(STREAM["all"][letter], STREAM["other"][0])


def set_head(attention: Attention, head: int, *, query: str, key: str, value: str, into: str, score: float) -> None:
    """A head that looks where the key's thing is the query's, and writes the value's thing elsewhere.

    A key that is a place counts as the place after it, so that the head looks back by one. `score` is what such a key
    is given, where others are given nothing.
    """
    own = range(head * LETTERS, (head + 1) * LETTERS)
    later = 1 if key == "place" else 0
    join(attention.q, STREAM[query], own, score * math.sqrt(attention.d_head))
    join(attention.k, STREAM[key][: len(STREAM[key]) - later], own[later:])
    join(attention.v, STREAM[value], own)
    join(attention.o, own, STREAM[into])


class Neurons:
    """The neurons of an MLP, set one after the other."""

    def __init__(self, mlp: MLP) -> None:
        self.mlp, self.used = mlp, 0

    def add(self, reads: int, writes: int, *, by: float = 1.0, size: float = 1.0, bias: float = 0.0) -> None:
        """writes gains by * relu(size * reads + bias)"""
        self.mlp.inner.weight[self.used, reads], self.mlp.inner.bias[self.used] = size, bias
        self.mlp.outer.weight[writes, self.used] = by
        self.used += 1


def join(linear: nn.Linear, reads: range, writes: range, by: float = 1.0) -> None:
    """Each read place goes to one written place, in their order; what has no other is left."""
    for r, w in zip(reads, writes, strict=False):
        linear.weight[w, r] = by


def class_of(letter: int) -> int:
    """The class of a letter."""
    return letter % CLASSES


def follows(letter: int) -> int:
    """The class that is known by heart to follow a letter."""
    return (letter + 1) % CLASSES


# ---------------------------------------------------------------- the network, and what it is asked


def planted(device: str = "cpu") -> tuple[HookedModel, frozenset[str]]:
    """The network, and the names of the edges of its circuit: all others change nothing that `planted_pairs` measure.

    Places are in the stream too, but they are the same in both prompts of a pair, so no edge is there for their sake.
    What the second MLP knows by heart is past its threshold on every clean prompt: no gradient is felt on the edge from
    the input, though what it carries is needed.
    """
    network = by_hand().to(device).requires_grad_(False)
    return load(network, sites=network.sites), CIRCUIT


def planted_pairs(n: int, generator: torch.Generator) -> Pairs:
    """Rows with the class that ought to be said, and as corrupt prompts other rows with another answer."""
    if n < 1:
        raise Refusal(f"{n} pairs are asked for; ask for at least 1")
    clean = [row(generator) for _ in range(n)]
    corrupt = [another(ids, generator) for ids in clean]
    right, wrong = ([answer(ids) for ids in side] for side in (clean, corrupt))
    prompts = tuple(
        Prompt(spelt(a), spelt(b), (f" class {r}",), (f" class {w}",))
        for a, b, r, w in zip(clean, corrupt, right, wrong, strict=True)
    )
    ids = [tuple((LETTERS + kind,) for kind in side) for side in (right, wrong)]
    return Pairs(prompts, Tokens.of(clean), Tokens.of(corrupt), ids[0], ids[1])


def row(generator: torch.Generator) -> list[int]:
    """Seven letters and again one of them, which was followed by a letter of the class that is known to follow it."""
    while True:
        letters = torch.randperm(LETTERS, generator=generator)[: LENGTH - 1].tolist()
        places = [i for i in range(1, LENGTH - 2) if class_of(letters[i + 1]) == follows(letters[i])]
        if places:
            return [*letters, letters[places[math.floor(len(places) * float(torch.rand((), generator=generator)))]]]


def another(ids: list[int], generator: torch.Generator) -> list[int]:
    """A row whose answer is another."""
    while True:
        other = row(generator)
        if answer(other) != answer(ids):
            return other


def answer(ids: list[int]) -> int:
    """The class of the letter after the last one's earlier copy."""
    return class_of(ids[ids.index(ids[-1]) + 1])


def spelt(ids: list[int]) -> str:
    """A row as letters."""
    return " ".join("ABCDEFGH"[i] for i in ids)
