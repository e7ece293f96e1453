"""`microtome study`: do a published result again, and say of each claim whether it holds here."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from microtome.cli.figures import make_room, write_figures
from microtome.cli.progress import clock, watcher
from microtome.store.records import Result
from microtome.studies.page import expectation, told, verdict
from microtome.studies.study import STUDIES, Setting, conduct, find


def study(
    name: str | None = None,
    /,
    *,
    into: Path | None = None,
    model: str = "specimen",
    text: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    quick: bool = False,
    seed: int = 0,
    device: str = "cpu",
    json: Path | None = None,
) -> Result | None:
    """Run a study and leave result.json and page.html. Exits with 1 where a claim fails.

    Parameters
    ----------
    name
        Which study. Without a name they are listed.
    into
        The folder to write (default: runs/study-NAME).
    model
        A folder in Hugging Face's format, a hub name, or `specimen` (ships with the package).
    text
        Files, folders or patterns to read (default: the source of Python's standard library).
    quick
        Minutes instead of the whole: a smaller grid and wider tolerances.
    seed
        Of everything random.
    device
        Where it runs.
    json
        Also write the result to this file.
    """
    if name is None:
        return shelf()
    chosen = find(name)
    folder = into or Path("runs") / f"study-{name}"
    make_room(json)
    result = conduct(chosen, Setting(folder, model, text or [], quick, seed, device), watcher())
    write_figures(result, json)
    show(result, folder)
    return result


def shelf() -> None:
    """One line for each study there is."""
    table = Table("study", "question", "paper", box=None, title_justify="left")
    for one in map(find, sorted(STUDIES)):
        table.add_row(one.name, escape(one.question), escape(one.paper))
    Console().print(table)


def show(result: Result, folder: Path) -> None:
    console = Console()
    table = Table("claim", "expected", "found", "", title=f"{result.study}: {result.paper}", title_justify="left")
    for claim in result.claims:
        ok = "[green]holds[/]" if claim.ok else "[red]fails[/]"
        table.add_row(escape(claim.name), expectation(claim), told(claim), ok)
    console.print(table)
    console.print(f"{verdict(result)} {clock(result.seconds)}", highlight=False)
    console.print(f"curves and words: {folder / 'page.html'}", markup=False, highlight=False, soft_wrap=True)
