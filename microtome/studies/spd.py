"""Parts of weights in toy models of superposition: one for each feature, and two for an identity that none owns.

Bushnaq et al. 2025, Stochastic Parameter Decomposition (arXiv 2506.20790), with a sparse autoencoder of the same layer
beside it: which of the two still stands when any combination of what is said not to matter is left out? No label
chooses anything: networks are kept by their own loss, seeds by the decomposition's.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.fit import fit
from microtome.core.site import Site
from microtome.dictionaries import recipes
from microtome.models.load import load
from microtome.notebook.page import Heading, Sentence, Table
from microtome.parameters.decompose import Decomposition, decompose_each
from microtome.parameters.gates import HingeGates
from microtome.parameters.matching import Columns, alive, columns, identity_error, one_hot
from microtome.parameters.objectives import Minimal, Stochastic, squared
from microtome.parameters.scoreboard import Score, scoreboard
from microtome.parameters.source import Occupied
from microtome.parameters.spd import SPD
from microtome.parameters.spliced import Spliced
from microtome.store.records import Claim
from microtome.studies.chart import Chart, Series
from microtome.studies.study import Report, Setting, Study, Watch, about, at_least, at_most
from microtome.toys import Sparse, Superposition
from microtome.toys.toy import learn

PAPER, OWN = "Bushnaq et al. 2025, arXiv 2506.20790", "asked of this study; unpublished"
DENSITY = 0.05


@dataclass(frozen=True)
class Toys:
    """Networks of one shape: how many are trained, how many of them kept (those of least loss), and how they learn."""

    features: int
    hidden: int
    trained: int
    kept: int
    steps: int = 5000
    rows: int = 1024


@dataclass(frozen=True)
class Size:
    """How much is done. `wide` may be left out."""

    narrow: Toys
    method: SPD
    seeds: int
    with_identity: SPD
    wide: Toys | None
    wide_method: SPD
    curve: tuple[int, ...]
    gate_steps: int


FULL = Size(
    narrow=Toys(5, 2, trained=24, kept=10), method=SPD(), seeds=2, with_identity=SPD(),
    wide=Toys(40, 10, trained=1, kept=1, steps=4000), curve=(20, 40, 80, 160, 320),
    wide_method=SPD(parts=80, minimal=1e-4, steps=3000, rows=512), gate_steps=2000,
)  # fmt: skip
QUICK = Size(
    narrow=Toys(5, 2, trained=6, kept=2, steps=2000, rows=256), method=SPD(steps=800), seeds=1,
    with_identity=SPD(steps=800), wide=None, wide_method=SPD(), curve=(20, 40), gate_steps=300,
)  # fmt: skip


class Found(NamedTuple):
    """What a decomposition of one network found: columns of both weights, errors of importance, parts that matter."""

    encoder: Columns
    decoder: Columns
    errors: dict[str, int]
    alive: dict[str, int]
    importance: Float[Tensor, "features parts"]  # of the encoder's parts, one feature at a time

    @property
    def solved(self) -> bool:
        """Every column of both weights, the encoder's lengths, a part a feature, no error of importance in either."""
        features = len(self.importance)
        whole = self.encoder.solved and self.decoder.worst < 0.1 and self.alive["encoder"] == features
        return whole and not self.errors["encoder"] and not self.errors["decoder"]


class Spd(Study):
    name = "spd"
    paper = "Bushnaq et al. 2025, Stochastic Parameter Decomposition, arXiv 2506.20790"
    question = "Do weights come apart into one part for each feature, and stand any combination of the others left out?"

    def __init__(self, quick: Size = QUICK, full: Size = FULL):
        self.quick, self.full = quick, full

    def run(self, setting: Setting, watch: Watch) -> Report:
        size = self.quick if setting.quick else self.full
        toys = networks(size.narrow, setting, watch).untied()
        plain = [found(d) for d in taken_apart(toys, size.method, size.seeds, setting, watch, "5 in 2")]
        identity = toys.with_between(torch.eye(size.narrow.hidden, device=setting.device))
        joined = taken_apart(identity, size.with_identity, size.seeds, setting, watch, "with an identity")
        twos = [found(d) for d in joined]
        both = side_by_side(joined[0], identity.one(0), size, setting)
        wide = list(wider(size, setting, watch))
        return Report(
            (
                *narrow_claims(plain),
                *identity_claims(twos, 2),
                *both.claims(),
                *wide_claims(wide, size.wide.hidden if size.wide else 0),
            ),
            (*pieces(plain, twos), *both.pieces()),
        )


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


