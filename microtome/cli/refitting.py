"""Dictionaries fitted anew for the card: over the directions of others, and on activations whose features are known."""

from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.component import Dictionary
from microtome.core.fit import fit
from microtome.core.schedule import Linear, WarmUp
from microtome.core.site import Site
from microtome.data.synthetic import small
from microtome.dictionaries import recipes
from microtome.dictionaries.baselines import random_dictionary
from microtome.dictionaries.recipes import Recipe, Sample
from microtome.dictionaries.sae import SAE
from microtome.evals.card import OWN, as_scored
from microtome.evals.ground_truth import Estimate, Recovery, recovery
from microtome.evals.interval import Interval
from microtome.store.records import Best, CardRow

Make = Callable[[Site, Sample, int, int, torch.Generator], Recipe]
SITE = Site("synthetic", "batch d")
BATCH, RATE, JUDGED = 1024, 3e-3, 20_000
META_BATCH, META_STEPS = 512, 1000
KINDS: dict[str, Make] = {  # by activation, which is all that a dictionary tells of how it was made
    "TopK": recipes.topk,
    "AbsTopK": recipes.abs_topk,
    "BatchTopK": recipes.batch_topk,
    "JumpReLU": lambda site, sample, width, k, g: recipes.jump_relu_target(site, sample, width, float(k), g),
}


def kind_of(dictionary: Dictionary) -> str | None:
    """The activation of an autoencoder of which a sparsity can be asked, or None."""
    name = type(dictionary.activation).__name__ if isinstance(dictionary, SAE) else ""
    return name if name in KINDS else None


def recovered_truth(kind: str, generator: torch.Generator, steps: int) -> Recovery:
    """What autoencoders of this kind find where features are known: `synthetic.small`, as wide as it has features."""
    source = small(generator)
    sample, width, k = source.draw(4000, generator).x, len(source.truth.directions), round(source.l0)
    recipe = KINDS[kind](SITE, sample, width, k, generator)
    learned(recipe, source.batches(BATCH, steps, generator), steps)
    chance = random_dictionary(SITE, sample, width, k, generator)
    return recovery(recipe.dictionary, source, chance=chance, generator=generator, rows=JUDGED)


def truth_rows(kind: str, found: Recovery) -> list[CardRow]:
    """What this kind of autoencoder finds of known features, beside random directions of the same sparsity."""
    on = f"of {kind} fitted to synthetic activations, as wide as they have features, paired one to one by cosine"
    told: tuple[tuple[str, Best, str, Estimate], ...] = (
        ("MCC, known features", "high", f"mean |cosine| of directions, {on}", found.mcc),
        ("F1, known features", "high", f"mean F1 of firing, {on}", found.f1),
        ("shrinkage, known features", "one", f"slope of what is written on what is true, {on}", found.shrinkage),
    )  # fmt: skip
    return [
        CardRow(
            name=name, group="structure", about=about, best=best,
            scores={
                OWN: as_scored(Interval(e.found, e.low, e.high)), "random": as_scored(Interval(e.chance)),
            },
        )
        for name, best, about, e in told
    ]  # fmt: skip


def over_directions(rows: Float[Tensor, "directions d"], width: int, k: int) -> Dictionary:
    """TopK over directions as data; always the same of the same directions."""
    generator = torch.Generator().manual_seed(0)
    recipe = recipes.topk(SITE, rows, width, k, generator)
    drawn = (rows[torch.randint(len(rows), (META_BATCH,), generator=generator)] for _ in range(META_STEPS))
    return learned(recipe, drawn, META_STEPS)


def learned(recipe: Recipe, batches: Iterable[Tensor], steps: int) -> Dictionary:
    """The recipe's dictionary, after so many steps."""
    schedule = WarmUp(min(50, steps)) * Linear(int(0.3 * steps), steps)
    for _ in fit(recipe.dictionary, batches, recipe.objective, lr=RATE, schedule=schedule):
        pass
    return recipe.dictionary.requires_grad_(False)
