"""A transformer whose every weight was set by hand, so that its circuit is known and not found.

It sees eight letters, the last of which came before, and says which class the letter after the earlier copy has. A head
of the first layer tells each letter which one stands before it; a head of the second looks for the letter that has the
last one before it and moves its class, which the first MLP made, to the end; the second MLP says it. Beside it that MLP
knows by heart which class mostly follows a letter. Other heads and neurons work as hard and are never asked.

In the spirit of InterpBench (Gupta et al. 2024, arXiv 2407.14494), whose circuits are trained in; here nothing is.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from microtome.core.errors import Refusal
from microtome.core.inputs import Tokens
from microtome.data.pairs import Pairs, Prompt
from microtome.models.hooked import HookedModel
from microtome.models.load import Named, load

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


class Attention(nn.Module):
    """z = softmax(q k) v, written by W_O."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nothing(STREAM.d, HEADS * LETTERS) for _ in range(3))
        self.o = nothing(HEADS * LETTERS, STREAM.d)
        self.pattern, self.split_q, self.split_k, self.split_v, self.z = (nn.Identity() for _ in range(5))

    def forward(self, x: Float[Tensor, "batch pos d"]) -> Float[Tensor, "batch pos d"]:
        q, k, v = (
            split(linear(x).unflatten(-1, (HEADS, -1)))
            for split, linear in ((self.split_q, self.q), (self.split_k, self.k), (self.split_v, self.v))
        )
        later = torch.ones(x.shape[1], x.shape[1], device=x.device).triu(1).bool()
        pattern = self.pattern(torch.einsum("bqhe,bkhe->bhqk", q, k).masked_fill(later, -torch.inf).softmax(-1))
        return self.o(self.z(torch.einsum("bhqk,bkhe->bqhe", pattern, v)).flatten(2))

    def set(self, head: int, *, query: str, key: str, value: str, into: str, score: float) -> None:
        """A head that looks where the key's thing is the query's, and writes the value's thing elsewhere.

        A key that is a place counts as the place after it, so that the head looks back by one.
        """
        later = 1 if key == "place" else 0
        join(self.q, STREAM[query], self._of(head), score)
        join(self.k, STREAM[key][: len(STREAM[key]) - later], self._of(head)[later:])
        join(self.v, STREAM[value], self._of(head))
        join(self.o, self._of(head), STREAM[into])

    def _of(self, head: int) -> range:
        return range(head * LETTERS, (head + 1) * LETTERS)


class MLP(nn.Module):
    """W_out relu(W_in x + b); neurons are added one at a time."""

    def __init__(self, neurons: int) -> None:
        super().__init__()
        self.inner, self.outer = nothing(STREAM.d, neurons, bias=True), nothing(neurons, STREAM.d)
        self.used = 0

    def forward(self, x: Float[Tensor, "batch pos d"]) -> Float[Tensor, "batch pos d"]:
        return self.outer(self.inner(x).relu())

    def add(self, reads: int, writes: int, *, by: float = 1.0, size: float = 1.0, bias: float = 0.0) -> None:
        """writes gains by * relu(size * reads + bias)"""
        self.inner.weight.data[self.used, reads], self.inner.bias.data[self.used] = size, bias
        self.outer.weight.data[writes, self.used] = by
        self.used += 1


class Block(nn.Module):
    def __init__(self, neurons: int) -> None:
        super().__init__()
        self.attention, self.mid, self.mlp = Attention(), nn.Identity(), MLP(neurons)

    def forward(self, x: Float[Tensor, "batch pos d"]) -> Float[Tensor, "batch pos d"]:
        x = self.mid(x + self.attention(x))
        return x + self.mlp(x)


