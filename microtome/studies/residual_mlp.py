"""Compressed computation taken apart: a part for each feature where it is read, for each neuron where written.

Bushnaq et al. 2025, Stochastic Parameter Decomposition (arXiv 2506.20790), on residual MLPs of one to three layers (it
is no computation in superposition, see `microtome.toys.residual_mlp`). How often it succeeds is not in the paper: with
more layers every network is published here, whatever was found.
"""

import time
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.schedule import Cosine
from microtome.notebook.page import Heading, Sentence, Table
from microtome.parameters.decompose import Decomposition, decompose
from microtome.parameters.matching import alive, dense_error, identity_error, one_hot
from microtome.parameters.objectives import Lp
from microtome.parameters.occurring import FromInputs
from microtome.parameters.scoreboard import scoreboard
from microtome.parameters.source import Occupied
from microtome.parameters.spd import SPD
from microtome.store.records import Claim
from microtome.studies.kept import Kept
from microtome.studies.spd import UNSEEN
from microtome.studies.study import Report, Setting, Study, Watch, about, at_most
from microtome.toys import ResidualMLP, Sparse
from microtome.toys.named import compressed, drawn
from microtome.toys.toy import learn

PAPER, OWN = "Bushnaq et al. 2025, arXiv 2506.20790", "asked of this study; unpublished"
SPD_OF_ONE = SPD(  # the paper's rate and cost of mattering; it takes 30,000 steps of 2048 rows
    parts=100, minimal=1e-5, power=Lp(2.0), steps=4000, rows=512, lr=2e-3, begin=FromInputs()
)  # fmt: skip
SPD_OF_MORE = replace(SPD_OF_ONE, steps=2500, rows=256)
MINUTES = 45.0


@dataclass(frozen=True)
class Depth:
    """Networks of so many layers that share their neurons, how they learn and how each is taken apart."""

    layers: int
    networks: int
    method: SPD
    features: int = 100
    neurons: int = 50
    trained: int = 1000
    rows: int = 2048

    def __str__(self) -> str:
        return f"{self.layers} layer{'s' * (self.layers > 1)}"


FULL = (
    Depth(1, 5, SPD_OF_ONE),
    Depth(2, 5, SPD_OF_MORE),
    Depth(3, 5, replace(SPD_OF_MORE, parts=102, minimal=5e-6), features=102, neurons=51),
)
QUICK = (Depth(1, 1, replace(SPD_OF_ONE, parts=20, steps=300, rows=128), features=20, neurons=10, trained=300),)


class Found(NamedTuple):
    """One network, layer by layer: parts that matter and errors in which do, on one feature at a time.

    reading: of w_in, against one part for each feature. writing: of w_out, against as many as neurons. harm: by an
    adversary of 20 steps, for what leaving out all parts does. importance: (feature, part) of the first w_in.
    """

    reading: list[int]
    reading_errors: list[int]
    writing: list[int]
    writing_errors: list[int]
    harm: float
    seconds: float
    importance: list[list[float]]

    @property
    def solved(self) -> bool:
        return not sum(self.reading_errors) and not sum(self.writing_errors)


class Residual(Study):
    name = "residual_mlp"
    paper = "Bushnaq et al. 2025, Stochastic Parameter Decomposition, arXiv 2506.20790"
    question = "Does compressed computation come apart into a part for each feature, and how often with more layers?"

    def __init__(self, quick: tuple[Depth, ...] = QUICK, full: tuple[Depth, ...] = FULL):
        self.quick, self.full = quick, full

    def run(self, setting: Setting, watch: Watch) -> Report:
        unseen = replace(setting, seed=setting.seed + UNSEEN)
        found = [
            (of, [kept(of, number, unseen, watch) for number in range(of.networks)])
            for of in (self.quick if setting.quick else self.full)
        ]
        judged = [c for of, each in found if of.layers == 1 for c in claims(of, each)]
        solved = [success(of, each) for of, each in found]
        return Report(tuple(judged), (said(), *solved, table(found), *importances(found[0][1][0])))


STUDY = Residual()


# ---------------------------------------------------------------- one network


def kept(of: Depth, number: int, setting: Setting, watch: Watch) -> Found:
    """What was found of this network before, or what is found now."""
    settings = {name: str(value) for name, value in vars(of.method).items() if name != "distance"}
    about = asdict(replace(of, networks=0)) | {"method": settings, "seed": setting.seed}
    results = Kept(setting.into / "found.jsonl", about)
    return Found(**results.of(f"network {number}", lambda: taken_apart(of, number, setting, watch)._asdict()))


