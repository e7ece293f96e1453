"""What a decomposition should be: faithful, enough under any mask, and with little that matters on any one input.

Terms are added and scaled, `Faithful() + Stochastic() + 3e-3 * Minimal()`, and each gives a number for every seed:
Bushnaq et al. 2025 (SPD, arXiv 2506.20790); Goodfire 2026 (VPD) for frequency, subsets, annealed powers and the
adversary.
"""

# pyright: reportUnknownMemberType=false

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from microtome.core.errors import Refusal
from microtome.interventions.masks import Adversary, Choice, Masks, constant, stochastic
from microtome.parameters.decomposed import Given, Look
from microtome.parameters.gates import cost_of


@runtime_checkable
class Maskable(Protocol):
    """What can be taken apart and masked, row by row: a network's weights, or what dictionaries make of its sites."""

    lead: tuple[int, ...]  # the seeds, if they have an axis

    def look(self, x: Given) -> Look:
        """The network as it is."""
        ...

    def run(self, x: Given, masks: Masks) -> Tensor:
        """Its output when every part is kept as far as its mask says."""
        ...

    def unfaithful(self) -> Tensor:
        """How much the parts leave over of what they are parts of."""
        ...


Distance = Callable[[Tensor, Tensor], Float[Tensor, "*rows"]]  # (output now, output of the network) -> one a row
TINY = 1e-6  # a power below one has no finite slope at zero


def squared(now: Float[Tensor, "*rows out"], was: Float[Tensor, "*rows out"]) -> Float[Tensor, "*rows"]:
    """The mean square of the difference, over the output's width."""
    return (now - was).pow(2).mean(-1)


def divergence(now: Float[Tensor, "*rows out"], was: Float[Tensor, "*rows out"]) -> Float[Tensor, "*rows"]:
    """KL(was || now) of logits, in nats."""
    p, q = was.log_softmax(-1), now.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


@dataclass(frozen=True)
class Weighted:
    """Rows of which some count more: so that rows on which nothing happens need not be drawn as often as they occur.

    `weight` sums to 1 over rows; means over rows are then exact in expectation.
    """

    x: Shaped[Tensor, "*seeds rows d"]
    weight: Float[Tensor, "rows"]

    def __len__(self) -> int:
        return len(self.weight)


Batch = Given | Weighted


@dataclass(frozen=True)
class Moment:
    """What the terms of an objective look at together: made once a step."""

    learned: Maskable
    x: Given
    look: Look
    weight: Tensor | None
    step: int
    generator: torch.Generator | None
    distance: Distance

    def mean(self, each: Float[Tensor, "*rows"]) -> Float[Tensor, "*seeds"]:
        """Over rows, by their weights, and over positions."""
        lead = len(self.learned.lead)
        if each.ndim > lead + 1:
            each = each.flatten(lead + 1).mean(-1)
        return each.mean(-1) if self.weight is None else each @ self.weight

    def mean_parts(self, each: Float[Tensor, "*rows parts"]) -> Float[Tensor, "*seeds parts"]:
        """The same for every part."""
        lead = len(self.learned.lead)
        if each.ndim > lead + 2:
            each = each.flatten(lead + 1, -2).mean(lead + 1)
        return each.mean(-2) if self.weight is None else torch.einsum("...rc,r->...c", each, self.weight)

    def missed(self, masks: Masks) -> Float[Tensor, "*seeds"]:
        """How far the masked network's output is from the network's."""
        return self.mean(self.distance(self.learned.run(self.x, masks), self.look.output))


class Term(ABC):
    """Something to make small."""

    @abstractmethod
    def __call__(self, now: Moment) -> Float[Tensor, "*seeds"]: ...

    @property
    def name(self) -> str:
        """What its losses are logged as."""
        return type(self).__name__.lower()

    def __add__(self, other: "Term | Sum") -> "Sum":
        return Sum([(1.0, self)]) + other

    def __rmul__(self, by: float) -> "Sum":
        return Sum([(by, self)])