class Planted(nn.Module):
    """Letters in; out come logits of letters, classes and one other token."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(OTHER + 1, STREAM.d)
        self.embed.weight.data.zero_()
        self.embed.weight.data[range(LETTERS), STREAM["letter"]] = 1.0
        self.place = nn.Parameter(torch.zeros(LENGTH, STREAM.d))
        self.place.data[range(LENGTH), STREAM["place"]] = 1.0
        self.blocks = nn.ModuleList([first(), second()])
        self.unembed = nothing(STREAM.d, OTHER + 1)
        for name, start in (("letter", 0), ("said", LETTERS), ("other", OTHER)):
            join(self.unembed, STREAM[name], range(start, start + len(STREAM[name])))

    def forward(self, ids: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos vocab"]:
        x = self.embed(ids) + self.place[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.unembed(x)


# ---------------------------------------------------------------- the weights


def first() -> Block:
    """Which letter stands before, and which class each has; two heads and as many neurons that nobody asks."""
    block = Block(2 * LETTERS)
    block.attention.set(0, query="place", key="place", value="letter", into="before", score=SHARP)
    block.attention.set(1, query="letter", key="letter", value="letter", into="same", score=SURE)
    block.attention.set(2, query="letter", key="place", value="letter", into="all", score=1.0)
    for letter in range(LETTERS):
        block.mlp.add(STREAM["letter"][letter], STREAM["kind"][class_of(letter)])
        block.mlp.add(STREAM["same"][letter], STREAM["spare"][class_of(letter)])
    return block


def second() -> Block:
    """The copy's follower and its class, and what is known by heart; two heads and some neurons that nobody asks."""
    block = Block(2 * CLASSES + 3 * LETTERS)
    block.attention.set(0, query="letter", key="before", value="kind", into="moved", score=SURE)
    block.attention.set(1, query="before", key="same", value="kind", into="spare", score=SURE)
    block.attention.set(2, query="all", key="letter", value="before", into="all", score=SURE)
    for kind in range(CLASSES):
        block.mlp.add(STREAM["moved"][kind], STREAM["said"][kind], by=4.0)
        block.mlp.add(STREAM["spare"][kind], STREAM["other"][0])
    for letter in range(LETTERS):  # from 0 to 1 between a quarter of a letter and three quarters, and no further
        known = STREAM["said"][follows(letter)]
        block.mlp.add(STREAM["letter"][letter], known, size=2.0, bias=-0.5)
        block.mlp.add(STREAM["letter"][letter], known, by=-1.0, size=2.0, bias=-1.5)
        block.mlp.add(STREAM["all"][letter], STREAM["other"][0])
    return block


def nothing(d_in: int, d_out: int, bias: bool = False) -> nn.Linear:
    linear = nn.Linear(d_in, d_out, bias=bias)
    for parameter in linear.parameters():
        parameter.data.zero_()
    return linear


def join(linear: nn.Linear, reads: range, writes: range, by: float = 1.0) -> None:
    """Each read place goes to one written place, in their order; what has no other is left."""
    for r, w in zip(reads, writes, strict=False):
        linear.weight.data[w, r] = by


def class_of(letter: int) -> int:
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
    return load(Planted().to(device).requires_grad_(False), sites=sites()), CIRCUIT


def sites() -> Named:
    stream, heads = "batch pos d", "batch pos head d"
    named = {"embed": ("embed", "out", stream), "logits": ("", "out", "batch pos vocab")}
    for i in (0, 1):
        at = f"blocks.{i}"
        named |= {
            f"resid_pre.{i}": (at, "in", stream), f"attn_in.{i}": (f"{at}.attention", "in", stream),
            f"pattern.{i}": (f"{at}.attention.pattern", "out", "batch head query key"),
            f"z.{i}": (f"{at}.attention.z", "out", heads), f"attn_out.{i}": (f"{at}.attention", "out", stream),
            f"resid_mid.{i}": (f"{at}.mid", "out", stream), f"mlp_in.{i}": (f"{at}.mlp", "in", stream),
            f"mlp_out.{i}": (f"{at}.mlp", "out", stream), f"resid_post.{i}": (at, "out", stream),
        } | {f"{x}.{i}": (f"{at}.attention.split_{x}", "out", heads) for x in "qkv"}  # fmt: skip
    return named


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
    while True:
        other = row(generator)
        if answer(other) != answer(ids):
            return other


def answer(ids: list[int]) -> int:
    """The class of the letter after the last one's earlier copy."""
    return class_of(ids[ids.index(ids[-1]) + 1])


def spelt(ids: list[int]) -> str:
    return " ".join("ABCDEFGH"[i] for i in ids)
