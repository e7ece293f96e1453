"""Are latents easier to put into words than neurons, and than directions that were never learned?

One layer, cut four ways on the same tokens with the same number of components active at once: a sparse autoencoder of
the stream after it, the neurons of its MLP, and two dictionaries of the stream whose directions are frozen as they were
drawn (all of them, or only those that are written). Each component gets a rule from training text and is scored
on held-out text by balanced accuracy over tokens and by simulation. Bricken et al. 2023, Towards Monosemanticity; that
frozen random directions come close is Sanity checks of sparse autoencoders, arXiv 2602.14111.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.component import Dictionary
from microtome.core.site import Site
from microtome.data.windows import Text
from microtome.dictionaries import recipes
from microtome.dictionaries.baselines import Strongest, frozen_encoder, principal_components, random_dictionary
from microtome.dictionaries.sae import SAE
from microtome.evals.reconstruction import Variance
from microtome.explain.catalog import Cataloguer
from microtome.explain.evidence import balanced
from microtome.explain.grades import correlation
from microtome.explain.judges import RuleJudge
from microtome.explain.passages import draw
from microtome.explain.rules import Explainer, Proposal, following
from microtome.explain.sentences import sentence
from microtome.models.neurons import neurons
from microtome.store.catalog import Catalog, Column
from microtome.store.survey import Witness, surveying
from microtome.studies.kept import Kept
from microtome.studies.monosemanticity_page import Cutting, Worded, claims, shown
from microtome.studies.slide import LONG, SHORT, Slide, Training
from microtome.studies.splitting import Splitting, splitting
from microtome.studies.study import Report, Setting, Study, Watch


@dataclass(frozen=True)
class Size:
    """How large everything is. `components` of each dictionary are explained; `narrow` is the width that splits."""

    training: Training = LONG
    width: int = 4096
    narrow: int = 1024
    held_out: int = 250_000  # tokens that rules are scored on
    proposals: int = 400_000  # tokens of training text that rules are proposed from
    components: int = 256
    passages: int = 20  # of each kind that simulation is scored on


FULL = Size()
QUICK = Size(SHORT, width=512, narrow=128, held_out=20_000, proposals=20_000, components=40)


class Monosemanticity(Study):
    name = "monosemanticity"
    paper = "Bricken et al. 2023, Towards Monosemanticity; baselines of arXiv 2602.14111"
    question = "Are latents easier to put into words than neurons, and than directions frozen as they were drawn?"

    def __init__(self, quick: Size = QUICK, full: Size = FULL) -> None:
        self.quick, self.full = quick, full

    def run(self, setting: Setting, watch: Watch) -> Report:
        size = self.quick if setting.quick else self.full
        material = Material(Slide(setting, size.training, watch), size, NAMES)
        found = material.cuttings()
        split = material.splitting()
        found.pop("narrow")
        generator = np.random.default_rng(setting.seed)
        return Report(claims(found, split, generator), shown(found, split, generator))


STUDY = Monosemanticity()
NAMES = ("latents", "neurons", "frozen random", "frozen decoder", "narrow")  # the last for splitting alone


# ---------------------------------------------------------------- what everything is made of


@dataclass(frozen=True)
class Material:
    """A slide and the dictionaries of these names, each cut when first asked for and kept in the study's folder."""

    slide: Slide
    size: Size
    names: tuple[str, ...]

    @property
    def setting(self) -> Setting:
        return self.slide.setting

    @cached_property
    def held_out(self) -> Text:
        return self.slide.text("held_out", self.size.held_out)

    @cached_property
    def proposals(self) -> Text:
        return self.slide.text("train", self.size.proposals)

    @cached_property
    def kept(self) -> Kept:
        about = {**asdict(replace(self.setting, into=self.setting.into.parent)), "size": asdict(self.size), "into": ""}
        return Kept(self.setting.into / "cuttings.jsonl", about)

    # ------------------------------------------------------------ dictionaries

    def dictionary(self, name: str) -> Dictionary:
        slide, width, k = self.slide, self.size.width, self.size.training.k
        baselines: dict[str, Callable[[], Dictionary]] = {
            "neurons": lambda: Strongest(neurons(slide.model, layer_of(slide.site)), k),
            "frozen random": lambda: random_dictionary(slide.site, slide.sample, width, k, self._drawn()),
            "frozen encoder": lambda: frozen_encoder(slide.site, slide.sample, width, k, self._drawn(1)),
            "principal": lambda: Strongest(all_principal(slide.site, slide.sample), k),
        }
        return baselines[name]() if name in baselines else self._learned(name)

    def _learned(self, name: str) -> SAE:
        width = self.size.narrow if name == "narrow" else self.size.width
        make = recipes.frozen_decoder if name == "frozen decoder" else recipes.topk
        return self.slide.learned(name, make, width)

    def _drawn(self, more: int = 0) -> torch.Generator:
        """Of the setting's seed, or so many more: two dictionaries of one seed would have the same encoder."""
        return torch.Generator().manual_seed(self.setting.seed + more)

    # ------------------------------------------------------------ what they are like

    def cuttings(self) -> dict[str, Cutting]:
        """Every dictionary, catalogued and put into words. What was found before a stop is not made again."""
        new = [name for name in self.names if name not in self.kept.found]
        seen = self._seen(new) if new else {}
        return {
            name: self._restored(self.kept.of(name, lambda n=name: self._cutting(n, *seen[n]))) for name in self.names
        }

    def _restored(self, found: dict[str, Any]) -> Cutting:
        return Cutting(**{**found, "words": [Worded(*row) for row in found["words"]]})

    def _cutting(self, name: str, variance: Variance, scored: Catalog, proposed: Catalog) -> dict[str, Any]:
        fired = (variance.fired / variance.rows).tolist()
        words = list(self._words(name, scored, proposed))
        tried = sum(density > 0 for density in fired[: len(scored)])
        return Cutting(name, variance.explained, variance.l0, tried, fired, words)._asdict()

    def _seen(self, names: Sequence[str]) -> dict[str, tuple[Variance, Catalog, Catalog]]:
        """Each dictionary's variance and catalogues, in one pass over each text: the first components, for their order
        means nothing.
        """
        dictionaries = {name: self.dictionary(name).to(self.setting.device) for name in names}
        variances = {name: Variance(dictionary) for name, dictionary in dictionaries.items()}
        scored = self._catalogs("held-out", self.held_out, dictionaries, [*variances.values()])
        proposed = self._catalogs("proposals", self.proposals, dictionaries, [])
        return {name: (variances[name], scored[name], proposed[name]) for name in names}

    def _catalogs(
        self, part: str, text: Text, dictionaries: Mapping[str, Dictionary], beside: Sequence[Witness]
    ) -> dict[str, Catalog]:
        folder, most = self.setting.into / "catalogs" / part, self.size.components
        made = {
            name: Cataloguer(dictionary, text, folder / name.replace(" ", "-"), most)
            for name, dictionary in dictionaries.items()
        }
        with self.slide.watch.stage(f"catalogue {part}", len(text), "windows") as advance:
            for seen in surveying(self.slide.model, [*made.values(), *beside], text.tokens):
                advance(seen)
        marks = {"vocabulary": self.slide.vocabulary, "labels": self.slide.labels}
        return {name: one.finish(**marks) for name, one in made.items()}

    def _words(self, name: str, scored: Catalog, proposed: Catalog) -> Iterator[Worded]:
        explainer = Explainer.of(scored, self.setting.seed, proposed)
        shift = len(scored.windows["tokens"]) * scored.context
        columns = {n: following(scored.column(n), proposed.column(n), shift) for n in range(len(scored))}
        density = scored.components["density"]
        found: list[tuple[Proposal, Column]] = []
        with self.slide.watch.stage(f"explain {name}", len(columns), "components") as advance:
            for done, (number, column) in enumerate(columns.items(), 1):
                found += [(proposal, column) for proposal in explainer.propose(number, column)]
                advance(done)
        for place, (proposal, column) in enumerate(found):
            other = found[(place + 1) % len(found)][0]
            yield worded(explainer, proposal, other, column, float(density[proposal.component]), self.size.passages)

    def splitting(self) -> Splitting:
        """Of the narrow dictionary's latents in the wide one; those that never fired are left out."""
        (wide, often), (narrow, seldom) = self._live("latents"), self._live("narrow")
        return splitting(wide, narrow, (often, seldom), self._drawn())

    def _live(self, name: str) -> tuple[Float[Tensor, "latents d"], Float[Tensor, "latents"]]:
        """Directions written by the latents that fire, and how often each does."""
        densities = torch.tensor(self.kept.found[name]["densities"])
        written = self._learned(name).directions().write[:, 0].float().cpu()
        return written[densities > 0], densities[densities > 0]


def layer_of(site: Site) -> int:
    assert site.layer is not None
    return site.layer


def all_principal(site: Site, sample: Float[Tensor, "rows d"]) -> Dictionary:
    return principal_components(site, sample, sample.shape[1])


def worded(
    explainer: Explainer, proposal: Proposal, other: Proposal, column: Column, density: float, passages: int
) -> Worded:
    """The rule's scores on held-out text, and those of another component's rule on the same."""
    generator = np.random.default_rng([explainer.seed, proposal.component, 3])
    drawn = draw(column, explainer.proposal, explainer.scoring, passages, generator)
    seen = drawn.strongest + drawn.blind
    evidence, each = proposal.held_out, np.ones((1, len(seen)))

    def accuracy(one: Proposal) -> float:
        return balanced(evidence, one.rule.holds(explainer.reading, evidence.places))

    def simulated(one: Proposal) -> float:
        judge = RuleJudge(one.rule, explainer.reading)
        return float(correlation(judge.simulate(seen), seen.active.clip(0), each)[0])

    text = sentence(proposal.rule, explainer.reading.vocabulary)
    return Worded(proposal.component, text, density, accuracy(proposal), simulated(proposal), accuracy(other),
                  simulated(other))  # fmt: skip
