"""Parts of weights in toy models of superposition: one for each feature, and two for an identity that none owns.

Bushnaq et al. 2025, Stochastic Parameter Decomposition (arXiv 2506.20790), with autoencoders of the same layer beside
it: which still stand when any combination of what is said not to matter is left out? No label chooses anything:
networks are kept by their own loss, beginnings by the decomposition's.
"""

from dataclasses import asdict, dataclass, field, replace

import torch

from microtome.notebook.page import Cell, Heading, Sentence, Table
from microtome.parameters.decompose import decompose
from microtome.parameters.objectives import Lp
from microtome.parameters.source import Occupied
from microtome.parameters.spd import SPD
from microtome.store.records import Claim
from microtome.studies.kept import Kept
from microtome.studies.spd_beside import OWN, Beside, Effort, beside
from microtome.studies.spd_found import Apart, Found, mean, share, taken_apart
from microtome.studies.study import Report, Setting, Study, Watch, about, at_least, at_most
from microtome.toys import Sparse, Superposition
from microtome.toys.toy import learn

PAPER = "Bushnaq et al. 2025, arXiv 2506.20790"
DENSITY = 0.05
UNSEEN = 100  # added to the seed: the methods' settings were chosen on the networks of seeds 0 and 1


@dataclass(frozen=True)
class Toys:
    """Networks of one shape: how many are trained, how many of them kept (those of least loss), and how they learn."""

    features: int
    hidden: int
    trained: int
    kept: int
    steps: int = 5000
    rows: int = 1024

    def __str__(self) -> str:
        return f"{self.features} in {self.hidden}"


@dataclass(frozen=True)
class Experiment:
    """Networks, how they are taken apart, alone and with an identity between, and from how many beginnings each.

    `within`: how far relative lengths may be from 1. `seconds`: of the process, for one network.
    """

    toys: Toys
    method: SPD
    with_identity: SPD
    restarts: int
    within: float
    seconds: float


@dataclass(frozen=True)
class Size:
    """How much is done. `wide` may be left out."""

    narrow: Experiment
    wide: Experiment | None
    effort: Effort = field(default_factory=Effort)


WIDE = SPD(parts=80, minimal=1e-4, power=Lp(2.0), steps=3000, rows=256)  # the paper's cost of mattering
FULL = Size(
    Experiment(Toys(5, 2, trained=24, kept=10), SPD(), SPD(), restarts=2, within=0.02, seconds=24.0),
    Experiment(
        Toys(40, 10, trained=3, kept=3, steps=4000), WIDE, WIDE, restarts=1, within=0.03, seconds=900.0
    ),
)  # fmt: skip
QUICK = Size(
    Experiment(
        Toys(5, 2, trained=6, kept=2, steps=2000, rows=256), SPD(steps=1000), SPD(steps=1000), restarts=2, within=0.02,
        seconds=24.0,
    ),
    wide=None, effort=Effort((20, 40), steps=600, gate_steps=300),
)  # fmt: skip


class Spd(Study):
    name = "spd"
    paper = "Bushnaq et al. 2025, Stochastic Parameter Decomposition, arXiv 2506.20790"
    question = "Do weights come apart into one part for each feature, and stand any combination of the others left out?"

    def __init__(self, quick: Size = QUICK, full: Size = FULL):
        self.quick, self.full = quick, full

    def run(self, setting: Setting, watch: Watch) -> Report:
        size = self.quick if setting.quick else self.full
        bench = Bench(replace(setting, seed=setting.seed + UNSEEN), watch)
        plain, joined = bench.apart(size.narrow), bench.apart(size.narrow, identity=True)
        both = bench.beside(size.narrow, size.effort)
        claims = [
            *narrow_claims(size.narrow, plain),
            identity_claim(size.narrow, joined),
            *both.claims(size.narrow.toys.hidden),
        ]
        shown = [said(), *tables(size.narrow, plain, joined), *importances(plain.chosen[0])]
        if size.wide is not None:
            wide, wide_joined = bench.apart(size.wide), bench.apart(size.wide, identity=True)
            claims += [*wide_claims(size.wide, wide, wide_joined), identity_claim(size.wide, wide_joined)]
            shown += [Heading(f"{size.wide.toys}"), *tables(size.wide, wide, wide_joined)]
        return Report(tuple(claims), (*shown, *both.pieces()))


STUDY = Spd()


# ---------------------------------------------------------------- networks, and their parts


