"""What becomes of features as a dictionary gets wider, and which of them are found again from another seed.

Autoencoders of several widths learn one site, each from two seeds. Between widths: of a latent's direction, is there a
parent in the narrower dictionary, do parents split, and are children rarer (Bricken et al. 2023, Towards
Monosemanticity)? Between seeds, and between one recipe and another: how many latents have a mutual nearest that writes
with a cosine of .7 or more (Paulo and Belrose 2025, arXiv 2501.16615)? Beside it stands the same with the other
dictionary's directions turned at random, and with directions drawn anew that have its mean and covariance: what two
sets agree on by chance, and because activations lie in few directions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from microtome.core.matching import mutual, nearest
from microtome.dictionaries import recipes
from microtome.dictionaries.sae import SAE
from microtome.dictionaries.stability import alike, rotation, written
from microtome.evals.reconstruction import Variance
from microtome.explain.grades import middle
from microtome.notebook.page import Heading, Sentence, Table
from microtome.store.records import Claim
from microtome.store.survey import surveying
from microtome.studies.chart import Chart, Series
from microtome.studies.slide import LONG, SHORT, Slide, Training
from microtome.studies.splitting import Splitting, splitting
from microtome.studies.study import Report, Setting, Study, Watch, at_least, at_most

BRICKEN, PAULO = "Bricken et al. 2023, Towards Monosemanticity", "Paulo and Belrose 2025, arXiv 2501.16615"
SAME = 0.7  # the cosine from which two latents count as one
SEEDS = 2
OTHER = "batch_topk"  # the recipe whose latents are looked for, too


@dataclass(frozen=True)
class Size:
    """`widths` ascend. `held_out` tokens say how often each latent fires."""

    training: Training = LONG
    widths: tuple[int, ...] = (512, 1024, 2048, 4096)
    held_out: int = 100_000


FULL = Size()
QUICK = Size(replace(SHORT, epochs=5), widths=(128, 384), held_out=10_000)


class Widths(Study):
    name = "widths"
    paper = "Bricken et al. 2023, Towards Monosemanticity; Paulo and Belrose 2025, arXiv 2501.16615"
    question = "What becomes of features in a wider dictionary, and which are found again from another seed?"

    def __init__(self, quick: Size = QUICK, full: Size = FULL) -> None:
        self.quick, self.full = quick, full

    def run(self, setting: Setting, watch: Watch) -> Report:
        size = self.quick if setting.quick else self.full
        slide = Slide(setting, size.training, watch)
        live = cut(slide, size)
        generator = torch.Generator().manual_seed(setting.seed)
        ladder = [
            splitting(live[key(wide)].directions, live[key(narrow)].directions,
                      (live[key(wide)].density, live[key(narrow)].density), generator)
            for narrow, wide in pairwise(size.widths)
        ]  # fmt: skip
        pairs = [matched(live[key(w)], live[key(w, 1)], f"{w}, two seeds", generator) for w in size.widths]
        widest = size.widths[-1]
        other = live[key(widest, SEEDS, OTHER)]
        pairs.append(matched(live[key(widest)], other, f"{widest}, two recipes and seeds", generator))
        return Report(claims(live, ladder, pairs, size), shown(live, ladder, pairs, size))


STUDY = Widths()
Key = tuple[str, int, int]  # recipe, width, seed


def key(width: int, seed: int = 0, recipe: str = "topk") -> Key:
    return recipe, width, seed


# ---------------------------------------------------------------- dictionaries


class Live(NamedTuple):
    """The latents of one dictionary that fire: what they write, as vectors of length 1, and how often they do."""

    directions: Float[Tensor, "latents d"]
    density: Float[Tensor, "latents"]
    explained: float
    share: float


def cut(slide: Slide, size: Size) -> dict[Key, Live]:
    """All dictionaries, measured in one pass over held-out text."""
    wanted = [key(width, seed) for width in size.widths for seed in range(SEEDS)]
    wanted.append(key(size.widths[-1], SEEDS, OTHER))  # of a seed of its own: with one seed they begin alike
    first = slide.setting.seed
    saes = {(r, w, s): slide.learned(r, getattr(recipes, r), w, first + s) for r, w, s in wanted}
    seen = {k: Variance(sae) for k, sae in saes.items()}
    text = slide.text("held_out", size.held_out)
    with slide.watch.stage("measure", len(text), "windows") as advance:
        for done in surveying(slide.model, list(seen.values()), text.tokens):
            advance(done)
    return {k: living(saes[k], seen[k]) for k in wanted}


def living(sae: SAE, seen: Variance) -> Live:
    fires: Bool[Tensor, "latents"] = seen.fired > 0
    directions = written(sae).cpu()[fires]
    return Live(directions, seen.fired[fires] / seen.rows, seen.explained, float(fires.float().mean()))


# ---------------------------------------------------------------- the same again


class Matched(NamedTuple):
    """Of one dictionary's live latents, the share that another has too; and what chance gives, two ways."""

    name: str
    found: Float[Tensor, "latents"]  # 1 where it is, else 0
    turned: float  # the other's directions turned at random, all together
    drawn: float  # directions drawn anew with the other's mean and covariance
    cosines: Float[Tensor, "latents"]  # to the nearest
    cosines_turned: Float[Tensor, "latents"]

    @property
    def share(self) -> float:
        return float(self.found.mean())


def matched(one: Live, other: Live, name: str, generator: torch.Generator) -> Matched:
    turned = other.directions @ rotation(other.directions.shape[1], generator)
    drawn = alike(other.directions, generator)
    own = one.directions
    return Matched(
        name, among(own, other.directions), float(among(own, turned).mean()), float(among(own, drawn).mean()),
        nearest(own, other.directions).cosines, nearest(own, turned).cosines,
    )  # fmt: skip


