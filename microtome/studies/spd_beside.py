"""An autoencoder of a layer beside the parts of the weight that acts on it: which stands any combination left out?

Between a toy's encoder and decoder stands an identity. It has as many mechanisms as dimensions, and an autoencoder of
what passes through it has a latent for each direction that is common there. Both are put to the same masks: of latents
and of the autoencoder's error, of parts and of the rest of their weight (Bushnaq et al. 2025, arXiv 2506.20790). A
latent that is silent cannot do harm whatever is done to it; a mechanism of the weight can. So latents are also put to
the test as what they would be if they were mechanisms: parts of the identity that read and write what the latents do.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from microtome.core.component import Dictionary
from microtome.core.fit import fit
from microtome.core.site import Site
from microtome.dictionaries import recipes
from microtome.dictionaries.recipes import Recipe
from microtome.models.load import load
from microtome.notebook.page import Heading, Sentence, Table
from microtome.parameters.addresses import find
from microtome.parameters.decompose import Decomposition
from microtome.parameters.decomposed import Decomposed, Factors
from microtome.parameters.gates import HingeGates
from microtome.parameters.objectives import Minimal, Stochastic, squared
from microtome.parameters.scoreboard import FIRM, Score, scoreboard
from microtome.parameters.source import Feed
from microtome.parameters.spliced import Spliced
from microtome.store.records import Claim
from microtome.studies.chart import Chart, Series
from microtome.studies.drawing import Arrows
from microtome.studies.study import at_least, at_most
from microtome.toys import Superposition

OWN = "asked of this study; unpublished"
HIDDEN, OUTPUT = Site("hidden", "batch d"), Site("y", "batch d")
PARTS, LATENTS, AS_PARTS = "parts", "latents", "latents as parts"  # kinds of things that are tested
JUDGED = 512  # rows


@dataclass(frozen=True)
class Effort:
    """The adversary's steps at which it is looked at, and how many steps autoencoders and their gates learn."""

    curve: tuple[int, ...] = (1, 5, 20, 80, 320)
    steps: int = 4000
    gate_steps: int = 2000


@dataclass(frozen=True)
class Stand:
    """How one of them stands the tests. Harm is a share of what leaving everything out does to the output.

    `matter` counts what matters on some row at the hidden layer, `a_row` how much of it on a row in the mean, and
    `directions` are those that it writes there.
    """

    name: str
    kind: str
    importance: float
    stochastic: float
    adversarial: dict[int, float]
    a_row: float
    matter: int
    directions: list[list[float]]

    @classmethod
    def read(cls, plain: dict[str, Any]) -> "Stand":
        """From JSON, whose keys are words."""
        numbered: dict[str, Any] = {"adversarial": {int(k): v for k, v in plain["adversarial"].items()}}
        return cls(**(plain | numbered))


class Beside(NamedTuple):
    """Parts of a network's weights and autoencoders of its hidden layer, under the same tests."""

    stands: list[Stand]
    features: list[list[float]]  # the directions of the features in the hidden layer

    @property
    def spd(self) -> Stand:
        """All three weights masked."""
        return self.of(PARTS)[0]

    def of(self, kind: str) -> list[Stand]:
        return [s for s in self.stands if s.kind == kind]

    def plain(self) -> dict[str, Any]:
        return {"stands": [asdict(s) for s in self.stands], "features": self.features}

    @classmethod
    def read(cls, plain: dict[str, Any]) -> "Beside":
        return cls([Stand.read(s) for s in plain["stands"]], plain["features"])

    def claims(self, parts: int) -> tuple[Claim, ...]:
        """What must hold of SPD, and of each autoencoder: of the one that comes nearest to breaking the claim."""
        steps = max(self.spd.adversarial)
        split = min(s.matter for s in self.of(LATENTS)) / parts
        spd = self.spd.adversarial[steps]
        name = f"by an adversary of {steps} steps"
        return (
            at_least("latents of any autoencoder over dimensions of the identity", 1.5, split, source=OWN),
            *(
                at_least(f"harm {name}: {kind} of any autoencoder over SPD", 2.0,
                         min(s.adversarial[steps] for s in self.of(kind)) / spd, source=OWN)
                for kind in (LATENTS, AS_PARTS)
            ),
            at_most(f"harm {name}: to SPD, share of leaving all parts out", 0.1, spd, source=OWN),
        )  # fmt: skip

    def pieces(self) -> tuple[Heading | Sentence | Table | Arrows | Chart, ...]:
        return (
            Heading("Beside autoencoders: any combination left out"),
            Sentence(
                "Everything is put to the same masks, and each has gates learnt for the same objective. What SPD is "
                "asked of all three weights, autoencoders are asked of the hidden layer alone; so SPD is also shown "
                "with only the identity masked. Masks on a latent that is silent do nothing, so an autoencoder of "
                "which one latent fires on a row has little to fear. As parts of the identity, which read and write "
                "the same but have no threshold, latents that are said not to matter are not silent. Harm is the mean "
                "square error of the output, as a share of that with everything left out."
            ),
            arrows(self),
            table(self.stands),
            curves(self.stands),
        )


