"""`microtome bench`: how long the product's own steps take, beside the floor that nothing could beat here.

A floor is measured in turn with the step it bounds, so that a busy machine slows both: quote the share.
"""

import json as json_format
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from microtome.core.fit import fit
from microtome.core.inputs import Tokens
from microtome.core.site import Site
from microtome.dictionaries.activation_functions import TopK
from microtome.dictionaries.objectives import AuxK, Reconstruction
from microtome.dictionaries.sae import SAE
from microtome.dictionaries.selection import fast_bfloat16
from microtome.models.hooked import HookedModel
from microtome.models.load import load


class Timing(BaseModel):
    """One step. `floor_ms` cannot be saved (`floor` says what it is); `floor_share` is floor_ms / step_ms."""

    name: str
    step_ms: float
    tokens_per_second: float
    peak_memory_bytes: int
    floor: str
    floor_ms: float
    floor_share: float


def bench(
    what: Literal["run", "harvest", "sae", "all"] = "all",
    /,
    *,
    model: str = "specimen",
    d_in: int = 256,
    width: int = 4096,
    k: int = 32,
    batch: int = 2048,
    repeats: int = 15,
    json: Path | None = None,
) -> list[Timing]:
    """Time the product's steps and print a table.

    Parameters
    ----------
    what
        run: a forward pass with 12 sites read; harvest: a pass that stops at resid_post.2; sae: one training step.
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
    json
        Also write the figures to this file.
    """
    wanted = ("run", "harvest", "sae") if what == "all" else (what,)
    benches = {
        "run": lambda: time_run(load(model), repeats),
        "harvest": lambda: time_harvest(load(model), repeats),
        "sae": lambda: time_sae(d_in, width, k, batch, repeats),
    }
    found = [benches[name]() for name in wanted]
    if json is not None:
        json.write_text(json_format.dumps([t.model_dump() for t in found], indent=1))
    show(found)
    return found


def time_run(model: HookedModel, repeats: int) -> Timing:
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


def time_harvest(model: HookedModel, repeats: int) -> Timing:
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


def some_tokens(model: HookedModel, rows: int, context: int = 256) -> Tokens:
    config: Any = model.module.config
    most = min(context, getattr(config, "max_position_embeddings", context))
    ids = torch.randint(config.vocab_size, (rows, most), generator=torch.Generator().manual_seed(0))
    return Tokens.of(ids)


def time_sae(d_in: int, width: int, k: int, batch: int, repeats: int) -> Timing:
    """One training step of a TopK dictionary, beside the encoder's product alone in the precision of the search."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, d_in, generator=generator)
    sae = SAE(Site("bench", "batch d"), d_in, width, TopK(k), generator=generator)
    learning = fit(sae, [], Reconstruction() + AuxK(width))
    dtype = torch.bfloat16 if fast_bfloat16(x.device) else torch.float32
    low, weights = x.to(dtype), sae.W_enc.detach().to(dtype)
    floor = f"encoder product, {str(dtype).removeprefix('torch.')}"
    return compared(
        f"sae step {d_in} x {width}, k {k}",
        lambda: learning.step(x),
        floor,
        lambda: low @ weights.T,
        batch,
        repeats,
        grad=True,
    )


def compared(
    name: str,
    step: Callable[[], object],
    floor: str,
    bound: Callable[[], object],
    tokens: int,
    repeats: int,
    grad: bool = False,
) -> Timing:
    """Both in turn, `repeats` times after a warm-up; medians."""
    pairs = []
    for _ in range(repeats + 2):
        with torch.set_grad_enabled(grad):
            pairs.append((seconds(step), seconds(bound)))
    mine, floors = (statistics.median(part) for part in zip(*pairs[2:], strict=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Timing(
        name=name, step_ms=mine * 1e3, tokens_per_second=tokens / mine, peak_memory_bytes=peak, floor=floor,
        floor_ms=floors * 1e3, floor_share=floors / mine,
    )  # fmt: skip


def seconds(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def show(found: list[Timing]) -> None:
    table = Table(title=f"{torch.get_num_threads()} threads, torch {torch.__version__}", title_justify="left")
    for column in ("", "ms", "tokens/s", "floor", "floor ms", "share"):
        table.add_column(column, justify="left" if column in ("", "floor") else "right")
    for t in found:
        table.add_row(
            t.name,
            f"{t.step_ms:.1f}",
            f"{t.tokens_per_second:,.0f}",
            t.floor,
            f"{t.floor_ms:.1f}",
            f"{t.floor_share:.0%}",
        )
    Console().print(table)
