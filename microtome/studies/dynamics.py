"""Is a learning coefficient estimated by chains the one that is known?

Powers of one weight and their products, whose coefficients are known by hand, and reduced-rank regression, whose are
known by a theorem. Watanabe 2009, Algebraic Geometry and Statistical Learning Theory; Aoyagi and Watanabe 2005; the
estimate is that of Lau et al. 2023, The Local Learning Coefficient (arXiv 2308.12108). Beside them stands how far a
toy's results move with what should not matter.
"""

import time
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from microtome.dynamics.chains import Chains, Langevin, Loss, Weights, calibrated, tempering
from microtome.dynamics.llc import LearningCoefficient, learning_coefficient
from microtome.notebook.page import Sentence, Table
from microtome.store.records import Claim
from microtome.studies.stability import Grid, trained
from microtome.studies.stability import pieces as pieces_of_grid
from microtome.studies.study import Report, Setting, Study, Watch, about, at_least
from microtome.toys.reduced_rank import ReducedRank
from microtome.toys.reduced_rank import learning_coefficient as known_coefficient

WATANABE, AOYAGI = "Watanabe 2009, Remark 7.1", "Aoyagi and Watanabe 2005"
CROSSINGS = ((1,), (2,), (3,), (1, 2), (1, 3))  # k of each weight: the smallest coefficient 1 / 2k stands once
RANKS = ((4, 2, 4, 2), (5, 4, 5, 2), (3, 3, 6, 1))  # inputs, hidden, outputs, rank of the teacher


@dataclass(frozen=True)
class Size:
    """`samples` only sets the temperature: losses are exact means over all inputs."""

    samples: int = 10_000
    chains: int = 200
    steps: int = 6000
    burn: int = 3000
    crossings: tuple[tuple[int, ...], ...] = CROSSINGS
    ranks: tuple[tuple[int, int, int, int], ...] = RANKS
    timed: int = 300  # steps of 20 chains, together and one by one
    grid: Grid = field(default_factory=Grid)


FULL = Size()
QUICK = Size(
    chains=100, steps=1200, burn=600, crossings=CROSSINGS[:3], ranks=RANKS[:1], timed=100, grid=Grid(seeds=4, steps=500)
)


class Case(NamedTuple):
    """A loss, its minimum and the coefficient that is known there."""

    name: str
    loss: Loss
    at: Weights
    known: float
    source: str


def crossing(powers: tuple[int, ...]) -> Case:
    """K(w) = product of w_i^2k_i, of coefficient 1 / (2 max k)."""
    k = torch.tensor(powers)

    def loss(weights: Weights, batch: object) -> Tensor:
        return weights["w"].pow(2 * k).prod(1)

    name = " ".join(f"w{i}^{2 * power}" for i, power in enumerate(powers, 1))
    return Case(name, loss, {"w": torch.zeros(len(powers), dtype=torch.float64)}, 1 / (2 * max(powers)), WATANABE)


def regression(inputs: int, hidden: int, outputs: int, rank: int, generator: torch.Generator) -> Case:
    """K(w) = |w_out w_in - teacher|^2 / 2: the mean over normal inputs of half the squared error."""
    toy = ReducedRank(inputs, hidden, outputs, rank, generator=generator).double()
    teacher = toy.teacher

    def loss(weights: Weights, batch: object) -> Tensor:
        return (weights["w_out"] @ weights["w_in"] - teacher).square().sum((1, 2)) / 2

    at = {name: w.detach() for name, w in toy.named_parameters()}
    name = f"rank {rank} through {inputs}, {hidden}, {outputs}"
    return Case(name, loss, at, known_coefficient(inputs, hidden, outputs, rank), AOYAGI)


def estimated(case: Case, size: Size, generator: torch.Generator) -> LearningCoefficient:
    """With a rate that was found automatically."""
    begun = Langevin(tempering(size.samples), rate=1e-3, localisation=0.1, adjusted=True)
    how = calibrated(case.loss, case.at, begun, generator=generator)
    return learning_coefficient(
        case.loss, case.at, how, chains=size.chains, steps=size.steps, burn=size.burn, generator=generator
    )


def speedup(case: Case, steps: int, generator: torch.Generator, chains: int = 20) -> float:
    """Processor time of chains one by one (in pairs with their baseline alone) over that of all in one program."""
    how = Langevin(tempering(10_000), rate=1e-5)

    def seconds(together: int, times: int) -> float:
        begun = time.process_time()
        for _ in range(times):
            walk = Chains(case.loss, case.at, how, chains=together, generator=generator).steps([None] * steps)
            for _ in walk:
                pass
        return time.process_time() - begun

    return seconds(1, chains) / seconds(chains, 1)


class Dynamics(Study):
    name = "dynamics"
    paper = "Lau et al. 2023, The Local Learning Coefficient, arXiv 2308.12108"
    question = "Do chains about a minimum find the learning coefficients that are known?"

    def __init__(self, quick: Size = QUICK, full: Size = FULL) -> None:
        self.quick, self.full = quick, full

    def run(self, setting: Setting, watch: Watch) -> Report:
        size = self.quick if setting.quick else self.full
        generator = torch.Generator().manual_seed(setting.seed)
        cases = [*map(crossing, size.crossings), *(regression(*r, generator) for r in size.ranks)]
        found: list[LearningCoefficient] = []
        with watch.stage("chains", len(cases), "cases") as advance:
            for case in cases:
                found.append(estimated(case, size, generator))
                advance(len(found))
        faster = speedup(cases[-1], size.timed, generator)
        with watch.stage("networks from other starts", len(size.grid.rates) * len(size.grid.sizes), "lots") as advance:
            others = trained(size.grid, setting.seed, advance)
        pieces = (Sentence(said(size)), table(cases, found), *pieces_of_grid(size.grid, others))
        return Report(claims(cases, found, faster), pieces)


STUDY = Dynamics()


def claims(cases: list[Case], found: list[LearningCoefficient], faster: float) -> tuple[Claim, ...]:
    """A coefficient whose chains are not healthy is no number, and its claim fails."""
    each = [
        about(
            f"learning coefficient of {case.name}", case.known, float("nan") if one.flags else one.estimate,
            tolerance=0.02 if case.source == WATANABE else 0.1 * case.known, source=case.source,
        )
        for case, one in zip(cases, found, strict=True)
    ]  # fmt: skip
    return *each, at_least("20 chains one by one over all in one program, time", 5.0, faster, source="budget")


def said(size: Size) -> str:
    return (
        f"{size.chains} chains of {size.steps:,} steps after {size.burn:,} burnt in, each step accepted as Metropolis "
        f"would, at the temperature of {size.samples:,} samples. Estimates are those of a finite sample: where the "
        "smallest coefficient stands twice (w1^2 w2^2), they lie below it by about 1 / log n, and no such case is here."
    )


def table(cases: list[Case], found: list[LearningCoefficient]) -> Table:
    rows = [
        [c.name, f"{c.known:.4f}", f"{f.estimate:.4f}", f"{f.error:.4f}", f"{f.acceptance:.0%}", "; ".join(f.flags)]
        for c, f in zip(cases, found, strict=True)
    ]
    return Table(("case", "known", "found", "error", "accepted", "flags"), rows, numeric=(1, 2, 3))