def taken_apart(
    toy: Superposition, method: SPD, seeds: int, setting: Setting, watch: Watch, name: str
) -> list[Decomposition]:
    sites = ["encoder", "decoder"] if toy.between is None else ["encoder", "between", "decoder"]
    data = Sparse(toy.encoder.shape[-1], DENSITY)
    with watch.stage(f"take apart {name}", method.steps, "steps") as advance:
        return decompose_each(toy, data, sites, method=method, seeds=seeds, seed=setting.seed, tell=advance)


@torch.no_grad()
def found(one: Decomposition) -> Found:
    weights = dict(zip(one.parts.names, one.parts.weights(), strict=True))
    features = weights["encoder"].shape[1]
    g = one.parts.look(one_hot(features).to(weights["encoder"])).importance
    encoder = columns(one.at("encoder").matrices(), weights["encoder"])
    decoder = columns(one.at("decoder").matrices().mT, weights["decoder"].mT)
    errors = {name: identity_error(g[name]) for name in g}
    return Found(encoder, decoder, errors, {name: alive(g[name]) for name in g}, g["encoder"])


def wider(size: Size, setting: Setting, watch: Watch) -> Iterator[tuple[str, Found]]:
    """More features, alone and with an identity."""
    if size.wide is None:
        return
    toy = networks(size.wide, setting, watch).untied()
    name = f"{size.wide.features} in {size.wide.hidden}"
    yield name, found(taken_apart(toy, size.wide_method, 1, setting, watch, name)[0])
    joined = toy.with_between(torch.eye(size.wide.hidden, device=setting.device))
    name += " with an identity"
    yield name, found(taken_apart(joined, size.wide_method, 1, setting, watch, name)[0])


# ---------------------------------------------------------------- an autoencoder beside it


class Both(NamedTuple):
    """The same network's parts and latents under the same tests."""

    spd: Score
    sae: Score
    parts: int  # of the identity
    latents: int

    def claims(self) -> tuple[Claim, ...]:
        steps = min(self.spd.adversarial)
        harm = self.sae.adversarial[steps] / self.spd.adversarial[steps]
        split = self.latents / self.parts if self.parts else float("nan")
        return (
            at_least("latents of an autoencoder over parts of the identity", 1.5, split, source=OWN),
            at_least(f"harm by an adversary of {steps} steps, autoencoder over SPD", 2.0, harm, source=OWN),
            at_most(
                f"harm to SPD by an adversary of {steps} steps over leaving all parts out", 0.1,
                self.spd.adversarial[steps] / self.spd.nothing, source=OWN,
            ),
        )  # fmt: skip

    def pieces(self) -> tuple[Heading | Table | Chart, ...]:
        rows = [
            [name, *(f"{getattr(score, name):.2e}" for score in (self.spd, self.sae))]
            for name in ("whole", "importance", "stochastic", "nothing")
        ]
        rows += [["mean parts that matter a row", f"{self.spd.l0:.2f}", f"{self.sae.l0:.2f}"]]
        curves = [
            Series(name, list(s.adversarial), [max(v, 1e-9) for v in s.adversarial.values()], i)
            for i, (name, s) in enumerate(
                (("SPD, all three weights", self.spd), ("autoencoder, hidden layer", self.sae))
            )
        ]
        return (
            Heading("Any combination left out"),
            Table(("mean square error of the output", "SPD", "autoencoder"), rows, numeric=(1, 2)),
            Chart("What an adversary finds", "steps of ascent", "mean square error of the output", curves),
        )


def side_by_side(one: Decomposition, toy: Superposition, size: Size, setting: Setting) -> Both:
    """An autoencoder of the hidden layer, with gates learnt as SPD learns its own, and the decomposition's parts."""
    generator = torch.Generator(setting.device).manual_seed(setting.seed + 1)
    sae = autoencoder(toy, size, generator)
    x = Occupied(Sparse(size.narrow.features, DENSITY), generator).batch(512, (), generator).x
    scores = [scoreboard(m, x, generator=generator, curve=size.curve) for m in (one.parts, sae)]
    latents = next(iter(scores[1].alive.values()))
    return Both(scores[0], scores[1], scores[0].alive["between"], latents)


