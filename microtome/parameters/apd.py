"""Attribution-based parameter decomposition: parts that span all weights at once, few of which are used on any input.

Braun et al. 2025, Interpretability in Parameter Space (arXiv 2501.14926): parts sum to the network (faithful), few
suffice on any input (minimal), and each is of low rank (simple). Which are used is decided by their attributions,
the k largest a row on average over a batch. Its parts come out smaller than the truth, which SPD mends: what a part
lacks can stand in the others, where it costs nothing as long as they are not used.
"""

# pyright: reportUnknownMemberType=false

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from microtome.core.errors import Refusal
from microtome.core.fit import fit
from microtome.core.schedule import Cosine, Schedule, WarmUp
from microtome.interventions.masks import Masks
from microtome.parameters.addresses import Address
from microtome.parameters.decompose import Learnt, Method, Tell, silent
from microtome.parameters.decomposed import Decomposed, Given
from microtome.parameters.objectives import Weighted, squared
from microtome.parameters.source import Occupied, Source
from microtome.parameters.spanning import OfGradients, Span, Start

SAMPLE = 512  # rows that parts begin from, and more for many parts
TINY = 1e-12  # under a power below one, whose slope at zero is not finite


@dataclass(frozen=True)
class APD(Method):
    """faithful + beta minimal + alpha simple; parts of at most `rank` in each weight; `k` parts a row on average.

    faithful and simple are sums over all numbers and ranks, both over how many numbers the weights hold (the paper
    writes so of faithful alone; its coefficients are for both). The defaults' k, coefficients and power are the paper's
    for five features in two dimensions, whose weights are tied. It takes 20,000 steps of 2048 rows from drawn parts, at
    3e-2; with parts that begin as gradients, rows that are not empty and a falling rate, far fewer do. `of_parts` takes
    attributions in the network that the parts make up, as that experiment needed; else in the network itself. While it
    learns, `probes` estimates them from so many random directions of the output in the place of all outputs. Raises
    Refusal for k outside (0, parts].
    """

    parts: int = 5
    rank: int = 2
    k: float = 0.211
    faithful: float = 1.0
    minimal: float = 1.0
    simple: float = 0.7
    power: float = 1.0
    steps: int = 600  # pyright: ignore[reportIncompatibleMethodOverride]
    rows: int = 128
    lr: float = 1e-2
    warm: float = 0.05
    cosine: bool = True
    of_parts: bool = True
    probes: int | None = None
    start: Start = field(default_factory=OfGradients)

    def __post_init__(self) -> None:
        if not 0 < self.k <= self.parts:
            raise Refusal(
                f"{self.k:g} of {self.parts} parts cannot be used on a row; give k above 0, at most {self.parts}"
            )
        if self.power <= 0:
            raise Refusal(f"a Schatten norm to the power {self.power:g} prefers no rank to another; give one above 0")

    def learn(
        self,
        module: nn.Module,
        addresses: Sequence[Address],
        source: Source,
        lead: tuple[int, ...],
        generator: torch.Generator,
        tell: Tell = silent,
    ) -> Learnt:
        feed = Occupied(source, generator)
        span = Span(module, addresses, self.parts, self.rank, lead)
        sample = feed.batch(max(SAMPLE, 32 * self.parts), lead, generator).x
        learned = Decomposed(module, addresses, self.start.factors(span, sample, generator))
        objective = Objective(replace(self, k=self.k_of(feed)), generator)
        batches = feed.batches(self.rows, self.steps, lead, generator)
        for step in fit(learned, batches, objective, lr=self.lr, schedule=self.schedule()):
            tell(step.index)
        losses = objective.by_seed(learned, feed.batch(self.rows, lead, generator))
        return Learnt(learned, torch.stack(list(losses.values())).sum(0).detach().reshape(-1))

    def k_of(self, feed: Occupied) -> float:
        """Parts used by a row that is not empty: empty rows use none."""
        return min(self.k / (1 - feed.empty), self.parts)

    def schedule(self) -> Schedule:
        warm = WarmUp(int(self.warm * self.steps))
        return warm * Cosine(0, self.steps) if self.cosine else warm


class Objective:
    """Faithful, minimal and simple, for `fit`: each by seed, and summed."""

    def __init__(self, method: APD, generator: torch.Generator | None = None):
        self.method, self.generator = method, generator

    def __call__(self, learned: nn.Module, batch: Weighted) -> dict[str, Tensor]:
        assert isinstance(learned, Decomposed)
        return {name: value.sum() for name, value in self.by_seed(learned, batch).items()}

    def by_seed(self, learned: Decomposed, batch: Weighted) -> dict[str, Float[Tensor, "*seeds"]]:
        method = self.method
        each = attributions(learned, batch.x, method.parts, method.of_parts, method.probes, self.generator)
        used = most_attributed(each, method.k)
        missed = squared(learned.run(batch.x, of_parts(learned, used)), learned.look(batch.x).output)
        ranks = schatten(lengths(learned, method.parts), method.power) / learned.numbers
        often = torch.einsum("...rc,r->...c", used, batch.weight)
        return {
            "faithful": method.faithful * learned.unfaithful(),
            "minimal": method.minimal * (missed @ batch.weight),
            "simple": method.simple * (often * ranks).sum(-1),
        }


