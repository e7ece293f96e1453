"""Are latents easier to put into words than neurons, and than directions that were never learned?

One layer, cut four ways on the same tokens with the same number of components active at once: a sparse autoencoder of
the stream after it, the neurons of its MLP, and two dictionaries of the stream whose directions are frozen as they were
drawn (all of them, or only those that are written). Each component gets a rule from training text and is scored
on held-out text by balanced accuracy over tokens and by simulation. Bricken et al. 2023, Towards Monosemanticity; that
frozen random directions come close is Sanity checks of sparse autoencoders, arXiv 2602.14111.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.component import Dictionary
from microtome.core.fit import fit
from microtome.core.schedule import Linear, WarmUp
from microtome.core.site import Site
from microtome.data.corpus import cut, documents
from microtome.data.labels import LABELS, label_tokens
from microtome.data.windows import Text, gather, pieces
from microtome.dictionaries import recipes
from microtome.dictionaries.baselines import Strongest, random_dictionary
from microtome.dictionaries.files import load_dictionary, save_dictionary
from microtome.dictionaries.recipes import Recipe
from microtome.dictionaries.sae import SAE
from microtome.evals.reconstruction import Variance
from microtome.explain.catalog import Cataloguer
from microtome.explain.evidence import balanced
from microtome.explain.grades import correlation
from microtome.explain.judges import RuleJudge
from microtome.explain.passages import draw
from microtome.explain.rules import Explainer, Proposal, following
from microtome.explain.sentences import sentence
from microtome.models.hooked import HookedModel
from microtome.models.load import load
from microtome.models.neurons import neurons
from microtome.store.catalog import Catalog, Column
from microtome.store.shards import Activations
from microtome.store.survey import Witness, surveying
from microtome.studies.kept import Kept
from microtome.studies.material import harvested
from microtome.studies.monosemanticity_page import Cutting, Worded, claims, shown
from microtome.studies.splitting import Splitting, splitting
from microtome.studies.study import Report, Setting, Study, Watch

SAMPLE = 20_000  # rows from which units are taken


@dataclass(frozen=True)
class Size:
    """How large everything is. `components` of each dictionary are explained; `narrow` is the width that splits.

    Training has the budget of `microtome dissect`.
    """

    tokens: int = 2_000_000
    epochs: int = 3
    width: int = 4096
    narrow: int = 1024
    k: int = 32
    batch: int = 2048
    held_out: int = 250_000  # tokens that rules are scored on
    proposals: int = 400_000  # tokens of training text that rules are proposed from
    components: int = 256
    passages: int = 20  # of each kind that simulation is scored on
    rate: float = 4e-3


FULL = Size()
QUICK = Size(tokens=60_000, epochs=3, width=512, narrow=128, k=16, batch=512, held_out=20_000, proposals=20_000,
             components=40)  # fmt: skip


class Monosemanticity(Study):
    name = "monosemanticity"
    paper = "Bricken et al. 2023, Towards Monosemanticity; baselines of arXiv 2602.14111"
    question = "Are latents easier to put into words than neurons, and than directions frozen as they were drawn?"

    def __init__(self, quick: Size = QUICK, full: Size = FULL) -> None:
        self.quick, self.full = quick, full

    def run(self, setting: Setting, watch: Watch) -> Report:
        material = Material(setting, self.quick if setting.quick else self.full, watch)
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
    """The network, its text and its dictionaries, each made when first asked for and kept in the study's folder."""

    setting: Setting
    size: Size
    watch: Watch

    @cached_property
    def model(self) -> HookedModel:
        return load(self.setting.model, device=self.setting.device)

    @cached_property
    def site(self) -> Site:
        """The stream after a middle layer."""
        return self.model.site(f"resid_post.{len(self.model.sites('mlp_act.*')) // 2}")

    @cached_property
    def activations(self) -> Activations:
        return harvested(self.model, [self.site], self.setting, "train", self.size.tokens, self.watch)

    @cached_property
    def sample(self) -> Float[Tensor, "rows d"]:
        return self.activations.sample(SAMPLE, self.setting.seed)

    @cached_property
    def held_out(self) -> Text:
        return self._text(documents(self.setting.text, "held_out", self.setting.seed), self.size.held_out)

    @cached_property
    def proposals(self) -> Text:
        """Training text; those documents first that were harvested last."""
        found = documents(self.setting.text, "train", self.setting.seed)
        return self._text(list(reversed(found)), self.size.proposals)

    def _text(self, found: list, tokens: int) -> Text:
        python = all(path.endswith(".py") for path in self.setting.text)
        windows = cut(self.model, found, label=label_tokens if python else None)
        context = min(256, self.model.context or 256)
        return gather(windows, max(1, tokens // (context - 1)))

    @cached_property
    def kept(self) -> Kept:
        about = {**asdict(replace(self.setting, into=self.setting.into.parent)), "size": asdict(self.size), "into": ""}
        return Kept(self.setting.into / "cuttings.jsonl", about)

    # ------------------------------------------------------------ dictionaries

    def dictionary(self, name: str) -> Dictionary:
        if name == "neurons":
            layer = self.site.layer
            assert layer is not None
            return Strongest(neurons(self.model, layer), self.size.k)
        if name == "frozen random":
            return random_dictionary(self.site, self.sample, self.size.width, self.size.k, self._drawn())
        return self._learned(name)

    def _learned(self, name: str) -> SAE:
        """Trained once for this size and seed."""
        width = self.size.narrow if name == "narrow" else self.size.width
        marks = [name.replace(" ", "-"), width, self.size.k, self.size.tokens, self.size.epochs, self.setting.seed]
        folder = self.setting.into / "-".join(map(str, marks))
        if not (folder / "dictionary.json").exists():
            make = recipes.frozen_decoder if name == "frozen decoder" else recipes.topk
            recipe = make(self.site, self.sample, width, self.size.k, self._drawn())
            self._learn(recipe, name)
            recipe.dictionary.requires_grad_(False)
            save_dictionary(recipe.dictionary, folder)
        return load_dictionary(folder).to(self.setting.device)

    def _drawn(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.setting.seed)

    def _learn(self, recipe: Recipe, name: str) -> None:
        """The same rows in the same order for all."""
        size = self.size
        steps = self.activations.batches_in(size.epochs, size.batch)
        batches = self.activations.batches(size.batch, epochs=size.epochs, seed=self.setting.seed)
        moved = (batch.to(self.setting.device) for batch in batches)
        schedule = WarmUp(50) * Linear(int(0.3 * steps), steps + 1)
        learned = recipe.dictionary.to(self.setting.device)
        with self.watch.stage(f"fit {name}", steps, "steps") as advance:
            for step in fit(learned, moved, recipe.objective.to(self.setting.device), lr=size.rate, schedule=schedule):
                advance(step.index)

    # ------------------------------------------------------------ what they are like

    def cuttings(self) -> dict[str, Cutting]:
        """Every dictionary, catalogued and put into words. What was found before a stop is not made again."""
        new = [name for name in NAMES if name not in self.kept.found]
        seen = self._seen(new) if new else {}
        return {name: self._restored(self.kept.of(name, lambda n=name: self._cutting(n, *seen[n]))) for name in NAMES}

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
        with self.watch.stage(f"catalogue {part}", len(text), "windows") as advance:
            for seen in surveying(self.model, [*made.values(), *beside], text.tokens):
                advance(seen)
        labels = LABELS if text.labels.shape[2] else ()
        return {name: one.finish(vocabulary=self._vocabulary, labels=labels) for name, one in made.items()}

    @cached_property
    def _vocabulary(self) -> list[str]:
        return pieces(self.model.tokenizer, range(len(self.model.tokenizer)))

    def _words(self, name: str, scored: Catalog, proposed: Catalog) -> Iterator[Worded]:
        explainer = Explainer.of(scored, self.setting.seed, proposed)
        shift = len(scored.windows["tokens"]) * scored.context
        columns = {n: following(scored.column(n), proposed.column(n), shift) for n in range(len(scored))}
        density = scored.components["density"]
        found: list[tuple[Proposal, Column]] = []
        with self.watch.stage(f"explain {name}", len(columns), "components") as advance:
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
