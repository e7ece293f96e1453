"""`microtome dissect`: take a model apart at one site, and leave a folder that `microtome browse` shows."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from microtome.cli.dissection import Dissection
from microtome.cli.figures import make_room, write_figures
from microtome.cli.progress import clock, short, watcher
from microtome.cli.settings import Settings
from microtome.store.records import Figures, Summary

BASELINES = {"random": "random dictionary", "pca": "principal components", "neurons": "the layer's neurons"}
COLUMNS = ("explained variance", "loss recovered", "L0", "dead", "explained")


def dissect(
    model: str,
    /,
    *,
    into: Path | None = None,
    site: str = "resid_post.2",
    text: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    tokens: float = 2e6,
    width: int = 4096,
    k: int = 32,
    dictionary: Path | None = None,
    context: int | None = None,
    held_out: float = 250e3,
    proposals: float = 200e3,
    epochs: int = 3,
    batch: int = 2048,
    lr: float = 4e-3,
    seed: int = 0,
    device: str = "cpu",
    resume: bool = False,
    json: Path | None = None,
) -> Summary:
    """Find the parts of a model at one site, say what each responds to, and measure how well they stand in for it.

    Parameters
    ----------
    model
        A folder in Hugging Face's format, a hub name, or `specimen` (ships with the package).
    into
        The run folder to write (default: runs/MODEL-SITE).
    site
        Where to cut: a canonical name such as resid_post.2, mlp_out.0, or a module path. `microtome check` lists them.
    text
        Files, folders or patterns to read (default: the source of Python's standard library).
    tokens
        Tokens of activations to harvest.
    width
        Latents of the dictionary.
    k
        Latents active on each token.
    dictionary
        A dictionary that was trained elsewhere, to be dissected in place of a new one.
    context
        Tokens per window (default: 256, or the model's limit).
    held_out
        Held-out tokens to catalogue and measure on, and to score explanations on.
    proposals
        Tokens of training text from which explanations are proposed.
    epochs
        Passes over the harvested activations.
    batch
        Tokens per training step.
    lr
        Adam's learning rate.
    seed
        Of everything random.
    device
        Where the model runs.
    resume
        Go on with a run that was stopped.
    json
        Also write the figures to this file.
    """
    folder = into or Path("runs") / f"{Path(model).name}-{site}"
    asked = {
        "model": model, "into": folder, "site": site, "text": text or [], "tokens": tokens, "width": width, "k": k,
        "dictionary": dictionary, "context": context, "held_out": held_out, "proposals": proposals, "epochs": epochs,
        "batch": batch, "lr": lr, "seed": seed, "device": device,
    }  # fmt: skip
    settings = Settings.model_validate(asked)  # 2e6 tokens is a whole number
    make_room(json)
    dissection = Dissection(settings, watcher(), resume=resume)
    try:
        summary = dissection.finish()
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped; the same command with --resume goes on from here") from None
    write_figures(summary, json)
    show(summary, folder)
    return summary


def show(summary: Summary, folder: Path) -> None:
    """The figures on one screen."""
    console = Console()
    table = Table(
        title=f"{summary.model}, {summary.site}: {summary.width} latents, k {summary.k}", title_justify="left"
    )
    table.add_column("", no_wrap=True)
    for name in COLUMNS:
        table.add_column(name, justify="right")
    table.add_row("this dictionary", *cells(summary), style="bold")
    for name, figures in summary.baselines.items():
        table.add_row(BASELINES[name], *cells(figures))
    console.print(table)
    console.print("explained: of the components that fire, the share whose rule scores at least .8 on held-out text")
    console.print("the layer's neurons are measured where they write, the MLP's output")
    console.print(
        f"{short(summary.tokens)} tokens, {clock(summary.seconds)}, peak {summary.peak_memory_bytes / 1e9:.1f} GB"
    )
    console.print(f"browse it: microtome browse {folder}", markup=False, soft_wrap=True)


def cells(figures: Figures) -> list[str]:
    def share(x: float | None) -> str:
        return "" if x is None else f"{x:.1%}"

    return [
        f"{figures.explained_variance:.3f}", share(figures.ce_recovered), f"{figures.l0:.1f}",
        share(figures.dead_fraction), share(figures.explained_fraction),
    ]  # fmt: skip