def among(one: Float[Tensor, "latents d"], other: Float[Tensor, "others d"]) -> Float[Tensor, "latents"]:
    """1 for each latent that the other dictionary has too, else 0."""
    pairs, found = mutual(one, other), torch.zeros(len(one))
    found[pairs.first[pairs.cosines >= SAME]] = 1.0
    return found


# ---------------------------------------------------------------- what they show


def claims(
    live: Mapping[Key, Live], ladder: Sequence[Splitting], pairs: Sequence[Matched], size: Size
) -> tuple[Claim, ...]:
    explained = [live[key(width)].explained for width in size.widths]
    found = [
        at_least("least gain in explained variance from a width to the next", 1e-9,
                 min(b - a for a, b in pairwise(explained)), source=BRICKEN),
    ]  # fmt: skip
    for wide, step in zip(size.widths[1:], ladder, strict=True):
        found += [
            at_least(f"share of {wide} latents with a parent one width below; by chance .01", 0.5,
                     step.share_with_parent, source=BRICKEN),
            at_most(f"density of children over their parent's at {wide}, median", 1.0, rarity(step), source=BRICKEN),
        ]  # fmt: skip
    generator = np.random.default_rng(0)
    for pair in pairs:
        name = f"share matched, {pair.name}, less that when turned at random, lower end of 95%"
        low = middle(pair.found.numpy() - pair.turned, generator)[1]
        found.append(at_least(name, 1e-9, low, source=PAULO))
    if len(size.widths) > 2:
        fewer = pairs[len(size.widths) - 1].share - pairs[0].share
        name = "share matched across seeds at the widest less at the narrowest"
        found.append(at_most(name, 0.0, fewer, source=PAULO))
    return tuple(found)


def rarity(step: Splitting) -> float:
    return float(step.rarity.median()) if len(step.rarity) else float("nan")


def shown(
    live: Mapping[Key, Live], ladder: Sequence[Splitting], pairs: Sequence[Matched], size: Size
) -> tuple[Sentence | Table | Chart | Heading, ...]:
    return (
        Sentence(
            f"Latents active on a token: {size.training.k}; tokens learned from: {size.training.tokens:,}, "
            f"{size.training.epochs} times. Only latents that fire on held-out text count. Two are one where each is "
            f"the other's nearest and they write with a cosine of {SAME} or more."
        ),
        dictionaries(live), Heading("Splitting"), steps(ladder, size), spread(ladder, size), Heading("Found again"),
        again(pairs), cosines(pairs),
    )  # fmt: skip


def dictionaries(live: Mapping[Key, Live]) -> Table:
    rows = [[f"{r}, {w}, seed {s}", f"{one.explained:.3f}", f"{one.share:.1%}", f"{float(one.density.median()):.2e}"]
            for (r, w, s), one in live.items()]  # fmt: skip
    return Table(("dictionary", "explained variance", "live", "density, median"), rows, numeric=(1, 2, 3))


def steps(ladder: Sequence[Splitting], size: Size) -> Table:
    rows = [
        [f"{narrow} to {wide}", f"{s.share_with_parent:.1%}", f"{s.share_split:.1%}", f"{rarity(s):.2f}",
         f"{float(s.cosines.mean()):.2f}", f"{float(s.by_chance.mean()):.2f}"]
        for narrow, wide, s in zip(size.widths, size.widths[1:], ladder, strict=False)
    ]  # fmt: skip
    columns = ("width", "with a parent", "parents that split", "children's density over the parent's",
               "cosine to the nearest", "to shuffled ones")  # fmt: skip
    return Table(columns, rows, numeric=tuple(range(1, len(columns))))


def spread(ladder: Sequence[Splitting], size: Size) -> Chart:
    """How many children a narrow latent has."""
    series = []
    for colour, (wide, step) in enumerate(zip(size.widths[1:], ladder, strict=True)):
        series.append(Series(f"to {wide}", *ranked(step.children + 0.5), colour))
    return Chart("Children of every narrow latent, the most first", "share of narrow latents", "children, and a half",
                 series)  # fmt: skip


def again(pairs: Sequence[Matched]) -> Table:
    rows = [[p.name, f"{p.share:.1%}", f"{p.turned:.1%}", f"{p.drawn:.1%}", f"{float(p.cosines.mean()):.2f}",
             f"{float(p.cosines_turned.mean()):.2f}"] for p in pairs]  # fmt: skip
    columns = ("width", "matched", "turned at random", "drawn alike", "cosine to the nearest", "to turned ones")
    return Table(columns, rows, numeric=tuple(range(1, len(columns))))


def cosines(pairs: Sequence[Matched]) -> Chart:
    """Every latent's cosine to its nearest in the other dictionary, by rank, beside that to turned directions."""
    series = []
    for colour, pair in enumerate(pairs):
        series.append(Series(pair.name, *ranked(pair.cosines), colour))
        series.append(Series("", *ranked(pair.cosines_turned), colour, "dashed"))
    return Chart("Cosine to the nearest in the other dictionary; dashed: turned at random", "share of latents",
                 "cosine", series)  # fmt: skip


def ranked(values: Float[Tensor, "n"]) -> tuple[list[float], list[float]]:
    """A hundred of these numbers, from the largest down, and which share of all each ends."""
    ordered = values.sort(descending=True).values.clamp(min=0.01)
    at = torch.linspace(0, len(ordered) - 1, min(100, len(ordered))).round().long()
    return ((at + 1) / len(ordered)).tolist(), ordered[at].tolist()
