"""Networks that were trained apart on the same task: do they have the same neurons and the same heads?

Small transformers learn sentences of the IOI grammar, each from a seed of its own. Their neurons are compared by their
activity on new sentences and their heads by where they look, pair by pair of networks, against a rotation null: the
same activity along other axes. Gurnee et al. 2024, Universal Neurons in GPT2 Language Models (arXiv 2401.12181), where
1 to 5% of neurons are universal across five seeds; the claim is that of Olah et al. 2020, Zoom In.
"""

# pyright: reportUnknownMemberType=false

from dataclasses import dataclass, field
from itertools import combinations
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.circuits.heads import name_movers
from microtome.circuits.universality import (
    Share,
    Universality,
    head_activity,
    interval,
    rotated,
    unit_activity,
    universality,
)
from microtome.core.inputs import Tokens
from microtome.data.pairs import Pairs
from microtome.models.hooked import HookedModel
from microtome.notebook.page import Sentence, Table
from microtome.store.records import Claim
from microtome.studies.chart import Chart, Series
from microtome.studies.study import Report, Setting, Study, Watch, at_least, at_most
from microtome.studies.taught import taught
from microtome.toys.talker import Lessons, Talker

GURNEE, OLAH = "Gurnee et al. 2024, arXiv 2401.12181", "Olah et al. 2020, Zoom In"
OURS = "a comparison that finds likeness everywhere finds none"


@dataclass(frozen=True)
class Size:
    """How many networks, how they learn, and how many new sentences they are seen on."""

    seeds: int = 5
    lessons: Lessons = field(default_factory=Lessons)
    rows: int = 200
    rotations: int = 10


FULL, QUICK = Size(), Size(seeds=2, lessons=Lessons(steps=500), rows=60, rotations=4)


class Kind(NamedTuple):
    """One kind of unit: every pair of networks, beside a rotated and an untrained one in place of the second."""

    name: str
    pairs: list[Universality]
    turned: list[Universality]
    untrained: list[Universality]


class AcrossSeeds(Study):
    name = "universality"
    paper = "Gurnee et al. 2024, Universal Neurons in GPT2 Language Models, arXiv 2401.12181"
    question = "Do networks that were trained apart have the same neurons and the same heads?"

    def __init__(self, quick: Size = QUICK, full: Size = FULL) -> None:
        self.quick, self.full = quick, full

    def run(self, setting: Setting, watch: Watch) -> Report:
        size = self.quick if setting.quick else self.full
        seeds = range(setting.seed, setting.seed + size.seeds)
        talkers = [taught("ioi", size.lessons, seed, setting.into, watch) for seed in seeds]
        fresh = Talker("ioi", size.lessons, setting.seed + size.seeds)
        generator = torch.Generator().manual_seed(setting.seed + 1)
        shown = talkers[0].pairs(size.rows, generator)
        kinds = [
            kind(name, [see(t.model, shown.clean) for t in (*talkers, fresh)], size, generator)
            for name, see in (("neurons", neurons), ("heads", head_activity))
        ]
        movers = [best_mover(t, shown) for t in talkers]
        return Report(claims(kinds, movers, generator),
                      (Sentence(said(kinds, size)), chart(kinds[0]), table(kinds, generator)))  # fmt: skip


STUDY = AcrossSeeds()


def neurons(model: HookedModel, tokens: Tokens) -> Float[Tensor, "rows units"]:
    return unit_activity(model, tokens, model.sites("mlp_act.*"))


def kind(name: str, seen: list[Float[Tensor, "rows units"]], size: Size, generator: torch.Generator) -> Kind:
    """The last of those seen is the untrained one."""
    *trained, fresh = seen

    def compared(first: Tensor, second: Tensor) -> Universality:
        return universality(first, second, generator, rotations=size.rotations)

    return Kind(
        name,
        [compared(first, second) for first, second in combinations(trained, 2)],
        [compared(first, rotated(second, generator)) for first, second in combinations(trained, 2)],
        [compared(first, fresh) for first in trained],
    )


def best_mover(talker: Talker, pairs: Pairs) -> float:
    """How much the last token attends to the answer, in the head that raises the answer's logit most."""
    found = name_movers(talker.model, pairs.clean, pairs.right, pairs.wrong)
    return float(found.attention.flatten()[found.direct_logit.argmax()])


# ---------------------------------------------------------------- what they show


def excess(found: list[Universality], generator: torch.Generator) -> Share:
    """Mean excess correlation over the units of all pairs."""
    return interval(torch.cat([u.excess for u in found]), generator, 1000)


def shares(found: list[Universality], generator: torch.Generator) -> Share:
    return interval(torch.cat([u.universal.float() for u in found]), generator, 1000)


def claims(kinds: list[Kind], movers: list[float], generator: torch.Generator) -> tuple[Claim, ...]:
    of_neurons, of_heads = kinds
    universal, fresh = (shares(found, generator) for found in (of_neurons.pairs, of_neurons.untrained))
    turned = excess(of_neurons.turned, generator)
    return (
        at_least("excess correlation of neurons, lower end of 95%", 0.01, excess(of_neurons.pairs, generator).low,
                 source=GURNEE),
        at_least("share of neurons that are universal, lower end of 95%; by chance .025", 0.05, universal.low,
                 source=GURNEE),
        at_least("the same, less that of an untrained network", 0.02, universal.mean - fresh.mean, source=OURS),
        at_most("excess correlation of neurons with rotated ones, in size", 0.02, abs(turned.mean), source=OURS),
        at_least("excess correlation of heads, lower end of 95%", 0.01, excess(of_heads.pairs, generator).low,
                 source=OLAH),
        at_least("attention to the answer of the best name mover, in the network where it is least", 0.3, min(movers),
                 source=OLAH),
    )  # fmt: skip


def said(kinds: list[Kind], size: Size) -> str:
    units = len(kinds[0].pairs[0].alike)
    return (
        f"{size.seeds} networks of {units} neurons and {len(kinds[1].pairs[0].alike)} heads, {len(kinds[0].pairs)} "
        f"pairs, {size.rows} new sentences. A unit is universal where it is more like one of the other network than "
        "97.5% of the comparisons with rotated units are."
    )


def chart(of_neurons: Kind) -> Chart:
    """Likeness of every neuron by rank, beside that with rotated neurons."""
    series = []
    for colour, (name, found) in enumerate(
        (("the other network's neurons", of_neurons.pairs), ("the same, rotated", of_neurons.turned),
         ("an untrained network's", of_neurons.untrained))
    ):  # fmt: skip
        values = torch.cat([u.alike for u in found]).sort(descending=True).values.clamp(min=0.01)
        at = torch.linspace(0, len(values) - 1, min(200, len(values))).long()
        x = ((at + 1) / len(values)).tolist()
        series.append(Series(name, x, values[at].tolist(), colour, "line" if colour == 0 else "dashed"))
    return Chart("How like the most like one each neuron is", "share of neurons", "correlation", series)


def table(kinds: list[Kind], generator: torch.Generator) -> Table:
    rows = [
        [f"{each.name}, {name}", str(excess(found, generator)), str(shares(found, generator))]
        for each in kinds
        for name, found in (("trained", each.pairs), ("rotated", each.turned), ("untrained", each.untrained))
    ]
    return Table(("units of the other network", "excess correlation", "share universal"), rows, numeric=(1, 2))