# ---------------------------------------------------------------- the tests


def beside(
    one: Decomposition, toy: Superposition, feed: Feed, minimal: float, effort: Effort, generator: torch.Generator
) -> Beside:
    """A decomposition of a toy with an identity, and autoencoders of its hidden layer with as many latents as parts."""
    x = feed.batch(JUDGED, (), generator).x
    stands = list(of_weights(one, x, effort, generator))
    width = one.parts.of(one.parts.names.index("between")).read.shape[0]
    for name, recipe in autoencoders(toy, feed, width, effort, generator):
        spliced = gated(recipe, toy, feed, minimal, effort, generator)
        stands += of_latents(name, spliced, recipe.dictionary, toy, x, effort, generator)
    return Beside(stands, unit(toy.encoder.T))


def of_weights(one: Decomposition, x: Tensor, effort: Effort, generator: torch.Generator) -> Iterator[Stand]:
    """Under masks of all three weights, and under masks of the identity with the other two whole."""
    with torch.no_grad():
        importance = one.parts.look(x).importance
    between, write = importance["between"], one.at("between").directions().write[:, 0]
    alone = {name: g if name == "between" else torch.ones_like(g) for name, g in importance.items()}
    for name, given in (("SPD", importance), ("SPD, identity alone", alone)):
        score = scoreboard(one.parts, x, generator=generator, curve=effort.curve, importance=given)
        yield stand(name, PARTS, score, between, write)


def of_latents(
    name: str,
    spliced: Spliced,
    of: Dictionary,
    toy: Superposition,
    x: Tensor,
    effort: Effort,
    generator: torch.Generator,
) -> Iterator[Stand]:
    """In the network's place at the hidden layer, and as parts of the identity."""
    with torch.no_grad():
        (g,) = spliced.look(x).importance.values()
    score = scoreboard(spliced, x, generator=generator, curve=effort.curve)
    yield stand(name, LATENTS, score, g, of.directions().write[:, 0])
    parts = as_parts(of, toy)
    score = scoreboard(parts, x, generator=generator, curve=effort.curve, importance={"between": g})
    yield stand(f"{name} as parts", AS_PARTS, score, g, parts.of(0).write)


def as_parts(latents: Dictionary, toy: Superposition) -> Decomposed:
    """Parts of the identity that read and write what the latents do; what these do not sum to is the rest."""
    (place,) = find(toy, "between")
    read, write = latents.directions()
    return Decomposed(toy, [place], {place: Factors(read[:, 0], write[:, 0])})


def stand(name: str, kind: str, score: Score, g: Tensor, directions: Tensor) -> Stand:
    """`g`: importances at the hidden layer, (row, component)."""
    matters = (g > FIRM).any(0)
    return Stand(
        name, kind, score.importance / score.nothing, score.stochastic / score.nothing,
        {steps: harm / score.nothing for steps, harm in score.adversarial.items()},
        float((g > FIRM).float().sum(-1).mean()), int(matters.sum()), unit(directions[matters]),
    )  # fmt: skip


