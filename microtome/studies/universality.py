"""Networks that were trained apart on the same task: do they have the same neurons, features and heads?

Small transformers learn sentences of the IOI grammar, each from a seed of its own. Their neurons, and the latents of an
autoencoder of their last stream, are compared by their activity on new sentences, their heads by where they look, pair
by pair of networks. Gurnee et al. 2024, Universal Neurons in GPT2 Language Models (arXiv 2401.12181), where 1 to 5% of
neurons are universal across five seeds; the claim is that of Olah et al. 2020, Zoom In.

Three things make units alike that no one learned, and each is taken away. What the input says: any two networks see the
same token at the same place, so each unit's mean there is subtracted, and what it makes of the context is left. In how
few directions activity lies: the same comparison with activity turned by a random rotation. That axes of ReLUs and of
latents stand out from other directions, in a network that has learned nothing too: the same excess beside an untrained
network. Likeness beyond all three is what learning brought about in both.
"""

# pyright: reportUnknownMemberType=false

from collections.abc import Sequence
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
    beyond_the_token,
    head_activity,
    interval,
    rotated,
    unit_activity,
    universality,
)
from microtome.core.fit import fit
from microtome.core.inputs import Tokens
from microtome.data.pairs import Pairs
from microtome.dictionaries import recipes
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
    latents: int = 256
    k: int = 8
    fitted: int = 600  # steps of each autoencoder


FULL, QUICK = Size(), Size(seeds=3, lessons=Lessons(steps=800), rows=200, rotations=4, fitted=300)


class Kind(NamedTuple):
    """One kind of unit: every pair of networks, beside a rotated and an untrained one in place of the second."""

    name: str
    pairs: list[Universality]
    turned: list[Universality]
    untrained: list[Universality]

    def learned(self, generator: torch.Generator) -> Share:
        """Excess correlation beyond that with an untrained network, the mean over units of all networks."""
        of = len(self.untrained)
        firsts = [i for i, _ in combinations(range(of), 2)]
        beyond = [found.excess - self.untrained[i].excess for i, found in zip(firsts, self.pairs, strict=True)]
        return interval(torch.cat(beyond), generator, 1000)


class AcrossSeeds(Study):
    name = "universality"
    paper = "Gurnee et al. 2024, Universal Neurons in GPT2 Language Models, arXiv 2401.12181"
    question = "Do networks that were trained apart have the same neurons, features and heads?"

    def __init__(self, quick: Size = QUICK, full: Size = FULL) -> None:
        self.quick, self.full = quick, full

    def run(self, setting: Setting, watch: Watch) -> Report:
        size = self.quick if setting.quick else self.full
        seeds = range(setting.seed, setting.seed + size.seeds)
        talkers = [taught("ioi", size.lessons, seed, setting.into, watch) for seed in seeds]
        fresh = Talker("ioi", size.lessons, setting.seed + size.seeds)
        generator = torch.Generator().manual_seed(setting.seed + 1)
        shown = talkers[0].pairs(size.rows, generator)
        networks = (*talkers, fresh)
        seen = {
            "neurons": [neurons(t.model, shown.clean) for t in networks],
            "latents": latents(networks, shown.clean, size, setting.seed),
            "heads": [head_activity(t.model, shown.clean) for t in networks],
        }
        kinds = [kind(name, each, size, generator) for name, each in seen.items()]
        pieces = (Sentence(said(kinds, size)), chart(kinds[0]), table(kinds, generator))
        answering = [answerer(t, shown) for t in talkers]
        return Report(claims(kinds, generator), (*pieces, Sentence(LOOKING), heads_table(answering)))


STUDY = AcrossSeeds()


def neurons(model: HookedModel, tokens: Tokens) -> Float[Tensor, "rows units"]:
    """What neurons make of the context."""
    return beyond_the_token(unit_activity(model, tokens, model.sites("mlp_act.*")), tokens)


def latents(networks: Sequence[Talker], tokens: Tokens, size: Size, seed: int) -> list[Float[Tensor, "rows units"]]:
    """What latents of autoencoders of the last stream make of the context.

    Of each network equally many, those that do most: with more to choose from, the most alike is more alike by chance.
    """
    each = [beyond_the_token(latent_activity(t, tokens, size, seed + i), tokens) for i, t in enumerate(networks)]
    fewest = min(int((x.square().sum(0) > 0).sum()) for x in each)
    return [x[:, x.square().sum(0).topk(fewest).indices] for x in each]


