"""`microtome plan`: how long a harvest and its training would take here, and what they need, before either is begun.

Bytes follow from shapes. Hours are measured on a few batches and multiplied, so they hold for this machine as busy as
it is now.
"""

import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from itertools import islice, repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, cast

import torch
from rich.console import Console
from rich.table import Table

from microtome.cli.bench import some_tokens
from microtome.cli.figures import write_figures
from microtome.core.errors import Refusal
from microtome.core.fit import fit
from microtome.core.inputs import Tokens
from microtome.core.site import Site
from microtome.dictionaries.activation_functions import TopK
from microtome.dictionaries.objectives import AuxK, Reconstruction
from microtome.dictionaries.sae import SAE
from microtome.models.hooked import HookedModel
from microtome.models.load import load
from microtome.store.harvest import Harvested, harvesting
from microtome.store.passes import Reader
from microtome.store.quantised import Codec, codec_named
from microtome.store.records import Estimate, Plan

AT_ONCE = 32  # windows in a forward pass, as in a harvest
ENOUGH = 5.0  # seconds for which each of the two is measured
SHARD = 262_144  # rows of a shard, which wait in memory until it is written
FLOAT = 4  # bytes


def plan(
    model: str,
    /,
    *,
    site: str = "resid_post.2",
    tokens: float = 2e6,
    width: int = 4096,
    k: int = 32,
    dictionaries: int = 1,
    stored: str = "bfloat16",
    context: int = 256,
    epochs: int = 2,
    batch: int = 2048,
    device: str = "cpu",
    json: Path | None = None,
) -> Plan:
    """Estimate the hours, the disk and the memory of a harvest and of training on it, in some ten seconds.

    Parameters
    ----------
    model
        A folder in Hugging Face's format, a hub name, or `specimen` (ships with the package).
    site
        Where activations would be harvested.
    tokens
        Tokens of activations.
    width
        Latents of a dictionary.
    k
        Latents active on each token.
    dictionaries
        Dictionaries trained on the same stream, one after the other within each batch.
    stored
        How rows are written: bfloat16 (2 bytes a number), int8 (1, and a scale for each row) or float32.
    context
        Tokens per window, at most the model's limit.
    epochs
        Passes over the harvested activations.
    batch
        Tokens per training step.
    device
        Where the model runs and dictionaries learn.
    json
        Also write the figures to this file.
    """
    refuse_nonsense(tokens=tokens, width=width, k=k, dictionaries=dictionaries, epochs=epochs, batch=batch)
    if k > width:
        raise Refusal(f"k is {k}, more than the {width} components there would be; lower --k or raise --width")
    codec, asked = codec_named(stored), int(tokens)
    loaded = load(model, device=device, verify=False)
    ids = some_tokens(loaded, AT_ONCE, context).to(device)
    d = row_width(loaded, loaded.site(site), ids)
    sizes = Sizes(d, width, asked, codec)
    harvest, steps = timed_harvest(loaded, loaded.site(site), ids, codec), timed_steps(d, width, k, batch, device)
    held = sum(p.numel() * p.element_size() for p in loaded.module.parameters())
    found = Plan(
        model=model, site=site, d=d, tokens=asked, width=width, k=k, dictionaries=dictionaries, stored=stored,
        epochs=epochs, estimates=[
            hours("harvest", asked, harvest, f"{stored} rows of random tokens written in"),
            hours("training", asked * epochs * dictionaries, steps, "rows of noise learned from in"),
            size("activations on disk", sizes.disk, f"{asked:,} tokens x {codec.bytes_per_row(d)} bytes"),
            size("memory to harvest", held + sizes.waiting, "the model's parameters, and two of a shard's rows"),
            size("memory to train", dictionaries * sizes.training, "weights, Adam's two moments, a bfloat16 copy"),
            size("a checkpoint on disk", dictionaries * sizes.checkpoint, "weights, moments, counts of silence"),
        ],
    )  # fmt: skip
    write_figures(found, json)
    show(found)
    return found


def refuse_nonsense(**numbers: float | int) -> None:
    for name, value in numbers.items():
        if value < 1:
            raise Refusal(f"--{name} is {value:g}; give at least 1")