def networks(toys: Toys, setting: Setting, watch: Watch) -> Superposition:
    """Trained networks, those of least loss: in two dimensions many stop at four features of five."""
    generator = torch.Generator(setting.device).manual_seed(setting.seed)
    toy = Superposition(toys.features, toys.hidden, generator=generator, seeds=toys.trained)
    data = Sparse(toys.features, DENSITY, seeds=toys.trained)
    with watch.stage(f"train {toys.trained} networks of {toys.features} in {toys.hidden}", 1, "lots") as advance:
        learn(toy, data.batches(toys.rows, toys.steps, generator))
        advance(1)
    with torch.no_grad():
        x = Sparse(toys.features, DENSITY).draw(20_000, generator)
        missed = (toy(x.expand(toys.trained, -1, -1)) - x).pow(2).mean((1, 2))
    best = missed.argsort()[: toys.kept]
    watch.say(f"kept losses {', '.join(f'{v:.4f}' for v in missed[best].tolist())}")
    return toy.some(lambda weight: weight[best], toys.kept)


class Bench:
    """Where networks are trained once and taken apart. What was found before a stop is read, and not made again."""

    def __init__(self, setting: Setting, watch: Watch):
        self.setting, self.watch = setting, watch
        self._trained: dict[Toys, Superposition] = {}

    def apart(self, of: Experiment, *, identity: bool = False) -> Apart:
        method = of.with_identity if identity else of.method
        kept = Kept(self.setting.into / "found.jsonl", self._about(of, method) | {"restarts": of.restarts})
        name = f"{of.toys} with an identity" if identity else f"{of.toys}"
        return Apart.read(kept.of(name, lambda: self._taken_apart(of, method, identity, name).plain()))

    def beside(self, of: Experiment, effort: Effort) -> Beside:
        """The first network with an identity, its parts and autoencoders."""
        kept = Kept(self.setting.into / "found.jsonl", self._about(of, of.with_identity) | asdict(effort))
        return Beside.read(kept.of("beside", lambda: self._beside(of, effort).plain()))

    def _beside(self, of: Experiment, effort: Effort) -> Beside:
        toy, data = self._toy(of.toys, identity=True).one(0), Sparse(of.toys.features, DENSITY)
        sites, seed = ["encoder", "between", "decoder"], self.setting.seed
        generator = torch.Generator(self.setting.device).manual_seed(seed + 1)
        with self.watch.stage("take apart one for its autoencoders", of.with_identity.steps, "steps") as advance:
            one = decompose(toy, data, sites, method=of.with_identity, seeds=of.restarts, seed=seed, tell=advance)
        self.watch.say("train autoencoders and their gates, and look for harm")
        return beside(one, toy, Occupied(data, generator), of.with_identity.minimal, effort, generator)

    def _taken_apart(self, of: Experiment, method: SPD, identity: bool, name: str) -> Apart:
        toy, data = self._toy(of.toys, identity), Sparse(of.toys.features, DENSITY)
        with self.watch.stage(f"take apart {name}", method.steps, "steps") as advance:
            return taken_apart(toy, data, method, of.restarts, self.setting.seed, advance)

    def _toy(self, toys: Toys, identity: bool) -> Superposition:
        if toys not in self._trained:
            self._trained[toys] = networks(toys, self.setting, self.watch).untied()
        toy = self._trained[toys]
        return toy.with_between(torch.eye(toys.hidden, device=self.setting.device)) if identity else toy

    def _about(self, of: Experiment, method: SPD) -> dict[str, object]:
        """All that a result depends on."""
        said = {name: str(value) for name, value in vars(method).items() if name != "distance"}
        return {"seed": self.setting.seed, "toys": asdict(of.toys), "method": said}


# ---------------------------------------------------------------- what is claimed


def narrow_claims(of: Experiment, apart: Apart) -> tuple[Claim, ...]:
    found, name = apart.chosen, of.toys
    worst = max(f.encoder.worst for f in found)
    parts, errors = mean(found, lambda f: f.alive["encoder"]), mean(found, lambda f: sum(f.errors.values()))
    mmcs, ml2r = mean(found, lambda f: f.encoder.mmcs), mean(found, lambda f: f.encoder.ml2r)
    return (
        at_least(f"{name}: share of networks solved in every column and importance", 0.9,
                 share(found, lambda f: f.solved), source=OWN),
        about(f"{name}: mean cosine of columns (MMCS)", 1.0, mmcs, tolerance=0.01, source=PAPER),
        about(f"{name}: relative length of columns (ML2R)", 1.0, ml2r, tolerance=of.within, source=PAPER),
        at_most(f"{name}: largest relative error of an encoder's column", 0.1, worst, source=OWN),
        about(f"{name}: parts that matter in the encoder", float(of.toys.features), parts, tolerance=0.0, source=PAPER),
        about(f"{name}: errors of importance, both weights", 0.0, errors, tolerance=0.0, source=PAPER),
        seconds_claim(of, f"{name}", apart),
    )  # fmt: skip