@torch.no_grad()
def latent_activity(talker: Talker, tokens: Tokens, size: Size, seed: int) -> Float[Tensor, "rows units"]:
    """Latents of an autoencoder that learns the sentences that the network learned."""
    model, site = talker.model, talker.model.sites("resid_post.*")[-1]
    generator = torch.Generator().manual_seed(seed)
    lessons = talker.rows[:, :-1].split(200)
    x = torch.cat([model.run(Tokens.of(ids), read=[site])[site].flatten(0, 1) for ids in lessons])
    recipe = recipes.topk(site, x, size.latents, size.k, generator)
    drawn = (x[torch.randint(len(x), (512,), generator=generator)] for _ in range(size.fitted))
    for _ in fit(recipe.dictionary, drawn, recipe.objective, lr=3e-3):
        pass
    return recipe.dictionary.encode(model.run(tokens, read=[site])[site]).dense()[tokens.mask]


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


class Answerer(NamedTuple):
    """The head that raises the answer's logit most over the other name's: by how much, the share of that among all
    heads that raise it, and how much the last token attends in it to the answer itself."""

    name: str
    logit: float
    share: float
    attention: float


def answerer(talker: Talker, pairs: Pairs) -> Answerer:
    """It is a name mover in the sense of Wang et al. 2022 (arXiv 2211.00593) where it attends to the answer itself."""
    found = name_movers(talker.model, pairs.clean, pairs.right, pairs.wrong)
    logits = found.direct_logit.flatten()
    best, heads = int(logits.argmax()), found.direct_logit.shape[1]
    share = float(logits[best] / logits.clamp(min=0).sum())
    name = f"a{best // heads}.h{best % heads}"
    return Answerer(name, float(logits[best]), share, float(found.attention.flatten()[best]))


# ---------------------------------------------------------------- what they show


def excess(found: list[Universality], generator: torch.Generator) -> Share:
    """Mean excess correlation over the units of all pairs."""
    return interval(torch.cat([u.excess for u in found]), generator, 1000)


def shares(found: list[Universality], generator: torch.Generator) -> Share:
    return interval(torch.cat([u.universal.float() for u in found]), generator, 1000)


def claims(kinds: list[Kind], generator: torch.Generator) -> tuple[Claim, ...]:
    of_neurons, of_latents, of_heads = kinds
    turned = excess(of_neurons.turned, generator)
    return (
        at_least("excess correlation of neurons, lower end of 95%", 0.01, excess(of_neurons.pairs, generator).low,
                 source=GURNEE),
        at_least("share of neurons that are universal, lower end of 95%; by chance .025", 0.05,
                 shares(of_neurons.pairs, generator).low, source=GURNEE),
        at_least("excess correlation of neurons beyond that with an untrained network, lower end of 95%", 0.01,
                 of_neurons.learned(generator).low, source=OURS),
        at_most("excess correlation of neurons with rotated ones, in size", 0.02, abs(turned.mean), source=OURS),
        at_least("excess correlation of latents, lower end of 95%", 0.01, excess(of_latents.pairs, generator).low,
                 source=OLAH),
        at_least("excess correlation of latents beyond that with an untrained network, lower end of 95%", 0.01,
                 of_latents.learned(generator).low, source=OURS),
        at_least("excess correlation of heads, lower end of 95%", 0.01, excess(of_heads.pairs, generator).low,
                 source=OLAH),
    )  # fmt: skip


def said(kinds: list[Kind], size: Size) -> str:
    counts = ", ".join(f"{len(each.pairs[0].alike)} {each.name}" for each in kinds)
    return (
        f"{size.seeds} networks, {counts} of each, {len(kinds[0].pairs)} pairs, {size.rows} new sentences. A unit is "
        "universal where it is more like one of the other network than 97.5% of the comparisons with rotated units are."
    )


LOOKING = (
    "In GPT-2 the heads that bring the answer attend to it. Here, of each network, the head that raises the answer "
    "most over the other name: where its attention to the answer is small it reads a later place, to which an earlier "
    "layer has brought the name already. So networks that do the same need not do it by the same head."
)


def heads_table(found: list[Answerer]) -> Table:
    rows = [
        [str(i), each.name, f"{each.logit:.2f}", f"{each.share:.2f}", f"{each.attention:.2f}"]
        for i, each in enumerate(found)
    ]
    return Table(
        ("network", "head", "logits to the answer", "share of all heads that raise it", "attention to the answer"),
        rows,
        numeric=(2, 3, 4),
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