class Sum(nn.Module):
    """Terms with their weights: an objective for `fit`, which counts its own steps so that powers can be annealed."""

    step: Tensor

    def __init__(
        self,
        terms: list[tuple[float, Term]],
        distance: Distance = squared,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.terms, self.distance, self.generator = terms, distance, generator
        self.remembering = nn.ModuleList([term for _, term in terms if isinstance(term, nn.Module)])
        self.register_buffer("step", torch.zeros((), dtype=torch.long))

    def __add__(self, other: "Term | Sum") -> "Sum":
        more = other.terms if isinstance(other, Sum) else [(1.0, other)]
        return Sum([*self.terms, *more], self.distance, self.generator)

    def __rmul__(self, by: float) -> "Sum":
        return Sum([(by * weight, term) for weight, term in self.terms], self.distance, self.generator)

    def of(self, distance: Distance, generator: torch.Generator | None) -> "Sum":
        """The same terms, outputs compared in this way, masks drawn from this generator."""
        return Sum(self.terms, distance, generator)

    def __call__(self, learned: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Each term summed over seeds, which so learn each by itself."""
        assert isinstance(learned, Maskable)
        parts = {name: value.sum() for name, value in self.by_seed(learned, batch).items()}
        self.step += 1
        return parts

    def by_seed(self, learned: Maskable, batch: Batch) -> dict[str, Float[Tensor, "*seeds"]]:
        """Each term, weighted, for every seed."""
        x, weight = (batch.x, batch.weight) if isinstance(batch, Weighted) else (batch, None)
        now = Moment(learned, x, learned.look(x), weight, int(self.step), self.generator, self.distance)
        found: dict[str, Tensor] = {}
        for by, term in self.terms:
            found[term.name] = found.get(term.name, 0.0) + by * term(now)
        return found


# ---------------------------------------------------------------- terms


@dataclass(frozen=True)
class Faithful(Term):
    """The mean square of what the parts leave over of the weights, over all their numbers."""

    def __call__(self, now: Moment) -> Float[Tensor, "*seeds"]:
        return now.learned.unfaithful()


@dataclass(frozen=True)
class Stochastic(Term):
    """How far outputs move under masks drawn between importance and 1, all weights at once; the rest masked as well."""

    def __call__(self, now: Moment) -> Float[Tensor, "*seeds"]:
        return now.missed(stochastic(now.look.importance, now.generator))


@dataclass(frozen=True)
class Layerwise(Term):
    """The same with one weight masked at a time, mean over weights."""

    def __call__(self, now: Moment) -> Float[Tensor, "*seeds"]:
        importance = now.look.importance
        drawn, whole = stochastic(importance, now.generator), constant(importance, 1.0, 1.0)
        one = [only(drawn, whole, name) for name in importance]
        return torch.stack([now.missed(masks) for masks in one]).mean(0)


def only(drawn: Masks, whole: Masks, name: str) -> Masks:
    """The one's masks at one place, the other's elsewhere."""
    assert drawn.rest is not None and whole.rest is not None
    return Masks(whole.parts | {name: drawn.parts[name]}, whole.rest | {name: drawn.rest[name]})


@dataclass(frozen=True)
class Subset(Term):
    """Masks on some of the weights of each row, the others whole: k of L weights, k drawn from 1 to L.

    One forward pass in the place of one for each weight and one for all (VPD).
    """

    def __call__(self, now: Moment) -> Float[Tensor, "*seeds"]:
        drawn, importance = stochastic(now.look.importance, now.generator), now.look.importance
        return now.missed(routed(drawn, chosen(importance, now.generator)))


def chosen(importance: dict[str, Tensor], generator: torch.Generator | None) -> dict[str, Float[Tensor, "... 1"]]:
    """Which weights are masked, row by row: 1 or 0."""
    first = next(iter(importance.values()))
    shape = (len(importance), *first.shape[:-1])
    ranks = torch.rand(shape, generator=generator, device=first.device).argsort(0).argsort(0)
    most = torch.rand(shape[1:], generator=generator, device=first.device) * len(importance)
    return {name: (rank <= most).to(first)[..., None] for name, rank in zip(importance, ranks, strict=True)}


def routed(masks: Masks, which: dict[str, Tensor]) -> Masks:
    """1 where a row's weight is not chosen."""
    assert masks.rest is not None
    return Masks(
        {name: torch.lerp(torch.ones_like(m), m, which[name]) for name, m in masks.parts.items()},
        {name: torch.lerp(torch.ones_like(m), m, which[name]) for name, m in masks.rest.items()},
    )


@dataclass(frozen=True)
class Adversarial(Term):
    """The same as Stochastic under the masks that an adversary finds worst, anew at every step.

    Of the choices on its way it keeps the one that harms all seeds together most.
    """

    adversary: Adversary = field(default_factory=lambda: Adversary(steps=1, size=1.0))

    def __call__(self, now: Moment) -> Float[Tensor, "*seeds"]:
        importance = now.look.importance
        worst = self.adversary.worst(importance, lambda masks: now.missed(masks).sum(), now.generator)
        return now.missed(worst.masks(importance))


class Persistent(Term, nn.Module):
    """The same under an adversary that goes on from where it was a step before, for one place in all rows (VPD).

    It keeps its place as state, so give each fit one of its own. On rows of another shape it begins anew.
    """

    def __init__(self, adversary: Adversary | None = None):
        """By default two steps of .01 upward for each step of learning."""
        nn.Module.__init__(self)
        self.adversary = adversary or Adversary(steps=2, size=0.01)
        self.place: Choice | None = None

    def __call__(self, now: Moment) -> Float[Tensor, "*seeds"]:
        importance = now.look.importance
        begin = self.place if self.place is not None and self.place.fits(importance) else None
        path = self.adversary.path(importance, lambda masks: now.missed(masks).sum(), now.generator, begin)
        *_, (self.place, _) = path
        return now.missed(self.place.masks(importance))

    def get_extra_state(self) -> dict[str, dict[str, Tensor]]:
        """The adversary's sources, which last from step to step."""
        return {} if self.place is None else self.place._asdict()

    def set_extra_state(self, state: dict[str, dict[str, Tensor]]) -> None:
        """Go on from those sources."""
        self.place = Choice(**state) if state else None


class Power(ABC):
    """How much an importance costs, above 0 and up to 1; it may change while learning."""

    @abstractmethod
    def __call__(self, cost: Tensor, step: int) -> Tensor: ...


@dataclass(frozen=True)
class Lp(Power):
    """|g|^p, p from `start` to `stop` along a line over so many steps. Below 1, zero is moved by a millionth.

    SPD keeps p at 1 or 2; VPD goes from 2 to .4. Raises Refusal for powers not above 0.
    """

    start: float = 1.0
    stop: float | None = None
    steps: int = 1

    def __post_init__(self) -> None:
        for p in (self.start, self.stop):
            if p is not None and p <= 0:
                raise Refusal(f"importance to the power {p:g} prefers none to few; give powers above 0")

    def __call__(self, cost: Tensor, step: int) -> Tensor:
        last = self.start if self.stop is None else self.stop
        p = self.start + (last - self.start) * min(1.0, step / self.steps)
        return cost if p == 1 else (cost + TINY).pow(p) - TINY**p


@dataclass(frozen=True)
class SmoothL0(Power):
    """g² / (g² + width²), the width falling from `start` to `stop` by equal factors over so many steps (VPD)."""

    start: float = 1.0
    stop: float = 0.01
    steps: int = 1

    def __call__(self, cost: Tensor, step: int) -> Tensor:
        width = self.start * (self.stop / self.start) ** min(1.0, step / self.steps)
        return cost.pow(2) / (cost.pow(2) + width**2)


@dataclass(frozen=True)
class Minimal(Term):
    """The sum over parts of the mean importance, to a power; with `frequency`, more for parts that often matter.

    s + frequency * s log2(1 + n s) for a part of mean s over n rows: two rare mechanisms in one part cost more than
    each in its own (VPD).
    """

    power: Power = Lp()
    frequency: float = 0.0

    def __call__(self, now: Moment) -> Float[Tensor, "*seeds"]:
        each = [now.mean_parts(self.power(cost_of(z), now.step)) for z in now.look.gate.values()]
        s = torch.cat(each, -1)
        if self.frequency:
            s = s + self.frequency * s * torch.log2(1 + rows_of(now) * s)
        return s.sum(-1)


def rows_of(now: Moment) -> int:
    """How many rows a step sees."""
    first = next(iter(now.look.gate.values()))
    return first.shape[len(now.learned.lead) : -1].numel()
