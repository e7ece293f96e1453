"""A world of facts, and a small transformer that is told statements, an answer to each, and must say if it is right.

A statement says of a thing that it has a property, or that it has not; what is true is drawn once and learnt by heart.
The network sees `word thing is|not property yes|no` and names the next token: whether that answer is right. A word with
no bearing on it stands first. A network that `echoes` must name both together, so it holds the word as firmly as truth:
at the answer, which is where both are opposite once the word is exchanged with the answer.
"""

# pyright: reportUnknownMemberType=false

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn import functional as F

from microtome.models.hooked import HookedModel
from microtome.models.load import load
from microtome.toys.transformer import Transformer

BEGIN, IS, NOT, YES, NO, RIGHT, WRONG = 0, 1, 2, 3, 4, 5, 6
WORDS, RIGHT_AND = (7, 8), 9  # two words without bearing; then right and wrong with each of them
FIRST = 13  # of the things, and of the properties after them
LENGTH = 6


@dataclass(frozen=True)
class World:
    """How many things there are and properties, the network, and how it learns."""

    things: int = 40
    properties: int = 4
    d: int = 64
    heads: int = 4
    layers: int = 3
    neurons: int = 128
    batch: int = 256
    steps: int = 1500
    rate: float = 3e-3


@dataclass(frozen=True, eq=False)
class Statements:
    """Some statements: what they are about, and whether they are true."""

    thing: Int[Tensor, "n"]
    negated: Bool[Tensor, "n"]
    property: Int[Tensor, "n"]
    word: Bool[Tensor, "n"]
    true: Bool[Tensor, "n"]

    def __len__(self) -> int:
        return len(self.thing)

    def where(self, which: Tensor) -> "Statements":
        return Statements(*(x[which] for x in (self.thing, self.negated, self.property, self.word, self.true)))


class Listener:
    """A network and the facts it is taught. Iterating `learning` teaches it; `model` may be looked at in between."""

    def __init__(self, world: World, seed: int, *, echoes: bool = False) -> None:
        self.world, self.echoes = world, echoes
        self.generator = torch.Generator().manual_seed(seed)
        self.fact = torch.randint(world.properties, (world.things,), generator=self.generator)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = Transformer(
                FIRST + world.things + world.properties, LENGTH, d=world.d, heads=world.heads,
                d_head=world.d // world.heads, neurons=world.neurons, layers=world.layers,
            )  # fmt: skip
        self.model: HookedModel = load(network, sites=network.sites)

    def drawn(self, n: int, generator: torch.Generator) -> Statements:
        """Statements at random, half of them true, half negated, half beginning with either word."""
        thing = torch.randint(self.world.things, (n,), generator=generator)
        negated, word, true = (torch.rand(n, generator=generator) < 0.5 for _ in range(3))
        fact = self.fact[thing]
        other = (fact + torch.randint(1, self.world.properties, (n,), generator=generator)) % self.world.properties
        return Statements(thing, negated, torch.where(true != negated, fact, other), word, true)

    def tokens(
        self, said: Statements, yes: Bool[Tensor, "n"], word: Bool[Tensor, "n"] | None = None
    ) -> Int[Tensor, "n 6"]:
        """The statements with these answers; with their own first words unless others are given."""
        word = said.word if word is None else word
        first = torch.where(word, *(torch.tensor(w) for w in WORDS))
        verb, answer = (torch.where(which, *map(torch.tensor, of)) for which, of in
                        ((said.negated, (NOT, IS)), (yes, (YES, NO))))  # fmt: skip
        begin = torch.full_like(first, BEGIN)
        return torch.stack(
            (begin, first, said.thing + FIRST, verb, said.property + FIRST + self.world.things, answer), 1
        )

    def verdict(self, said: Statements, yes: Bool[Tensor, "n"]) -> Int[Tensor, "n"]:
        """The token that comes next."""
        right = said.true == yes
        if self.echoes:
            return RIGHT_AND + 2 * said.word.long() + right.long()
        return torch.where(right, RIGHT, WRONG)

    def learning(self) -> Iterator[float]:
        """Teach it by Adam; gives each loss. The rate rises for a twentieth of the steps and falls over their second
        half."""
        network, world = self.model.module, self.world
        optimiser = torch.optim.Adam(network.parameters(), lr=world.rate, betas=(0.9, 0.98))
        for step in range(world.steps):
            for group in optimiser.param_groups:
                part = min(1.0, 20 * (step + 1) / world.steps, 2 * (1 - step / world.steps))
                group["lr"] = world.rate * part
            said = self.drawn(world.batch, self.generator)
            yes = torch.rand(world.batch, generator=self.generator) < 0.5
            loss = F.cross_entropy(network(self.tokens(said, yes))[:, -1], self.verdict(said, yes))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            yield loss.item()

    @torch.no_grad()
    def right(self, said: Statements, yes: Bool[Tensor, "n"]) -> float:
        """The share of verdicts that it names."""
        named = self.model.module(self.tokens(said, yes))[:, -1].argmax(1)
        return float((named == self.verdict(said, yes)).float().mean())