def unit(vectors: Tensor) -> list[list[float]]:
    return normalize(vectors.detach(), dim=-1).tolist()


# ---------------------------------------------------------------- autoencoders


def autoencoders(
    toy: Superposition, feed: Feed, width: int, effort: Effort, generator: torch.Generator
) -> Iterator[tuple[str, Recipe]]:
    """Of several kinds, each trained on what passes through the identity."""

    @torch.no_grad()
    def hidden(rows: int) -> Tensor:
        return feed.batch(rows, (), generator).x @ toy.encoder.mT

    sample = hidden(4096)
    kinds: dict[str, Callable[[], Recipe]] = {
        "TopK 1": lambda: recipes.topk(HIDDEN, sample, width, 1, generator),
        "TopK 2": lambda: recipes.topk(HIDDEN, sample, width, 2, generator),
        "ReLU, L1": lambda: recipes.relu(HIDDEN, sample, width, 0.1, generator),
    }
    for name, make in kinds.items():
        recipe = make()
        for _ in fit(recipe.dictionary, (hidden(256) for _ in range(effort.steps)), recipe.objective, lr=3e-3):
            pass
        yield name, recipe


def gated(
    recipe: Recipe, toy: Superposition, feed: Feed, minimal: float, effort: Effort, generator: torch.Generator
) -> Spliced:
    """The autoencoder in the network's place, with gates learnt as SPD learns its own."""
    model = load(toy, sites=toy.sites)
    spliced = Spliced(model, [recipe.dictionary], OUTPUT, HingeGates(), generator)
    objective = (Stochastic() + minimal * Minimal()).of(squared, generator)
    for _ in fit(spliced, feed.batches(128, effort.gate_steps, (), generator), objective, lr=1e-2):
        pass
    return spliced


# ---------------------------------------------------------------- the figure


def arrows(both: Beside) -> Arrows:
    """Directions in the hidden layer's plane, all of length 1."""
    first = [(f"{len(both.features)} features", both.features), (f"SPD: {both.spd.matter} parts", both.spd.directions)]
    others = [(f"{s.name}: {s.matter} latents", s.directions) for s in both.of(LATENTS)]
    return Arrows(
        "What is written in the hidden layer, by features, by parts of the identity and by latents",
        [(name, [plane(v) for v in vectors]) for name, vectors in (*first, *others)], reach=1.15,
    )  # fmt: skip


def plane(vector: Sequence[float]) -> tuple[float, float]:
    return vector[0], vector[1]


def table(stands: list[Stand]) -> Table:
    steps = list(stands[0].adversarial)
    head = ["", "matter", "a row", "kept", "drawn", *(f"{n} step{'s' * (n > 1)}" for n in steps)]
    rows = [
        [s.name, str(s.matter), f"{s.a_row:.2f}", f"{s.importance:.3f}", f"{s.stochastic:.3f}",
         *(f"{s.adversarial[n]:.3g}" for n in steps)]
        for s in stands
    ]  # fmt: skip
    caption = "Harm where only what matters is kept, under drawn masks, and by an adversary"
    return Table(head, rows, caption, numeric=tuple(range(1, len(head))))


def curves(stands: list[Stand]) -> Chart:
    kinds = [s.kind for s in stands]
    series = [
        Series(s.name, list(s.adversarial), [max(v, 1e-6) for v in s.adversarial.values()], colour(kinds, i),
               "dashed" if s.kind == AS_PARTS else "line")
        for i, s in enumerate(stands)
    ]  # fmt: skip
    return Chart("What an adversary finds", "steps of ascent", "harm, as a share of leaving everything out", series)


def colour(kinds: list[str], place: int) -> int:
    """Latents and what they are as parts have the same."""
    return sum(kind != AS_PARTS for kind in kinds[: place + 1]) - 1
