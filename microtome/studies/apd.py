"""Parts across all weights by their attributions: they point the right way, and are smaller than the truth.

Braun et al. 2025, Interpretability in Parameter Space (arXiv 2501.14926), on its toy models of superposition, on two
residual MLPs that compute together, and on gated functions set by hand. What a row does not use can be left out and
what it uses cannot: the paper's test, after causal scrubbing. What was found before a stop is read, and not made again.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from microtome.notebook.page import Heading, Sentence, Table
from microtome.parameters.apd import APD, matrices
from microtome.parameters.decompose import Decomposition, decompose_each
from microtome.parameters.matching import Columns, columns
from microtome.parameters.source import Occupied
from microtome.store.records import Claim
from microtome.studies.apd_across import GATED, RESIDUAL, Across, Spanned, spanned
from microtome.studies.apd_scrubs import Scrubs, scrubs
from microtome.studies.kept import Kept
from microtome.studies.spd import DENSITY, UNSEEN, Toys, networks
from microtome.studies.spd_found import columns_of
from microtome.studies.study import Report, Setting, Study, Watch, about, at_least
from microtome.toys import Sparse, Superposition
from microtome.toys.named import drawn

PAPER = "Braun et al. 2025, arXiv 2501.14926"


@dataclass(frozen=True)
class Experiment:
    """Networks of one shape, how they are taken apart, and how small the paper found the parts (ML2R)."""

    toys: Toys
    method: APD
    seeds: int
    shrunk: float


@dataclass(frozen=True)
class Size:
    """How much is done: networks in superposition, and networks whose layers compute together."""

    superposed: tuple[Experiment, ...]
    across: tuple[Across, ...]


WIDE = APD(
    parts=50, rank=1, k=2.0, minimal=10.0, simple=15.0, power=0.9, lr=3e-3, steps=1000, rows=256, of_parts=False,
    probes=10,
)  # fmt: skip
FULL = Size(
    (
        Experiment(Toys(5, 2, trained=12, kept=3), APD(steps=2400), 3, 0.893),
        Experiment(Toys(40, 10, trained=3, kept=3, steps=4000), WIDE, 1, 0.935),
    ),
    (RESIDUAL, GATED),
)
QUICK = Size(
    (Experiment(Toys(5, 2, trained=4, kept=1, steps=2000, rows=256), APD(), 1, 0.893),),
    (replace(GATED, networks=1, seeds=2, method=replace(GATED.method, steps=300)),),
)


class Outcome(NamedTuple):
    """Columns of each network's encoder, what leaving out parts does to it, and the process's seconds for all."""

    found: list[Columns]
    scrubs: list[Scrubs]
    seconds: float

    def plain(self) -> dict[str, Any]:
        scrubbed = [s.plain() for s in self.scrubs]
        return {"found": [asdict(c) for c in self.found], "scrubs": scrubbed, "seconds": self.seconds}

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> "Outcome":
        found = [columns_of(c) for c in plain["found"]]
        return cls(found, [Scrubs.read(s) for s in plain["scrubs"]], plain["seconds"])


class Apd(Study):
    name = "apd"
    paper = "Braun et al. 2025, Interpretability in Parameter Space (APD), arXiv 2501.14926"
    question = "Do parts found by their attributions point along the features, and are they smaller than these?"

    def __init__(self, quick: Size = QUICK, full: Size = FULL):
        self.quick, self.full = quick, full

    def run(self, setting: Setting, watch: Watch) -> Report:
        size = self.quick if setting.quick else self.full
        bench = Bench(replace(setting, seed=setting.seed + UNSEEN), watch)
        outcomes = [(one, bench.superposed(one)) for one in size.superposed]
        spans = [(of, [bench.across(of, i) for i in range(of.networks)]) for of in size.across]
        judged = [c for one, outcome in outcomes for c in claims(one, outcome)]
        judged += [c for of, found in spans for c in across_claims(of, found)]
        drawings = [outcome.scrubs[0].histogram(f"{one.toys}") for one, outcome in outcomes]
        drawings += [found[0].scrubs.histogram(of.kind) for of, found in spans]
        across = Heading("Functions that layers compute together"), across_table(spans)
        return Report(tuple(judged), (said(), table(outcomes), *across, scrubbing(), *drawings))


STUDY = Apd()


class Bench:
    """Where networks are trained and taken apart. Each result is kept as it comes."""

    def __init__(self, setting: Setting, watch: Watch):
        self.setting, self.watch = setting, watch

    def superposed(self, one: Experiment) -> Outcome:
        kept = self._kept({"toys": asdict(one.toys), "seeds": one.seeds}, one.method)
        return Outcome.read(kept.of(f"{one.toys}", lambda: carried_out(one, self.setting, self.watch).plain()))

    def across(self, of: Across, number: int) -> Spanned:
        kept = self._kept({"trained": [of.trained, of.rows], "seeds": of.seeds}, of.method)
        name = f"{of.kind}, network {number}"
        return Spanned.read(kept.of(name, lambda: spanned(of, number, self.setting, self.watch).plain()))

    def _kept(self, about: dict[str, object], method: APD) -> Kept:
        said = {name: str(value) for name, value in vars(method).items()}
        return Kept(self.setting.into / "found.jsonl", about | {"seed": self.setting.seed, "method": said})


def carried_out(one: Experiment, setting: Setting, watch: Watch) -> Outcome:
    toy = networks(one.toys, setting, watch)
    begun, data = time.process_time(), Sparse(one.toys.features, DENSITY)
    with watch.stage(f"take apart {one.toys}", one.method.steps, "steps") as advance:
        apart = decompose_each(
            toy, data, ["encoder"], method=one.method, seeds=one.seeds, seed=setting.seed, tell=advance
        )
    found = [encoder(d, toy.one(i), one.method.parts) for i, d in enumerate(apart)]
    generator = drawn(setting.seed + 1)
    feed = Occupied(data, generator)
    x = feed.batch(1024, (), generator).x[1:]
    judged = [scrubs(d.parts, x, one.method, one.method.k_of(feed), generator) for d in apart]
    return Outcome(found, judged, time.process_time() - begun)


def encoder(one: Decomposition, toy: Superposition, parts: int) -> Columns:
    return columns(matrices(one.parts, 0, parts), toy.encoder.detach())


# ---------------------------------------------------------------- what they show


def claims(one: Experiment, outcome: Outcome) -> tuple[Claim, ...]:
    count, name = len(outcome.found), one.toys
    mmcs, ml2r = (sum(getattr(f, key) for f in outcome.found) / count for key in ("mmcs", "ml2r"))
    return (
        at_least(f"{name}: mean cosine of columns (MMCS)", 0.99, mmcs, source=PAPER),
        about(f"{name}: relative length of columns (ML2R)", one.shrunk, ml2r, tolerance=0.03, source=PAPER),
        apart(f"{name}", outcome.scrubs),
    )


def across_claims(of: Across, found: list[Spanned]) -> tuple[Claim, ...]:
    share = sum(f.share for f in found) / len(found)
    return (
        at_least(f"{of.kind}: share of functions with one part of their own, in both layers", 0.9, share, source=PAPER),
        apart(of.kind, [f.scrubs for f in found]),
    )


def apart(name: str, of: list[Scrubs]) -> Claim:
    mean = sum(s.separation for s in of) / len(of)
    return at_least(f"{name}: related against unrelated parts left out (AUROC)", 0.95, mean, source=PAPER)


def said() -> Sentence:
    return Sentence(
        "A relative length below 1 is shrinkage: the cost of being simple makes each part smaller than the feature's "
        "column, and the others make up for it."
    )


def scrubbing() -> Sentence:
    return Sentence(
        "Half of the parts that a row does not use are left out, and then those that it uses as well. The area under "
        "the curve compares all rows with all, and errors grow with the square of what is on, so a row on which little "
        "is on can hide behind one on which much is; within a row the two are compared with each other."
    )


def table(outcomes: list[tuple[Experiment, Outcome]]) -> Table:
    rows = [
        [f"{one.toys}, network {i}", f"{c.mmcs:.4f}", f"{c.ml2r:.3f}", f"{c.worst:.3f}", f"{s.separation:.3f}",
         f"{s.within_rows:.3f}", f"{o.seconds:.0f}"]
        for one, o in outcomes for i, (c, s) in enumerate(zip(o.found, o.scrubs, strict=True))
    ]  # fmt: skip
    head = ("network", "MMCS", "ML2R", "worst column's error", "AUROC", "within rows", "seconds for all")
    return Table(head, rows, numeric=tuple(range(1, len(head))))


def across_table(spans: list[tuple[Across, list[Spanned]]]) -> Table:
    head = ("network", "functions", "own part", "in both layers", "least held", "AUROC", "within rows", "seconds")
    rows = [
        [f"{of.kind}, network {i}", str(len(f.own)), str(sum(f.alone)), str(sum(f.everywhere)),
         f"{min(f.held):.2f}",
         f"{f.scrubs.separation:.3f}", f"{f.scrubs.within_rows:.3f}", f"{f.seconds:.0f}"]
        for of, found in spans for i, f in enumerate(found)
    ]  # fmt: skip
    return Table(head, rows, numeric=tuple(range(1, len(head))))