def autoencoder(toy: Superposition, size: Size, generator: torch.Generator) -> Spliced:
    """A TopK autoencoder, its one latent a row chosen among as many as SPD has parts, and gates learnt upon it."""
    model, site = load(toy, sites=toy.sites), Site("hidden", "batch d")
    feed = Occupied(Sparse(size.narrow.features, DENSITY), generator)

    @torch.no_grad()
    def hidden(rows: int) -> Tensor:
        return feed.batch(rows, (), generator).x @ toy.encoder.mT

    recipe = recipes.topk(site, hidden(4096), size.method.parts, 1, generator)
    steps = 2 * size.gate_steps
    for _ in fit(recipe.dictionary, (hidden(256) for _ in range(steps)), recipe.objective, lr=3e-3):
        pass
    spliced = Spliced(model, [recipe.dictionary], Site("y", "batch d"), HingeGates(), generator)
    objective = (Stochastic() + size.method.minimal * Minimal()).of(squared, generator)
    for _ in fit(spliced, feed.batches(128, size.gate_steps, (), generator), objective, lr=1e-2):
        pass
    return spliced


# ---------------------------------------------------------------- what they show


def share(of: list[Found], holds: Callable[[Found], bool]) -> float:
    return sum(map(holds, of)) / len(of)


def mean(of: list[Found], number: Callable[[Found], float]) -> float:
    return sum(map(number, of)) / len(of)


def narrow_claims(of: list[Found]) -> tuple[Claim, ...]:
    solved, worst = share(of, lambda f: f.solved), max(f.encoder.worst for f in of)
    mmcs, ml2r = mean(of, lambda f: f.encoder.mmcs), mean(of, lambda f: f.encoder.ml2r)
    parts, errors = mean(of, lambda f: f.alive["encoder"]), mean(of, lambda f: sum(f.errors.values()))
    return (
        at_least("5 in 2: share of networks solved in every column and importance", 0.9, solved, source=OWN),
        about("5 in 2: mean cosine of columns (MMCS)", 1.0, mmcs, tolerance=0.01, source=PAPER),
        about("5 in 2: relative length of columns (ML2R)", 1.0, ml2r, tolerance=0.02, source=PAPER),
        at_most("5 in 2: largest relative error of an encoder's column", 0.1, worst, source=OWN),
        about("5 in 2: parts that matter in the encoder", 5.0, parts, tolerance=0.0, source=PAPER),
        about("5 in 2: errors of importance, both weights", 0.0, errors, tolerance=0.0, source=PAPER),
    )


def identity_claims(of: list[Found], parts: int) -> tuple[Claim, ...]:
    exact = share(of, lambda f: f.alive["between"] == parts)
    return (
        at_least(f"with an identity: share of networks with exactly {parts} parts for it", 0.9, exact, source=PAPER),
    )


def wide_claims(of: list[tuple[str, Found]], hidden: int) -> tuple[Claim, ...]:
    made: list[Claim] = []
    for name, one in of:
        made += [
            at_least(f"{name}: mean cosine of columns (MMCS)", 0.99, one.encoder.mmcs, source=PAPER),
            about(f"{name}: relative length of columns (ML2R)", 1.0, one.encoder.ml2r, tolerance=0.03, source=PAPER),
        ]
        if "between" in one.alive:
            parts = float(one.alive["between"])
            made.append(about(f"{name}: parts of it", float(hidden), parts, tolerance=0.0, source=PAPER))
    return tuple(made)


def pieces(plain: list[Found], twos: list[Found]) -> tuple[Heading | Sentence | Table, ...]:
    rows = [
        [str(i), f"{f.encoder.mmcs:.3f}", f"{f.encoder.ml2r:.3f}", f"{f.encoder.worst:.3f}", f"{f.decoder.worst:.3f}",
         str(f.alive["encoder"]), str(sum(f.errors.values())), "yes" if f.solved else "no", str(t.alive["between"])]
        for i, (f, t) in enumerate(zip(plain, twos, strict=True))
    ]  # fmt: skip
    head = ("network", "MMCS", "ML2R", "worst in", "worst out", "parts", "errors", "solved", "identity's parts")
    return (
        Sentence(
            "Each row is a network of its own. The mean cosine alone hides a feature that no part has, so the worst "
            "column's relative error and the errors of importance on one feature at a time stand beside it."
        ),
        Table(head, rows, numeric=tuple(range(1, 7))),
        Heading("How important each part of the first encoder is, one feature at a time"),
        Table(("feature", *map(str, range(plain[0].alive["encoder"]))), matrix(plain[0].importance), numeric=(1,)),
    )


def matrix(importance: Float[Tensor, "features parts"]) -> list[list[str]]:
    """The paper's figure as numbers: parts that matter, in the order of the features that they matter to."""
    matters = (importance > 0.1).any(0)
    shown = importance[:, matters]
    shown = shown[:, shown.argmax(0).argsort()]
    return [[str(i), *(f"{v:.2f}" for v in row)] for i, row in enumerate(shown.tolist())]