def identity_claim(of: Experiment, apart: Apart) -> Claim:
    exact = share(apart.chosen, lambda f: f.alive["between"] == of.toys.hidden)
    name = f"{of.toys} with an identity: share of networks with exactly {of.toys.hidden} parts for it"
    return at_least(name, 0.9, exact, source=PAPER)


def wide_claims(of: Experiment, plain: Apart, joined: Apart) -> tuple[Claim, ...]:
    """Of the worst network."""
    made: list[Claim] = []
    for name, apart in ((f"{of.toys}", plain), (f"{of.toys} with an identity", joined)):
        found = [f.encoder for f in apart.chosen]
        least, longest = min(f.mmcs for f in found), max((f.ml2r for f in found), key=lambda r: abs(r - 1))
        made += [
            at_least(f"{name}: mean cosine of columns (MMCS), worst network", 0.99, least, source=PAPER),
            about(f"{name}: relative length (ML2R), worst network", 1.0, longest, tolerance=of.within, source=PAPER),
            seconds_claim(of, name, apart),
        ]
    return tuple(made)


def seconds_claim(of: Experiment, name: str, apart: Apart) -> Claim:
    each = apart.seconds / len(apart.each)
    return at_most(f"{name}: seconds of the process for a network", of.seconds, each, source=OWN)


# ---------------------------------------------------------------- what is shown


def said() -> Sentence:
    return Sentence(
        "Each row is a network of its own, its decomposition chosen among several beginnings by its own loss. The mean "
        "cosine alone hides a feature that no part has, so the worst column's relative error and the errors of "
        "importance on one feature at a time stand beside it. The last column has the parts of an identity between."
    )


def tables(of: Experiment, plain: Apart, joined: Apart) -> tuple[Table, Sentence]:
    rows = [
        [str(i), f"{f.encoder.mmcs:.4f}", f"{f.encoder.ml2r:.3f}", f"{f.encoder.worst:.3f}", f"{f.decoder.worst:.3f}",
         str(f.alive["encoder"]), str(sum(f.errors.values())), "yes" if f.solved else "no", str(t.alive["between"])]
        for i, (f, t) in enumerate(zip(plain.chosen, joined.chosen, strict=True))
    ]  # fmt: skip
    head = ("network", "MMCS", "ML2R", "worst in", "worst out", "parts", "errors", "solved", "identity")
    return Table(head, rows, numeric=tuple(range(1, 7))), odds(of, plain, joined)


def odds(of: Experiment, plain: Apart, joined: Apart) -> Sentence:
    """How often one beginning is enough."""
    solved = sum(f.solved for f in plain.all)
    exact = sum(f.alive["between"] == of.toys.hidden for f in joined.all)
    return Sentence(
        f"Of single beginnings {solved} of {len(plain.all)} are solved, and {exact} of {len(joined.all)} have "
        f"{of.toys.hidden} parts for the identity. Taken apart in {plain.seconds:.0f} seconds of the process, with an "
        f"identity in {joined.seconds:.0f}."
    )


def importances(found: Found) -> tuple[Heading, Table]:
    """The paper's figure: parts that matter, in the order of the features that they matter to."""
    rows = [
        [str(i), *(Cell(f"{v:.2f}", shade=min(v, 1.0)) for v in row)] for i, row in enumerate(ordered(found.importance))
    ]
    title = "How important each part of the first encoder is, one feature at a time"
    return Heading(title), Table(("feature", *map(str, range(len(rows[0]) - 1))), rows, numeric=(1,))


def ordered(importance: list[list[float]]) -> list[list[float]]:
    """Columns above .1 somewhere, by the row at which they are largest."""
    g = torch.tensor(importance)
    shown = g[:, (g > 0.1).any(0)]
    return shown[:, shown.argmax(0).argsort()].tolist()
