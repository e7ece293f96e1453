"""What a graph explains: logits, differences of logits, or any component that reads somewhere in the network."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from microtome.circuits.active import Reading
from microtome.circuits.replacement import Replacement
from microtome.core.component import Component
from microtome.core.edit import fill
from microtome.core.errors import Refusal


class Target(NamedTuple):
    """Something to explain: what is read, how much it counts, its name, and its number in the vocabulary (or -1)."""

    reading: Reading
    weight: float
    label: str
    token: int = -1


class Targets(ABC):
    """What to explain on a prompt."""

    @abstractmethod
    def on(self, replacement: Replacement) -> list[Target]:
        """The targets on this prompt. Where anything new is read, the site is among `reads`."""

    @property
    def reads(self) -> tuple[str, ...]:
        """Sites that are read besides those of the dictionaries and the unembedding."""
        return ()


@dataclass(frozen=True)
class TopLogits(Targets):
    """The likeliest next tokens until their probabilities add up to `mass`, at most `most` of them.

    Each is explained as its logit minus the mean over the vocabulary, before any soft cap, and counts as much as it is
    likely. Ameisen et al. 2025: "until 95% of the probability mass is accounted for", at most ten.
    """

    most: int = 10
    mass: float = 0.95

    def on(self, replacement: Replacement) -> list[Target]:
        chances = replacement.clean["logits"][0, -1].float().softmax(-1)
        top = chances.topk(min(self.most, len(chances)))
        enough = int((top.values.cumsum(0) < self.mass).sum()) + 1
        ids, found = top.indices[:enough], top.values[:enough].tolist()
        readings = logit_readings(replacement, ids)
        return [Target(r, p, f"logit {i}", i) for r, p, i in zip(readings, found, ids.tolist(), strict=True)]


@dataclass(frozen=True)
class LogitDifference(Targets):
    """How much likelier one next token is than another, in logits."""

    right: int
    wrong: int

    def on(self, replacement: Replacement) -> list[Target]:
        one, other = logit_readings(replacement, torch.tensor([self.right, self.wrong]))
        vector, offset = one.vector - other.vector, one.offset - other.offset
        reading = Reading(one.site, one.position, vector, offset, one.value - other.value)
        return [Target(reading, 1.0, f"logit {self.right} - logit {self.wrong}")]


@dataclass(frozen=True)
class Activity(Targets):
    """Components of rank 1, each at a position: a probe, a direction, a latent that is active there."""

    components: tuple[Component, ...]
    position: int = -1

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple({s.name: s for c in self.components for s in c.dictionary.reads})

    def on(self, replacement: Replacement) -> list[Target]:
        at = self.position % replacement.length
        return [
            Target(activity_reading(replacement, c, at), 1 / len(self.components), f"{c} at {at}", c.index)
            for c in self.components
        ]


def activity_reading(replacement: Replacement, component: Component, position: int) -> Reading:
    """Raises Refusal for a component that reads more than one direction at one site, or that is silent there."""
    dictionary, read = component.dictionary, component.read.detach()
    if read.shape[:-1] != (1,):
        raise Refusal(
            f"{component} reads at {len(dictionary.reads)} sites with rank {read.shape[-2]}; a target reads one"
        )
    x = replacement.clean[dictionary.reads[0]][0, position]
    value = float(component.activity(x[None]).detach())
    if not value:
        raise Refusal(f"{component} is not active at position {position}, so there is nothing to explain there")
    return Reading(dictionary.reads[0], position, read[0], value - float(x @ read[0]), value)


def logit_readings(replacement: Replacement, ids: Int[Tensor, "some"]) -> list[Reading]:
    """What makes each logit, less the mean over the vocabulary, at the last position: before a soft cap."""
    site, last = replacement.stream, replacement.length - 1
    vectors, offsets = unembedding(replacement, ids)
    x = replacement.clean[site][0, last]
    return [Reading(site, last, v, float(o), float(x @ v + o)) for v, o in zip(vectors, offsets, strict=True)]


def unembedding(
    replacement: Replacement, ids: Int[Tensor, "some"]
) -> tuple[Float[Tensor, "some d"], Float[Tensor, "some"]]:
    """Rows of the unembedding less their mean, and of its bias: the gradient of logits at zero, where no cap bends."""
    site, size = replacement.stream, len(replacement.clean["logits"][0, -1])
    outside = ids[(ids < 0) | (ids >= size)].tolist()
    if outside:
        raise Refusal(f"token {outside[0]} is outside the vocabulary of {size}; give a number from 0 to {size - 1}")
    zero = torch.zeros_like(replacement.clean[site]).requires_grad_()
    with torch.enable_grad():
        trace = replacement.model.run(
            replacement.inputs, read=[replacement.model.site("logits")], edit=[fill(site, zero)]
        )
        logits = trace["logits"][0, -1]
        centred = logits[ids] - logits.mean()
    vectors = [torch.autograd.grad(c, zero, retain_graph=True)[0][0, -1] for c in centred]
    return torch.stack(vectors), centred.detach()


def named(targets: Sequence[Target], decode: Sequence[str]) -> list[Target]:
    """The same, tokens by their text."""
    return [t._replace(label=f"Output {decode[t.token]!r}") if 0 <= t.token < len(decode) else t for t in targets]
