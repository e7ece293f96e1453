"""`microtome eval`: everything that can be measured of a dictionary, beside what it must beat, in one table."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from microtome.cli.evaluation import Evaluation, Settings
from microtome.cli.figures import make_room, write_figures
from microtome.cli.finished import finished
from microtome.cli.progress import clock, short, watcher
from microtome.evals.card import OWN
from microtome.store.records import Card, Scored


def evaluate(
    dictionary: str,
    /,
    *,
    refits: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    into: Path | None = None,
    model: str | None = None,
    site: str | None = None,
    text: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    labels: Path | None = None,
    tokens: float = 150e3,
    held_out: float = 100e3,
    spliced: int = 64,
    synthetic: int = 1500,
    context: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    allow_pickle: bool = False,
    json: Path | None = None,
) -> Card:
    """Measure a dictionary beside a random one, a frozen encoder, principal components and the raw neurons.

    Every score has its 95% interval over held-out documents.

    Parameters
    ----------
    dictionary
        A run folder, a folder or file in any known format, or a name on the hub.
    refits
        The same dictionary, fitted from other seeds: every score also has its interval over all of them.
    into
        The folder to write card.json to (default: runs/eval-NAME).
    model
        The model that it is of, if no run folder says: a folder, a hub name, or `specimen`.
    site
        Where the dictionary belongs, if its files do not say; or which one, where there are several.
    text
        Files, folders or patterns to read (default: the source of Python's standard library).
    labels
        Labelled text of your own, in place of --text: JSON lines such as
        {"text": "The cat sat.", "labels": {"animal": [[4, 7]]}}, with spans of characters.
    tokens
        Tokens of training text, from which detectors and probes are learned.
    held_out
        Held-out tokens, on which everything is judged.
    spliced
        Held-out windows that are run with each dictionary in place of its site; of every eighth, combinations of
        components are left out.
    synthetic
        Steps for which an autoencoder of the same kind is fitted to activations whose features are known; 0 leaves
        these scores out.
    context
        Tokens per window (default: 256, or the model's limit).
    seed
        Of everything random.
    device
        Where the model runs.
    allow_pickle
        Read files of torch.save: tensors and plain values, and nothing that runs.
    json
        Also write the figures to this file.
    """
    folder = into or Path("runs") / f"eval-{Path(dictionary).name}"
    settings = Settings.model_validate({
        "dictionary": dictionary, "refits": refits or [], "into": folder, "model": model, "site": site,
        "text": text or [], "labels": labels, "tokens": tokens, "held_out": held_out,
        "spliced": spliced, "synthetic": synthetic, "context": context, "seed": seed,
        "device": device, "allow_pickle": allow_pickle,
    })  # fmt: skip
    make_room(json)
    card = Evaluation(settings, watcher()).finish()
    finished("eval", card.model, settings.model_dump(exclude={"into"}), folder, card.seconds)
    write_figures(card, json)
    show(card, folder)
    return card


def show(card: Card, folder: Path) -> None:
    """The card on one screen: scores, then facts."""
    console = Console()
    console.print(scores(card))
    if card.facts:
        console.print(facts(card))
    if any(score.fits for row in card.rows for score in row.scores.values()):
        console.print(over_fits(card))
    for note in card.notes:
        console.print(note, markup=False, highlight=False)
    console.print(
        f"{short(card.held_out_tokens)} held-out tokens of {card.documents} documents, {clock(card.seconds)}, peak "
        f"{card.peak_memory_bytes / 1e9:.1f} GB; in brackets: 95% over documents", markup=False, highlight=False,
    )  # fmt: skip
    console.print(f"all figures: {folder / Card.file}", markup=False, highlight=False, soft_wrap=True)


def scores(card: Card) -> Table:
    table = Table(title=f"{escape(card.dictionary)}: {card.width} components at {card.site}", title_justify="left")
    table.add_column("", no_wrap=True)
    table.add_column("this dictionary", justify="right")
    for name in card.baselines:
        table.add_column(name, justify="right")
    for row in card.rows:
        beside = (cell(row.scores.get(name)) for name in card.baselines)
        table.add_row(escape(row.name), with_interval(row.scores.get(OWN)), *beside)
    return table


def over_fits(card: Card) -> Table:
    """The mean of every score over seeds."""
    table = Table(title="Mean over dictionaries fitted from several seeds, with its 95% interval", title_justify="left")
    table.add_column("", no_wrap=True)
    table.add_column("mean", justify="right")
    for row in (*card.rows, *card.facts):
        own = row.scores.get(OWN)
        if own is not None and own.fits is not None:
            table.add_row(escape(row.name), with_interval(own.fits))
    return table


def facts(card: Card) -> Table:
    table = Table(title="F1 on held-out documents of the best single component", title_justify="left")
    for name in ("label", "tokens", "component", "this dictionary", *card.baselines, "chance", "linear probe"):
        table.add_column(name, justify="left" if name == "label" else "right", no_wrap=name == "label")
    for fact in card.facts:
        beside = (cell(fact.scores.get(name)) for name in card.baselines)
        table.add_row(
            escape(fact.name), str(fact.tokens), str(fact.component), with_interval(fact.scores[OWN]), *beside,
            cell(fact.chance), cell(fact.linear),
        )  # fmt: skip
    return table


def cell(score: Scored | None) -> str:
    return "" if score is None or score.found is None else f"{score.found:.3g}"


def with_interval(score: Scored | None) -> str:
    if score is None or score.low is None or score.high is None:
        return cell(score)
    return f"{cell(score)} \\[{score.low:.3g}, {score.high:.3g}]"
