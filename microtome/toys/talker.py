"""A small transformer that learns the prompts of one task, and can be taken apart where no large model is at hand.

Every word of the task's grammar is a token, with the space before it. What it does is known from how the prompts are
made; how it does it is not, and differs from seed to seed.
"""

# pyright: reportUnknownMemberType=false

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional as F

from microtome.core.errors import Refusal
from microtome.data.pairs import Pairs, tokenized
from microtome.data.tasks import prompts
from microtome.models.hooked import HookedModel
from microtome.models.load import load
from microtome.toys.transformer import Transformer

BEGIN = 0
WORD = re.compile(r" ?\w+|[^\w\s]")


class Words:
    """The words of some texts as tokens; token 0 begins every text."""

    def __init__(self, texts: Iterable[str]) -> None:
        found = sorted({word for text in texts for word in WORD.findall(text)})
        self.ids = {word: i for i, word in enumerate(found, BEGIN + 1)}

    def __len__(self) -> int:
        return len(self.ids) + 1

    def encode(self, text: str) -> list[int]:
        """Raises Refusal for a word that is not among them."""
        words = WORD.findall(text)
        unknown = next((w for w in words if w not in self.ids), None)
        if unknown is not None:
            raise Refusal(f"the word {unknown!r} is not among the {len(self.ids)} of this grammar; use its own words")
        return [BEGIN, *(self.ids[w] for w in words)]


@dataclass(frozen=True)
class Lessons:
    """The network and how long it learns. `prompts` are drawn once; batches of them are seen again and again."""

    d: int = 64
    heads: int = 4
    layers: int = 2
    neurons: int = 128
    prompts: int = 4000
    batch: int = 64
    steps: int = 1000
    rate: float = 3e-3


class Talker:
    """A network and the words it knows. Iterating `learning` trains it; `model` may be looked at in between."""

    def __init__(self, task: str, lessons: Lessons, seed: int) -> None:
        """The prompts depend on the task alone, what else is random on the seed."""
        self.task, self.lessons = task, lessons
        said = prompts(task, lessons.prompts, torch.Generator().manual_seed(0))
        self.words = Words(text + answer for p in said for text in p[:2] for answer in (*p.right, *p.wrong))
        self.rows = answered(tokenized(said, self.words.encode))
        self.generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = Transformer(
                len(self.words), self.rows.shape[1], d=lessons.d, heads=lessons.heads,
                d_head=lessons.d // lessons.heads, neurons=lessons.neurons, layers=lessons.layers,
            )  # fmt: skip
        self.model: HookedModel = load(network, sites=network.sites)

    def learning(self) -> Iterator[float]:
        """Train by Adam on the next token, and once more on the answer, which is one token among many; gives each loss.

        The rate rises for a twentieth of the steps, and over their second half falls to zero.
        """
        network, steps = self.model.module, self.lessons.steps
        optimiser = torch.optim.Adam(network.parameters(), lr=self.lessons.rate, betas=(0.9, 0.98))
        for step in range(steps):
            for group in optimiser.param_groups:
                group["lr"] = self.lessons.rate * min(1.0, 20 * (step + 1) / steps, 2 * (1 - step / steps))
            drawn = torch.randint(len(self.rows), (self.lessons.batch,), generator=self.generator)
            ids = self.rows[drawn].to(self.model.device)
            logits = network(ids[:, :-1])
            loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
            loss = loss + F.cross_entropy(logits[:, -1], ids[:, -1])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            yield loss.item()

    def pairs(self, n: int, generator: torch.Generator) -> Pairs:
        """New pairs of the task."""
        return tokenized(prompts(self.task, n, generator), self.words.encode)


def answered(pairs: Pairs) -> Int[Tensor, "rows pos"]:
    """The clean prompts with their answers. Raises Refusal where they differ in length."""
    if not pairs.clean.mask.all():
        raise Refusal(f"{pairs} differ in length; choose a task whose prompts are equally long, such as ioi")
    return torch.cat([pairs.clean.ids, pairs.right[:, None]], 1)