def schatten(sizes: list[Float[Tensor, "*seeds parts rank"]], power: float) -> Float[Tensor, "*seeds parts"]:
    """The sum of singular values to a power, over the ranks of every weight."""
    return torch.stack([(s.pow(2) + TINY).pow(power / 2).sum(-1) for s in sizes]).sum(0)


def lengths(learned: Decomposed, parts: int) -> list[Float[Tensor, "*seeds parts rank"]]:
    """|write| |read| of every rank of every part, weight by weight: its singular values where the ranks are apart."""
    factors = [learned.of(i) for i in range(len(learned.addresses))]
    return [(f.read.norm(dim=-1) * f.write.norm(dim=-1)).unflatten(-1, (parts, -1)) for f in factors]


def of_parts(learned: Decomposed, used: Float[Tensor, "*rows parts"], rest: float = 0.0) -> Masks:
    """One mask for each part, the same at every weight and rank."""
    masks: dict[str, Tensor] = {}
    for place, name in enumerate(learned.names):
        rank = learned.of(place).read.shape[-2] // used.shape[-1]
        masks[name] = used.repeat_interleave(rank, -1)
    if not rest:
        return Masks(masks)
    return Masks(masks, {name: torch.full_like(used[..., :1], rest) for name in learned.names})


@torch.enable_grad()
def attributions(
    learned: Decomposed,
    x: Given,
    parts: int,
    of_the_parts: bool = False,
    probes: int | None = None,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "*rows parts"]:
    """The sum over outputs of (gradient of the output in all weights . part)²: what each part does on each row.

    A part is a direction in the space of weights, so its attribution is the slope of the output in the part's mask.
    The mean over `probes` random signs of the outputs has the same expectation, at the cost of as many outputs.
    """
    assert isinstance(x, Tensor)
    rows = x.shape[:-1]
    mask = torch.ones(*rows, parts, device=x.device, dtype=x.dtype, requires_grad=True)
    output = learned.run(x, of_parts(learned, mask, 0.0 if of_the_parts else 1.0))
    each = outputs(output, probes, generator)
    each = each.view(-1, *[1] * (output.ndim - 1), output.shape[-1]).expand(-1, *output.shape)
    (slopes,) = torch.autograd.grad(output, mask, each, is_grads_batched=True)  # one for each output
    return slopes.pow(2).sum(0)


def outputs(
    output: Float[Tensor, "*rows out"], probes: int | None, generator: torch.Generator | None
) -> Float[Tensor, "probes out"]:
    """One row for each output or, where these are more than `probes`, random signs of all of them."""
    out, like = output.shape[-1], {"device": output.device, "dtype": output.dtype}
    if probes is None or probes >= out:
        return torch.eye(out, **like)
    signs = torch.randint(2, (probes, out), generator=generator, device=output.device)
    return (2 * signs - 1).to(output) / probes**0.5


def most_attributed(attribution: Float[Tensor, "*seeds rows parts"], k: float) -> Float[Tensor, "*seeds rows parts"]:
    """1 for the k largest a row, on average over the batch of each seed, and 0 for the others."""
    flat = attribution.flatten(-2)
    count = max(1, round(k * attribution.shape[-2]))
    chosen = torch.zeros_like(flat).scatter(-1, flat.topk(count, -1).indices, 1.0)
    return (chosen * (flat > 0)).view_as(attribution)


def matrices(learned: Decomposed, place: int, parts: int) -> Float[Tensor, "*seeds parts out in"]:
    """Every part in one weight, its ranks summed."""
    factors = learned.of(place)
    write, read = (f.unflatten(-2, (parts, -1)) for f in (factors.write, factors.read))
    return write.mT @ read


def scrubbed(
    learned: Decomposed,
    x: Float[Tensor, "*seeds rows d"],
    used: Float[Tensor, "*seeds rows parts"],
    generator: torch.Generator,
    *,
    against: bool = False,
) -> Float[Tensor, "*seeds rows"]:
    """How far outputs move when half of the unrelated parts are left out, and, `against`, the related ones as well.

    Braun et al.'s test by causal scrubbing: the second should do harm where the first does not.
    """
    half = torch.rand(used.shape, generator=generator, device=used.device) < 0.5
    keep = torch.where(used > 0, torch.full_like(used, 0.0 if against else 1.0), half.to(used))
    return squared(learned.run(x, of_parts(learned, keep, 0.0)), learned.look(x).output)
