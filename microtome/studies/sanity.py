"""How near do dictionaries that learned nothing come, in the scores by which dictionaries are praised?

One layer, cut five ways with the same number of components active on a token: a sparse autoencoder; a random
dictionary, whose directions were drawn and never learned; a random encoder under the best decoder that there is for it;
the principal components; and the neurons. Each is scored by how much it explains, how much of the loss survives in its
place, how well one component alone tells what Python's own parser knows of a token, and how well rules foretell its
components. Sanity Checks for Sparse Autoencoders (arXiv 2602.14111): frozen random ones come close. The gap is the
result.

    nearness = (score of the baseline - what chance gives) / (score of the autoencoder - what chance gives)
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from microtome.core.component import Dictionary
from microtome.core.errors import Refusal
from microtome.data.labels import LABELS
from microtome.data.windows import Text
from microtome.evals.firings import Firings
from microtome.evals.identification import detectors, judged
from microtome.evals.interval import mean_f1
from microtome.evals.reconstruction import recovered, variance
from microtome.evals.truth import FACTS, Truth, chance, missing
from microtome.notebook.page import Heading, Sentence, Table
from microtome.store.records import Claim
from microtome.store.survey import surveying
from microtome.studies.chart import Chart, Series
from microtome.studies.kept import Kept
from microtome.studies.monosemanticity import FULL, Material, Size
from microtome.studies.monosemanticity import QUICK as LARGER
from microtome.studies.monosemanticity_page import BRICKEN, Found, by_rank, distribution, of, scores
from microtome.studies.page import Piece
from microtome.studies.slide import Slide
from microtome.studies.study import Report, Setting, Study, Watch, about, at_least, at_most

SANITY = "arXiv 2602.14111"
OWN, BASELINES = "latents", ("frozen random", "frozen encoder", "principal", "neurons")
OF_THE_SITE = BASELINES[:-1]  # neurons explain what their own layer adds, which is another thing
SPLICED = 32  # windows on which cross-entropy is measured
PAPER = {"balanced accuracy": (0.87 - 0.5) / (0.90 - 0.5), "one component's F1": (0.69 - 0.5) / (0.72 - 0.5)}
NEAR = {"balanced accuracy": "explanations", "one component's F1": "probing"}


QUICK = replace(LARGER, held_out=12_000, proposals=15_000, components=24)


class Sanity(Study):
    name = "sanity"
    paper = "Sanity Checks for Sparse Autoencoders, arXiv 2602.14111"
    question = "How near do dictionaries that learned nothing come to an autoencoder, in the scores that praise it?"

    def __init__(self, quick: Size = QUICK, full: Size = FULL) -> None:
        self.quick, self.full = quick, full

    def run(self, setting: Setting, watch: Watch) -> Report:
        size = self.quick if setting.quick else self.full
        material = Material(Slide(setting, size.training, watch), size, (OWN, *BASELINES))
        found, marks = material.cuttings(), examined(material, watch)
        table = table_of(found, marks)
        return Report(claims(found, table, setting.seed), shown(found, table, setting.seed))


STUDY = Sanity()


# ---------------------------------------------------------------- the scores


class Row(NamedTuple):
    """One score of every dictionary, and what chance gives."""

    name: str
    chance: float
    of: Mapping[str, float]

    def nearness(self, baseline: str) -> float:
        """1 where the baseline is as good as the autoencoder, 0 where it is chance; nan where neither is better."""
        gain = self.of[OWN] - self.chance
        return (self.of[baseline] - self.chance) / gain if gain > 0 else float("nan")


def examined(material: Material, watch: Watch) -> dict[str, dict[str, Any]]:
    """What the catalogues do not say: loss recovered, and F1 of single components. Kept as it comes."""
    kept = Kept(material.setting.into / "examined.jsonl", material.kept.setting)
    names = (OWN, *BASELINES)
    losses = kept.of("losses", lambda: spliced(material, names))
    with watch.stage("examine", len(names), "dictionaries") as advance:
        for number, name in enumerate(names, 1):
            kept.of(name, lambda name=name: told(material, material.dictionary(name)))
            advance(number)
    return {name: {"ce_recovered": losses[name], **kept.found[name]} for name in names}


def spliced(material: Material, names: Sequence[str]) -> dict[str, float]:
    """The share of the loss that each dictionary recovers in the place of the site that it writes at."""
    model, tokens = material.slide.model, material.held_out.tokens[:SPLICED]
    made = {name: material.dictionary(name).to(material.setting.device) for name in names}
    found: dict[str, float] = {}
    for site in dict.fromkeys(dictionary.writes[0] for dictionary in made.values()):
        here = {name: dictionary for name, dictionary in made.items() if dictionary.writes[0] == site}
        mean = variance(model, next(iter(here.values())), tokens).mean.to(model.device)
        found |= dict(zip(here, recovered(model, list(here.values()), mean, tokens).shares, strict=True))
    return found


def told(material: Material, dictionary: Dictionary) -> dict[str, float]:
    """Mean F1 over the facts of syntax, of each one's best single component, and of claiming every token."""
    if not material.slide.labels:
        return {}
    texts = [material.proposals, material.held_out]
    truths = [Truth.of(text, FACTS, LABELS) for text in texts]
    truths = [truth.without(missing(*truths)) for truth in truths]
    if not truths[0].names:
        raise Refusal("no fact of syntax is in both parts of the text; give more text")
    dictionary = dictionary.to(material.setting.device)
    seen = [fired(material, dictionary, text) for text in texts]
    found = judged(detectors(seen[0], truths[0]), seen[1], truths[1])
    return {"f1": float(mean_f1(found.sum(0))), "f1_by_chance": float(mean_f1(chance(truths[1]).sum(0)))}


