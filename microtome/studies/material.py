"""What studies of a model's activations are made of: windows of text, and harvests of some sites."""

from collections.abc import Iterator, Sequence

from microtome.core.site import Site
from microtome.data.corpus import corpus
from microtome.data.text import Part
from microtome.data.windows import Window
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