def taken_apart(of: Depth, number: int, setting: Setting, watch: Watch) -> Found:
    seed = setting.seed + number
    toy, data = trained(of, seed, watch), Sparse(of.features, 0.01, low=-1.0)
    begun = time.process_time()
    with watch.stage(f"take apart {of}, network {number}", of.method.steps, "steps") as advance:
        one = decompose(toy, data, ["layers.*"], method=of.method, seeds=1, seed=seed, tell=advance)
    return judged(one, of, time.process_time() - begun, seed)


def trained(of: Depth, seed: int, watch: Watch) -> ResidualMLP:
    toy = compressed(of.layers, seed, count=of.features, neurons=of.neurons)
    data = Sparse(of.features, 0.01, low=-1.0)
    watch.say(f"train a network of {of}")
    learn(toy, data.batches(of.rows, of.trained, drawn(seed + 1)), lr=3e-3, schedule=Cosine(0, of.trained))
    return toy.requires_grad_(False)


@torch.no_grad()
def judged(one: Decomposition, of: Depth, seconds: float, seed: int) -> Found:
    g = one.parts.look(one_hot(of.features)).importance
    reading, writing = ([g[name] for name in g if side in name] for side in ("w_in", "w_out"))
    generator = drawn(seed + 2)
    x = Occupied(Sparse(of.features, 0.01, low=-1.0), generator, counted=10_000).batch(512, (), generator).x
    score = scoreboard(one.parts, x, generator=generator)
    each = of.neurons // of.layers
    return Found(
        [alive(w) for w in reading], [identity_error(w) for w in reading], [alive(w) for w in writing],
        [dense_error(w, each) for w in writing], score.adversarial[20] / score.nothing, seconds, reading[0].tolist(),
    )  # fmt: skip


# ---------------------------------------------------------------- what is shown


def claims(of: Depth, found: list[Found]) -> tuple[Claim, ...]:
    """Of one layer: the means over networks."""
    count = len(found)
    read_by, errors = sum(f.reading[0] for f in found) / count, sum(f.reading_errors[0] for f in found) / count
    written, missed = sum(f.writing[0] for f in found) / count, sum(f.writing_errors[0] for f in found) / count
    features, neurons, longest = float(of.features), float(of.neurons), max(f.seconds for f in found) / 60
    return (
        about(f"{of}: parts that matter where features are read", features, read_by, tolerance=0.0, source=PAPER),
        about(f"{of}: errors of one part for each feature", 0.0, errors, tolerance=0.0, source=PAPER),
        about(f"{of}: parts that matter where features are written", neurons, written, tolerance=0.0, source=PAPER),
        about(f"{of}: errors of as many parts as neurons", 0.0, missed, tolerance=0.0, source=PAPER),
        at_most(f"{of}: minutes of the process, the longest", MINUTES, longest, source=OWN),
    )


def success(of: Depth, found: list[Found]) -> Sentence:
    return Sentence(f"{of}: {sum(f.solved for f in found)} of {len(found)} networks come apart without an error.")


def said() -> Sentence:
    return Sentence(
        "Errors are counted on one feature at a time. Where features are read, each should have one part in every "
        "layer: both signs of it, whichever neurons these drive. Where they are written no part can belong to one "
        "feature, as there are fewer neurons than features: as many parts as neurons should matter, and no others."
    )


def table(found: list[tuple[Depth, list[Found]]]) -> Table:
    head = ("network", "parts read", "errors", "parts written", "errors", "adversary", "solved", "seconds")
    rows = [
        [f"{of}, network {i}", joined(f.reading), joined(f.reading_errors), joined(f.writing),
         joined(f.writing_errors), f"{f.harm:.3f}", "yes" if f.solved else "no", f"{f.seconds:.0f}"]
        for of, each in found for i, f in enumerate(each)
    ]  # fmt: skip
    return Table(head, rows, numeric=(1, 2, 3, 4, 5, 7))


def joined(numbers: list[int]) -> str:
    return " + ".join(map(str, numbers))


def importances(found: Found, shown: int = 12) -> tuple[Heading, Table]:
    """The paper's figure as numbers: the first features, and the parts that matter most to each."""
    g: Float[Tensor, "features parts"] = torch.tensor(found.importance)[:shown]
    order = g.argmax(1).unique_consecutive()
    rows = [[str(i), *(f"{v:.2f}" for v in row)] for i, row in enumerate(g[:, order].tolist())]
    head = ("feature", *(f"part {int(c)}" for c in order))
    return Heading("How important parts are, one feature at a time"), Table(
        head, rows, numeric=tuple(range(1, len(head)))
    )