def fired(material: Material, dictionary: Dictionary, text: Text) -> Firings:
    found = Firings(dictionary)
    for _ in surveying(material.slide.model, [found], text.tokens):
        pass
    return found


def table_of(found: Found, marks: Mapping[str, Mapping[str, float]]) -> list[Row]:
    rows = [
        Row("explained variance", 0.0, {name: cut.explained for name, cut in found.items()}),
        Row("loss recovered", 0.0, {name: mark["ce_recovered"] for name, mark in marks.items()}),
    ]
    if "f1" in marks[OWN]:
        by_chance = marks[OWN]["f1_by_chance"]
        rows.append(Row("one component's F1", by_chance, {name: mark["f1"] for name, mark in marks.items()}))
    for name, score in (("balanced accuracy", "accuracy"), ("simulation", "simulation")):
        by_chance = float(of(found[OWN], f"{score}_by_chance").mean())
        rows.append(Row(name, by_chance, {n: float(of(cut, score).mean()) for n, cut in found.items()}))
    return rows


# ---------------------------------------------------------------- what they show


def claims(found: Found, table: Sequence[Row], seed: int) -> tuple[Claim, ...]:
    generator, judged = np.random.default_rng(seed), []
    for score in ("accuracy", "simulation"):
        for name in ("frozen random", "neurons"):
            low = by_rank(found[OWN], found[name], score, generator).low
            source = BRICKEN if name == "neurons" else SANITY
            judged.append(at_least(f"{score}, autoencoder less {name}, lower end of 95%", 1e-9, low, source=source))
    for row in table:
        if row.name in PAPER:
            near, expected = row.nearness("frozen random"), PAPER[row.name]
            name = f"nearness of frozen random components in {NEAR[row.name]} ({row.name})"
            judged.append(about(name, expected, near, tolerance=0.1, source=SANITY))
        elif row.name in ("explained variance", "loss recovered"):
            nearest = max(row.nearness(name) for name in OF_THE_SITE)
            judged.append(at_most(f"nearness of the best of the same site in {row.name}", 1.0, nearest, source=SANITY))
    return tuple(judged)


def shown(found: Found, table: Sequence[Row], seed: int) -> tuple[Piece, ...]:
    generator = np.random.default_rng(seed)
    return (
        Sentence(said(table)), near(table), values(table), chart(table), Heading("Explanations"),
        distribution(found, "accuracy"), distribution(found, "simulation"), scores(found), gaps(found, generator),
    )  # fmt: skip


def said(table: Sequence[Row]) -> str:
    best = {row.name: max(BASELINES, key=lambda name, row=row: row.of[name]) for row in table}
    told = "; ".join(f"{row.name}: {best[row.name]}, {row.nearness(best[row.name]):.0%} of the way" for row in table)
    return (
        "All dictionaries have as many components active on a token. Nearness is how far a baseline goes from what "
        f"chance gives to what the autoencoder scores; over 100% it is better. The nearest of each score: {told}."
    )


def near(table: Sequence[Row]) -> Table:
    rows = [[row.name, *(f"{row.nearness(name):.0%}" for name in BASELINES)] for row in table]
    return Table(("nearness", *BASELINES), rows, numeric=tuple(range(1, len(BASELINES) + 1)))


def values(table: Sequence[Row]) -> Table:
    rows = [[row.name, f"{row.chance:.3f}", *(f"{row.of[name]:.3f}" for name in (OWN, *BASELINES))] for row in table]
    return Table(("score", "chance", OWN, *BASELINES), rows, numeric=tuple(range(1, len(BASELINES) + 3)))


def chart(table: Sequence[Row]) -> Chart:
    """Nearness, score by score."""
    series = [
        Series(name, list(range(1, len(table) + 1)), [min(2.0, max(0.01, row.nearness(name))) for row in table],
               colour, "points")
        for colour, name in enumerate(BASELINES)
    ]  # fmt: skip
    named = ", ".join(f"{number} {row.name}" for number, row in enumerate(table, 1))
    return Chart("How near each baseline comes; 1 is the autoencoder", named, "nearness", series)


def gaps(found: Found, generator: np.random.Generator) -> Table:
    rows = [
        [name, *(str(by_rank(found[OWN], found[name], score, generator)) for score in ("accuracy", "simulation"))]
        for name in BASELINES
    ]
    caption = "The autoencoder's less the baseline's, over components of one rank by density, with 95% intervals."
    return Table(("baseline", "balanced accuracy", "simulation"), rows, caption, numeric=(1, 2))
