"""What studies of a model's activations are made of: windows of text, harvests of some sites, a dictionary of one."""

from collections.abc import Iterator, Sequence

import torch

from microtome.core.component import Dictionary
from microtome.core.fit import fit
from microtome.core.schedule import Linear, WarmUp
from microtome.core.site import Site
from microtome.data.corpus import corpus
from microtome.data.text import Part
from microtome.data.windows import Window
from microtome.dictionaries import recipes
from microtome.models.hooked import HookedModel
from microtome.store.harvest import harvesting
from microtome.store.shards import Activations
from microtome.studies.study import Setting, Watch


def read(model: HookedModel, setting: Setting, part: Part) -> Iterator[Window]:
    """Windows of the study's text, its documents shuffled."""
    return corpus(model, setting.text, part, seed=setting.seed)


def harvested(
    model: HookedModel, sites: Sequence[Site], setting: Setting, part: Part, tokens: int, watch: Watch
) -> Activations:
    """Aligned rows of some sites, in the study's folder. Says so where the text holds fewer tokens."""
    folder = setting.into / f"activations-{part.replace('_', '-')}"
    about = {"model": setting.model, "seed": setting.seed}
    with watch.stage("harvest", tokens, "tokens") as advance:
        for progress in harvesting(model, read(model, setting, part), sites, tokens, folder, about=about):
            advance(progress.rows)
    found = Activations(folder)
    if len(found) < tokens:
        watch.say(f"the text holds only {len(found):,} tokens of the {tokens:,} wanted; using them all")
    return found


def topk_of(
    model: HookedModel,
    site: Site,
    setting: Setting,
    watch: Watch,
    *,
    tokens: int,
    passes: int,
    width: int,
    k: int,
    rate: float,
) -> Dictionary:
    """A TopK autoencoder of a site, learned from so many tokens, several times over."""
    acts = harvested(model, [site], setting, "train", tokens, watch).at(site)
    generator = torch.Generator().manual_seed(setting.seed)
    recipe = recipes.topk(site, acts.sample(10_000, setting.seed), width, k, generator)
    batch = 1024
    steps = acts.batches_in(passes, batch)
    schedule = WarmUp(20) * Linear(steps // 2, steps + 1)
    batches = acts.batches(batch, epochs=passes, seed=setting.seed)
    learning = fit(recipe.dictionary, batches, recipe.objective, lr=rate, clip=1.0, schedule=schedule)
    with watch.stage("fit", steps, "steps") as advance:
        for step in learning:
            advance(step.index)
    return recipe.dictionary
