"""`microtome bench`: how long the product's own steps take, beside the floor that nothing could beat here.

A floor is measured in turn with the step it bounds, so that a busy machine slows both: quote the share.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from microtome.cli.bench_circuits import CircuitTiming, show_circuits, time_circuits
from microtome.cli.bench_sae import Point, time_sae
from microtome.cli.figures import write_figures
from microtome.cli.timing import Timing, compared, show
from microtome.core.inputs import Tokens

if TYPE_CHECKING:
    from microtome.models.hooked import HookedModel


def bench(
    what: Literal["run", "harvest", "sae", "circuits", "all"] = "all",
    /,
    *,
    model: str = "specimen",
    d_in: int = 256,
    width: int = 4096,
    k: int = 32,
    batch: int = 2048,
    repeats: int = 15,
    dead: float = 0.0,
    json: Path | None = None,
) -> list[Timing] | list[CircuitTiming]:
    """Time the product's steps and print a table. What is marked is the way that `fit` takes here.

    Parameters
    ----------
    what
        run: a forward pass with 12 sites read; harvest: a pass that stops at resid_post.2; sae: one training step,
        each way there is here, and the selection of BatchTopK; circuits (not part of all, as it takes many minutes):
        a sweep of heads and positions, edge attribution and attribution graphs, on random models of fixed shapes.
    model
        The model to run.
    d_in
        Width of the activations that the dictionary is trained on.
    width
        Latents.
    k
        Latents active on each token.
    batch
        Tokens per training step.
    repeats
        Times that each step is taken, in turn with its floor; the median counts.
    dead
        Share of the latents that are dead, from 0 to 1, so that AuxK acts.
    json
        Also write the figures to this file.
    """
    if what == "circuits":
        return circuits(json)
    wanted = ("run", "harvest", "sae") if what == "all" else (what,)
    point = Point(d_in, width, k, batch, repeats, dead)
    benches = {
        "run": lambda: [time_run(loaded(model), repeats)],
        "harvest": lambda: [time_harvest(loaded(model), repeats)],
        "sae": lambda: time_sae(point),
    }
    found = [timing for name in wanted for timing in benches[name]()]
    write_figures(found, json)
    show(found)
    return found


def circuits(json: Path | None) -> list[CircuitTiming]:
    """The rows of `microtome bench circuits`."""
    found = time_circuits()
    write_figures(found, json)
    show_circuits(found)
    return found


def loaded(model: str) -> "HookedModel":
    from microtome.models.load import load  # the step needs none of what a model brings with it

    return load(model)


@torch.no_grad()
def time_run(model: "HookedModel", repeats: int) -> Timing:
    """A forward pass with 12 sites read, beside the bare module's."""
    ids = some_tokens(model, rows=4)
    inner = [*model.sites("resid_*"), *model.sites("attn_out.*"), *model.sites("mlp_out.*")]
    sites = [*inner[:11], model.site("logits")]
    return compared(
        "run, 12 sites",
        lambda: model.run(ids, read=sites),
        "the bare module",
        lambda: ids.call(model.module),
        ids.ids.numel(),
        repeats,
    )


@torch.no_grad()
def time_harvest(model: "HookedModel", repeats: int) -> Timing:
    """A pass that stops at a middle site, beside the whole module's."""
    ids = some_tokens(model, rows=4)
    middle = model.sites("resid_post.*")
    site = middle[len(middle) // 2]
    return compared(
        f"harvest {site}",
        lambda: model.run(ids, read=[site]),
        "the whole module",
        lambda: ids.call(model.module),
        ids.ids.numel(),
        repeats,
    )


def some_tokens(model: "HookedModel", rows: int, context: int = 256) -> Tokens:
    config: Any = model.module.config
    most = min(context, model.context or context)
    ids = torch.randint(config.vocab_size, (rows, most), generator=torch.Generator().manual_seed(0))
    return Tokens.of(ids)
