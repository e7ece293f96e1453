"""What the study of monosemanticity claims of its figures, and how it shows them."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from microtome.explain.grades import middle
from microtome.notebook.page import Heading, Sentence, Table
from microtome.store.records import Claim
from microtome.studies.chart import Chart, Series
from microtome.studies.page import Piece
from microtome.studies.splitting import Splitting
from microtome.studies.study import at_least, at_most

BRICKEN, SANITY = "Bricken et al. 2023, Towards Monosemanticity", "arXiv 2602.14111"
GOOD = 0.8  # balanced accuracy of an explanation that counts as one
SCORES = {"accuracy": "balanced accuracy", "simulation": "simulation score"}
EXAMPLES = 8
BINS = 24  # of densities, between the rarest and one


class Worded(NamedTuple):
    """A component with its rule, and how well that foretells it; the last two by another component's rule."""

    component: int
    text: str
    density: float
    accuracy: float
    simulation: float
    accuracy_by_chance: float
    simulation_by_chance: float


class Cutting(NamedTuple):
    """What one dictionary makes of the layer: its figures, and the components that could be explained.

    `tried` counts the components that fire at all among those that were looked at.
    """

    name: str
    explained: float
    l0: float
    tried: int
    densities: list[float]
    words: list[Worded]


Found = Mapping[str, Cutting]


class Difference(NamedTuple):
    """Latents less another dictionary's components, in the mean, with its 95% interval, over so many pairs."""

    mean: float
    low: float
    high: float
    pairs: int

    def __str__(self) -> str:
        return f"{self.mean:+.3f} ({self.low:+.3f} to {self.high:+.3f}, {self.pairs} pairs)"


def of(cut: Cutting, score: str) -> Float[np.ndarray, "components"]:
    """One score of every component that was put into words."""
    return np.array([getattr(one, score) for one in cut.words], float)


def by_rank(one: Cutting, other: Cutting, score: str, generator: np.random.Generator) -> Difference:
    """Pairs are those of one rank by density: the frequent with the frequent. Ranks are spread where one has fewer."""
    ordered = [of(cut, score)[np.argsort(-of(cut, "density"), kind="stable")] for cut in (one, other)]
    count = min(map(len, ordered))
    first, second = (scores[np.linspace(0, len(scores) - 1, count).round().astype(int)] for scores in ordered)
    return Difference(*middle(first - second, generator), count)


def by_density(
    one: Cutting, other: Cutting, score: str, generator: np.random.Generator, within: float = 1.5
) -> Difference:
    """Pairs fire about as often, within a factor; no component is in two. A check: rare components score higher."""
    free, differences = dict(enumerate(of(one, "density"))), []
    for density, value in sorted(zip(of(other, "density"), of(other, score), strict=True)):
        near = min(free, key=lambda n: abs(np.log(free[n] / density)), default=None)
        if near is not None and abs(np.log(free[near] / density)) <= np.log(within):
            differences.append(of(one, score)[near] - value)
            del free[near]
    if not differences:
        return Difference(float("nan"), float("nan"), float("nan"), 0)
    return Difference(*middle(np.array(differences), generator), len(differences))


def claims(found: Found, split: Splitting, generator: np.random.Generator) -> tuple[Claim, ...]:
    latents = found["latents"]
    judged = []
    for name in (n for n in found if n != "latents"):
        for score, words in SCORES.items():
            low = by_rank(latents, found[name], score, generator).low
            source = BRICKEN if name == "neurons" else SANITY
            judged.append(at_least(f"{words}, latents less {name}, lower end of 95%", 1e-9, low, source=source))
    chance = by_chance(latents, generator)
    return (
        at_least("median balanced accuracy of latents", GOOD, float(np.median(of(latents, "accuracy"))), source=OURS),
        *judged,
        at_most("simulation score by another latent's rule, upper end of 95%", 0.1, chance, source=OURS),
        at_least("share of wide latents with a parent; by chance .01", 0.5, split.share_with_parent, source=BRICKEN),
        at_most("density of children over their parent's, median", 1.0, median(split), source=BRICKEN),
    )


OURS = "the bar this package sets itself"


def by_chance(latents: Cutting, generator: np.random.Generator) -> float:
    return middle(of(latents, "simulation_by_chance"), generator)[2]


def median(split: Splitting) -> float:
    return float(split.rarity.median()) if len(split.rarity) else float("nan")


# ---------------------------------------------------------------- the page


def shown(found: Found, split: Splitting, generator: np.random.Generator) -> tuple[Piece, ...]:
    return (
        Sentence(said(found, split)), distribution(found, "accuracy"), distribution(found, "simulation"),
        scores(found), differences(found, generator), densities(found), Heading("Feature splitting"), families(split),
        Heading("What the rules say"), examples(found["latents"]), examples(found["neurons"]),
    )  # fmt: skip


