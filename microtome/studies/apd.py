"""Parts across all weights by their attributions: they point the right way, and are smaller than the truth.

Braun et al. 2025, Interpretability in Parameter Space (arXiv 2501.14926), on its toy models of superposition. What a
row does not use can be left out and what it uses cannot: the paper's test, after causal scrubbing.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.notebook.page import Sentence, Table
from microtome.parameters.apd import APD, attributions, matrices, most_attributed, scrubbed
from microtome.parameters.decompose import Decomposition, decompose_each
from microtome.parameters.matching import Columns, columns
from microtome.parameters.source import Occupied
from microtome.store.records import Claim
from microtome.studies.chart import Chart, Series
from microtome.studies.spd import DENSITY, Toys, networks
from microtome.studies.study import Report, Setting, Study, Watch, about, at_least
from microtome.toys import Sparse, Superposition

PAPER = "Braun et al. 2025, arXiv 2501.14926"


@dataclass(frozen=True)
class Experiment:
    """Networks of one shape, how they are taken apart, and how small the paper found the parts (ML2R)."""

    toys: Toys
    method: APD
    seeds: int
    shrunk: float


WIDE = APD(
    parts=50, rank=1, k=2.0, minimal=10.0, simple=15.0, power=0.9, lr=1e-3, steps=4000, rows=256, of_parts=False,
)  # fmt: skip
FULL = (
    Experiment(Toys(5, 2, trained=12, kept=3), APD(), 3, 0.893),
    Experiment(Toys(40, 10, trained=1, kept=1, steps=4000), WIDE, 1, 0.935),
)
QUICK = (Experiment(Toys(5, 2, trained=4, kept=1, steps=2000, rows=256), APD(), 1, 0.893),)


class Outcome(NamedTuple):
    """Columns of each kept network's encoder, and outputs' errors with unrelated and with related parts left out."""

    name: str
    found: list[Columns]
    spared: Float[Tensor, "rows"]
    hurt: Float[Tensor, "rows"]

    @property
    def separation(self) -> float:
        """The chance that leaving out what a row uses moves its output more (AUROC)."""
        more = (self.hurt[:, None] > self.spared[None]).float() + 0.5 * (self.hurt[:, None] == self.spared[None])
        return float(more.mean())


class Apd(Study):
    name = "apd"
    paper = "Braun et al. 2025, Interpretability in Parameter Space (APD), arXiv 2501.14926"
    question = "Do parts found by their attributions point along the features, and are they smaller than these?"

    def __init__(self, quick: tuple[Experiment, ...] = QUICK, full: tuple[Experiment, ...] = FULL):
        self.quick, self.full = quick, full

    def run(self, setting: Setting, watch: Watch) -> Report:
        outcomes = [carried_out(one, setting, watch) for one in (self.quick if setting.quick else self.full)]
        experiments = self.quick if setting.quick else self.full
        judged = [c for one, outcome in zip(experiments, outcomes, strict=True) for c in claims(one, outcome)]
        return Report(tuple(judged), (said(), table(outcomes), *map(histogram, outcomes)))


STUDY = Apd()


def carried_out(one: Experiment, setting: Setting, watch: Watch) -> Outcome:
    toy = networks(one.toys, setting, watch)
    data, name = Sparse(one.toys.features, DENSITY), f"{one.toys.features} in {one.toys.hidden}"
    with watch.stage(f"take apart {name}", one.method.steps, "steps") as advance:
        apart = decompose_each(
            toy, data, ["encoder"], method=one.method, seeds=one.seeds, seed=setting.seed, tell=advance
        )
    found = [encoder(d, toy.one(i), one.method.parts) for i, d in enumerate(apart)]
    generator = torch.Generator(setting.device).manual_seed(setting.seed + 1)
    feed = Occupied(data, generator)
    x = feed.batch(1024, (), generator).x[1:]
    return Outcome(name, found, *scrubs(apart[0], x, one.method, one.method.k_of(feed), generator))


def encoder(one: Decomposition, toy: Superposition, parts: int) -> Columns:
    return columns(matrices(one.parts, 0, parts), toy.encoder.detach())


def scrubs(
    one: Decomposition, x: Float[Tensor, "rows features"], method: APD, k: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Errors with half of the unrelated parts left out, and with the related ones left out as well.

    Rows that use no part are left aside: nothing is related to them.
    """
    used = most_attributed(attributions(one.parts, x, method.parts, method.of_parts), k)
    some = used.any(-1)
    x, used = x[some], used[some]
    with torch.no_grad():
        spared = scrubbed(one.parts, x, used, generator)
        return spared, scrubbed(one.parts, x, used, generator, against=True)


# ---------------------------------------------------------------- what they show


def claims(one: Experiment, outcome: Outcome) -> tuple[Claim, ...]:
    count, name = len(outcome.found), outcome.name
    mmcs, ml2r = (sum(getattr(f, key) for f in outcome.found) / count for key in ("mmcs", "ml2r"))
    return (
        at_least(f"{name}: mean cosine of columns (MMCS)", 0.99, mmcs, source=PAPER),
        about(f"{name}: relative length of columns (ML2R)", one.shrunk, ml2r, tolerance=0.03, source=PAPER),
        at_least(f"{name}: related against unrelated parts left out (AUROC)", 0.95, outcome.separation, source=PAPER),
    )


def said() -> Sentence:
    return Sentence(
        "A relative length below 1 is shrinkage: the cost of being simple makes each part smaller than the feature's "
        "column, and the others make up for it."
    )


def table(outcomes: list[Outcome]) -> Table:
    rows = [
        [f"{o.name}, network {i}", f"{c.mmcs:.4f}", f"{c.ml2r:.3f}", f"{c.worst:.3f}"]
        for o in outcomes for i, c in enumerate(o.found)
    ]  # fmt: skip
    return Table(("network", "MMCS", "ML2R", "worst column's error"), rows, numeric=(1, 2, 3))


def histogram(outcome: Outcome, bins: int = 30) -> Chart:
    """The paper's histograms, on logarithmic axes: how many rows (plus one) have an error of this size."""
    both = torch.cat((outcome.spared, outcome.hurt)).clamp(min=1e-9).log10()
    edges = torch.linspace(float(both.min()), float(both.max()) + 1e-6, bins + 1)
    middle = (10 ** ((edges[1:] + edges[:-1]) / 2)).tolist()
    named = (("unrelated left out", outcome.spared), ("related left out", outcome.hurt))
    series = [Series(name, middle, counted(e, edges), i) for i, (name, e) in enumerate(named)]
    return Chart(f"{outcome.name}: parts left out", "mean square error of the output", "rows + 1", series)


def counted(errors: Float[Tensor, "rows"], edges: Float[Tensor, "edges"]) -> list[float]:
    """One more than how many errors lie between edges, which are powers of ten."""
    low, high = edges[0].item(), edges[-1].item()
    return (torch.histc(errors.clamp(min=1e-9).log10(), len(edges) - 1, low, high) + 1).tolist()