# ---------------------------------------------------------------- bytes


class Sizes(NamedTuple):
    """Bytes, from shapes alone. Headers of files, and what a step uses for a moment, are left out."""

    d: int
    width: int
    tokens: int
    codec: Codec

    @property
    def disk(self) -> int:
        """All rows of a harvest of one site."""
        return self.tokens * self.codec.bytes_per_row(self.d)

    @property
    def waiting(self) -> int:
        """Rows that wait to be written, once more while they are joined to a shard."""
        return 2 * min(self.tokens, SHARD) * self.codec.bytes_per_row(self.d)

    @property
    def parameters(self) -> int:
        """W_enc, W_dec, b_enc and b_dec of one dictionary."""
        return FLOAT * (2 * self.width * self.d + self.width + self.d)

    @property
    def checkpoint(self) -> int:
        """Parameters and Adam's two moments of each; how long each latent was silent; mean and scale of the input."""
        return 3 * self.parameters + 8 * self.width + FLOAT * (self.d + 1)

    @property
    def training(self) -> int:
        """What a checkpoint holds, and the encoder once more in bfloat16, in which it is searched."""
        return self.checkpoint + 2 * self.width * self.d


def row_width(model: HookedModel, site: Site, ids: Tokens) -> int:
    (given,) = islice(Reader(model, [site]).passes([ids], AT_ONCE, 0), 1)
    return given.values[site.name].shape[1]


# ---------------------------------------------------------------- hours


class Pace(NamedTuple):
    """Rows in so many seconds."""

    rows: int
    seconds: float


def timed_harvest(model: HookedModel, site: Site, ids: Tokens, codec: Codec) -> Pace:
    """A harvest of random tokens into a folder that is thrown away."""
    with TemporaryDirectory() as folder:
        found = cast(
            Generator[Harvested, None, None],
            harvesting(model, repeat(ids), site, 2**40, Path(folder) / "rows", stored=codec),
        )
        with closing(found):
            return timed(progress.rows for progress in found)


def timed_steps(d: int, width: int, k: int, batch: int, device: str) -> Pace:
    """Steps of a TopK dictionary with AuxK on noise, which takes as long as activations do."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, d, generator=generator).to(device)
    sae = SAE(Site("noise", "batch d"), d, width, TopK(k), generator=generator).to(device)
    learning = fit(sae, repeat(x), (Reconstruction() + AuxK(width)).to(device))
    return timed(step.rows for step in learning)


def timed(rows: Iterable[int]) -> Pace:
    """What comes after the first, which warms up: for `ENOUGH` seconds, and at least once."""
    steps: Iterator[int] = iter(rows)
    before = after = next(steps)
    begun = time.perf_counter()
    while after == before or time.perf_counter() - begun < ENOUGH:
        after = next(steps)
    return Pace(after - before, time.perf_counter() - begun)


def hours(name: str, rows: int, pace: Pace, how: str) -> Estimate:
    said = f"{pace.rows:,} {how} {pace.seconds:.1f} s, multiplied"
    return Estimate(name=name, amount=rows * pace.seconds / pace.rows / 3600, unit="hours", how=said)


def size(name: str, amount: int, how: str) -> Estimate:
    return Estimate(name=name, amount=amount, unit="bytes", how=how)


# ---------------------------------------------------------------- on one screen


def show(found: Plan) -> None:
    title = (
        f"{found.model} at {found.site} (d {found.d}): {found.tokens:,} tokens, {found.dictionaries} x {found.width}"
    )
    table = Table(title=title, title_justify="left", box=None)
    table.add_column("estimate")
    table.add_column("", justify="right")
    table.add_column("from")
    for each in found.estimates:
        table.add_row(each.name, said(each), each.how)
    Console().print(table)


def said(estimate: Estimate) -> str:
    if estimate.unit == "bytes":
        return f"{estimate.amount / 1e9:.3g} GB"
    minutes = estimate.amount * 60
    return f"{minutes:.2g} min" if minutes < 90 else f"{estimate.amount:.3g} h"