def said(found: Found, split: Splitting) -> str:
    latents = found["latents"]
    return (
        f"Every dictionary has {latents.l0:.0f} components active on a token. Rules are proposed from training text; "
        "all scores are of held-out text. A component is interpretable where its rule's balanced accuracy is at least "
        f"{GOOD}; one that fires too seldom to be tested is counted as not. Of the wide dictionary's latents "
        f"{split.share_with_parent:.0%} have a parent in the narrow one, of whose latents {split.share_split:.0%} "
        "split into two or more."
    )


def distribution(found: Found, score: str) -> Chart:
    """Every component's score by rank."""
    series = []
    for colour, (name, cut) in enumerate(found.items()):
        ranked = np.sort(of(cut, score))[::-1].clip(0.01)
        at = np.linspace(0, len(ranked) - 1, min(120, len(ranked))).round().astype(int)
        share = (at + 1) / len(ranked)
        series.append(
            Series(name, share.tolist(), ranked[at].tolist(), colour, "dashed" if "frozen" in name else "line")
        )
    return Chart(f"The {SCORES[score]} of every explained component, best first", "share of components",
                 SCORES[score], series)  # fmt: skip


def scores(found: Found) -> Table:
    rows = []
    for name, cut in found.items():
        accuracy, simulated = of(cut, "accuracy"), of(cut, "simulation")
        rows.append(
            [name, f"{(accuracy >= GOOD).sum() / max(1, cut.tried):.1%}", f"{len(cut.words)} of {cut.tried}",
             f"{accuracy.mean():.3f}", f"{np.median(accuracy):.3f}", f"{simulated.mean():.3f}",
             f"{np.median(simulated):.3f}", f"{of(cut, 'accuracy_by_chance').mean():.3f}",
             f"{of(cut, 'simulation_by_chance').mean():.3f}", f"{cut.explained:.3f}"]
        )  # fmt: skip
    columns = ("components", "interpretable", "explained, of those that fire", "balanced accuracy, mean", "median",
               "simulation, mean", "median", "accuracy by chance", "simulation by chance",
               "explained variance")  # fmt: skip
    return Table(columns, rows, numeric=tuple(range(1, len(columns))))


def differences(found: Found, generator: np.random.Generator) -> Table:
    rows = [
        [f"{words}, less {name}", str(by_rank(found["latents"], cut, score, generator)),
         str(by_density(found["latents"], cut, score, generator))]
        for name, cut in found.items() if name != "latents" for score, words in SCORES.items()
    ]  # fmt: skip
    return Table(("latents'", "of one rank by density", "of about one density"), rows, numeric=(1, 2))


def densities(found: Found) -> Chart:
    """How often components fire: the shape of each dictionary."""
    live = {name: np.array([d for d in cut.densities if d > 0]) for name, cut in found.items()}
    edges = np.geomspace(min(map(np.min, live.values())), 1.0, BINS + 1)
    series = []
    for colour, (name, values) in enumerate(live.items()):
        share = np.histogram(values, edges)[0] / len(values)
        kept = share > 0
        middles = np.sqrt(edges[1:] * edges[:-1])
        series.append(Series(name, middles[kept].tolist(), share[kept].tolist(), colour))
    return Chart("How often components fire", "density: share of tokens", "share of components that fire", series)


def families(split: Splitting) -> Table:
    counts = np.bincount(split.children.numpy().clip(0, 9), minlength=10)
    rows = [[f"{n}{' or more' if n == 9 else ''}", str(count)] for n, count in enumerate(counts)]
    caption = (
        f"Cosine of a wide latent to the nearest narrow one: mean {split.cosines.mean():.2f}, to shuffled ones "
        f"{split.by_chance.mean():.2f}. Children fire {median(split):.2f} times as often as their parent (median)."
    )
    return Table(("children of a narrow latent", "narrow latents"), rows, caption, numeric=(1,))


def examples(cut: Cutting) -> Table:
    """Components from the best to the worst, evenly."""
    ranked = sorted(cut.words, key=lambda one: -one.accuracy)
    chosen = [ranked[i] for i in np.linspace(0, len(ranked) - 1, min(EXAMPLES, len(ranked))).astype(int)]
    rows = [[str(one.component), one.text, f"{one.accuracy:.2f}", f"{one.simulation:.2f}"] for one in chosen]
    return Table((f"of the {cut.name}", "rule", "balanced accuracy", "simulation"), rows, numeric=(2, 3))
