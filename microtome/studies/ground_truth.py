"""Do dictionaries find features that are known to be there? Recipes judged on activations made from known features.

Sanity checks of sparse autoencoders (arXiv 2602.14111) found ones that explain most of the variance of synthetic
activations and recover few of their features; SynthSAEBench (arXiv 2602.14687) measures this for many architectures.
Each recipe here sees the same samples.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch

from microtome.core.component import Dictionary
from microtome.core.fit import fit
from microtome.core.schedule import Linear, WarmUp
from microtome.core.site import Site
from microtome.data.synthetic import Synthetic, small
from microtome.dictionaries import recipes
from microtome.dictionaries.baselines import random_dictionary
from microtome.dictionaries.coder import Coder
from microtome.dictionaries.recipes import Recipe, Sample
from microtome.evals.ground_truth import Recovery, recovery
from microtome.notebook.page import Sentence, Table
from microtome.store.records import Claim
from microtome.studies.study import Report, Setting, Study, Watch, at_least, at_most

SITE = Site("synthetic", "batch d")


@dataclass(frozen=True)
class Size:
    """Samples, latents and steps; k is the mean number of features that are active."""

    width: int
    batch: int
    steps: int
    judged: int  # fresh rows
    rate: float = 3e-3


FULL = Size(width=512, batch=1024, steps=4000, judged=50_000)
QUICK = Size(width=512, batch=512, steps=400, judged=10_000)

Make = Callable[[Site, Sample, int, int, torch.Generator], Recipe]

ENTRANTS: dict[str, Make] = {
    "topk": recipes.topk,
    "batch_topk": recipes.batch_topk,
    "matryoshka": recipes.matryoshka,
    "orthogonal": lambda site, sample, width, k, g: recipes.orthogonal(site, sample, width, k, generator=g),
    "jump_relu_target": lambda site, sample, width, k, g: recipes.jump_relu_target(site, sample, width, float(k), g),
    "relu": lambda site, sample, width, k, g: recipes.relu(site, sample, width, 5e-3, g),
    "gated": lambda site, sample, width, k, g: recipes.gated(site, sample, width, 5e-3, g),
    "matching_pursuit": recipes.matching_pursuit,
    "frozen_decoder": recipes.frozen_decoder,
}


class Outcome(NamedTuple):
    """What one recipe explained, and what of the truth it found."""

    name: str
    explained: float
    l0: float
    recovered: Recovery


class GroundTruth(Study):
    name = "ground_truth"
    paper = "SynthSAEBench, arXiv 2602.14687, and Sanity checks of sparse autoencoders, arXiv 2602.14111"
    question = "How many features that are known to be there does each architecture find?"

    def __init__(self, quick: Size = QUICK, full: Size = FULL):
        self.quick, self.full = quick, full

    def run(self, setting: Setting, watch: Watch) -> Report:
        size = self.quick if setting.quick else self.full
        source = small(torch.Generator().manual_seed(setting.seed))
        found = list(outcomes(source, size, setting, watch))
        return Report(claims(found), pieces(found, source, size))


STUDY = GroundTruth()


def outcomes(source: Synthetic, size: Size, setting: Setting, watch: Watch) -> Iterator[Outcome]:
    """Train each recipe on the same samples and judge it on the same fresh ones."""
    k, seed = round(source.l0), setting.seed
    sample = source.draw(10_000, torch.Generator().manual_seed(seed + 1)).x
    chance = random_dictionary(SITE, sample, size.width, k, torch.Generator().manual_seed(seed + 2))
    with watch.stage("train and judge", len(ENTRANTS), "recipes") as advance:
        for done, (name, make) in enumerate(ENTRANTS.items(), 1):
            recipe = make(SITE, sample, size.width, k, torch.Generator().manual_seed(seed + 3))
            learn(recipe, source, size, sample, seed)
            yield judged(name, recipe.dictionary, source, chance, size, seed)
            advance(done)


def learn(recipe: Recipe, source: Synthetic, size: Size, sample: Sample, seed: int) -> None:
    given = source.batches(size.batch, size.steps, torch.Generator().manual_seed(seed + 4))
    schedule = WarmUp(50) * Linear(size.steps // 2, size.steps + 1)
    for _ in fit(recipe.dictionary, given, recipe.objective, lr=size.rate, schedule=schedule):
        pass
    if isinstance(recipe.dictionary, Coder):
        recipe.dictionary.calibrate(sample)


@torch.no_grad()
def judged(name: str, dictionary: Dictionary, source: Synthetic, chance: Dictionary, size: Size, seed: int) -> Outcome:
    fresh = source.draw(size.judged, torch.Generator().manual_seed(seed + 5)).x
    error, l0 = 0.0, 0.0
    for rows in fresh.split(4096):
        codes = dictionary.encode(rows)
        error += (rows - dictionary.reconstruct(rows)).pow(2).sum().item()
        l0 += codes.l0().item() * len(rows)
    generator = torch.Generator().manual_seed(seed + 6)
    found = recovery(dictionary, source, chance=chance, generator=generator)
    spread = (fresh - fresh.mean(0)).pow(2).sum().item()
    return Outcome(name, 1 - error / spread, l0 / len(fresh), found)


# ---------------------------------------------------------------- what they show


def claims(found: list[Outcome]) -> tuple[Claim, ...]:
    by_name = {o.name: o for o in found}
    learned = [o for o in found if not o.name.startswith("frozen")]
    best = max(learned, key=lambda o: o.recovered.mcc.found)
    worst = min(learned, key=lambda o: o.recovered.mcc.found - o.recovered.mcc.chance)
    topk = by_name["topk"].recovered
    synthetic, sanity = "SynthSAEBench, arXiv 2602.14687", "arXiv 2602.14111"
    return (
        at_least(
            f"MCC of the worst recipe ({worst.name}) beyond chance, lower end of 95%", 0.0,
            worst.recovered.mcc.low - worst.recovered.mcc.chance, source=synthetic,
        ),
        at_least(
            f"MCC of the best recipe ({best.name}) beyond a frozen decoder's", 0.05,
            best.recovered.mcc.found - by_name["frozen_decoder"].recovered.mcc.found, source=sanity,
        ),
        at_least(
            "variance explained by TopK beyond the share of features it finds (MCC)", 0.0,
            by_name["topk"].explained - topk.mcc.found, source=sanity,
        ),
        at_most("share of TopK's latents that are dead, with AuxK", 0.02, topk.dead.found, source="arXiv 2406.04093"),
    )  # fmt: skip


def pieces(found: list[Outcome], source: Synthetic, size: Size) -> tuple[Sentence | Table, ...]:
    columns = ("recipe", "explained variance", "L0", "MCC", "chance", "F1", "precision", "recall", "unique", "dead")
    rows = []
    for o in sorted(found, key=lambda o: -o.recovered.mcc.found):
        r = o.recovered
        between = f"{r.mcc.found:.3f} ({r.mcc.low:.3f} to {r.mcc.high:.3f})"
        rates = (f"{e.found:.2f}" for e in (r.f1, r.precision, r.recall, r.uniqueness))
        rows.append(
            [o.name, f"{o.explained:.3f}", f"{o.l0:.1f}", between, f"{r.mcc.chance:.3f}", *rates, f"{r.dead.found:.1%}"]
        )
    features, d = source.truth.directions.shape
    told = (
        f"{features} features in {d} dimensions, {source.l0:.1f} active on the mean row; {size.width} latents, "
        f"{size.steps:,} steps of {size.batch} rows, the same for all. MCC: the mean absolute cosine of latents and "
        "features paired one to one, with its 95% interval over features and what random directions reach."
    )
    return Sentence(told), Table(columns, rows, numeric=tuple(range(1, 10)))
