"""The runs under one folder: found by looking, named by ids of our own, and told as they are, finished or not.

A run is any folder with a run.json, at most three levels down; the folder itself may be one. A study's result.json and
a dynamics.json make one too. Nobody who talks to the
server names a path: an id is looked up among the runs that were found. A link that leads out of the folder is refused.
"""

import hashlib
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import ValidationError

from microtome.core.errors import Refusal
from microtome.store.catalog import Catalog
from microtome.store.notes import Explanation, Notes
from microtome.store.records import Card, Circuit, Comparison, Dynamics, Record, Result, Run, Summary, TakenApart

DEPTH = 3
R = TypeVar("R", bound=Record)

Shows = Literal["dictionary", "graph", "patch", "circuit", "parts", "study", "dynamics", "compare", "card"]
PAGES: dict[str, Shows] = {  # by command
    "graph": "graph", "patch": "patch", "circuit": "circuit", "decompose": "parts", "study": "study",
    "dynamics": "dynamics", "compare": "compare", "eval": "card",
}  # fmt: skip
FILES: dict[Shows, str] = {  # what each page needs
    "graph": "graph.json", "patch": "patch.json", "circuit": Circuit.file, "parts": TakenApart.file,
    "study": Result.file, "dynamics": Dynamics.file, "compare": Comparison.file, "card": Card.file,
}  # fmt: skip
ALONE = (Result, Dynamics)  # what makes a folder a run without a run.json
DOING = {
    "load": "loading the model",
    "harvest": "harvesting activations",
    "fit": "training the dictionary",
    "catalog": "writing the catalogue",
    "explain": "explaining the components",
    "measure": "measuring",
}


class NoSuchFolder(Refusal, NotADirectoryError):
    """The folder to browse is not there."""


class NoSuchRun(Refusal, LookupError):
    """An id that belongs to none of the runs in the folder."""


class NotYet(Refusal, LookupError):
    """A part of a run that has not been written, or is refused; the sentence says which and what to do."""


@dataclass(frozen=True)
class FoundRun:
    """A folder of a run. Opens its parts; a part that is missing or broken is None and told in `message`."""

    root: Path
    folder: Path

    @property
    def name(self) -> str:
        inside = self.folder.relative_to(self.root)
        return inside.as_posix() if inside.parts else self.root.name

    @property
    def id(self) -> str:
        slug = re.sub(r"[^a-z0-9]+", "-", self.folder.name.lower()).strip("-")[:40] or "run"
        return f"{slug}-{hashlib.sha256(self.name.encode()).hexdigest()[:8]}"

    @property
    def run(self) -> Run | None:
        """What was asked; of a folder without run.json, as its result says."""
        if (self.folder / Run.file).is_file():
            return self._read(Run)
        return self._of_result() or self._of_dynamics()

    def _of_result(self) -> Run | None:
        held = self._read(Result)
        return held and self._told("study", held.arguments, str(held.arguments.get("model", "")), held.version, Result)

    def _of_dynamics(self) -> Run | None:
        held = self._read(Dynamics)
        return held and self._told("dynamics", held.arguments, held.model, held.version, Dynamics)

    def _told(self, command: str, arguments: dict, model: str, version: str, kind: type[Record]) -> Run:
        """A run that is done, as old as its file."""
        when = datetime.fromtimestamp((self.folder / kind.file).stat().st_mtime, UTC).isoformat(timespec="seconds")
        return Run(
            command=command, arguments=arguments, model=model, site="", created=when, version=version, stage="done"
        )

    @property
    def summary(self) -> Summary | None:
        return self._read(Summary)

    def _read(self, kind: type[R]) -> R | None:
        try:
            return kind.read(self.folder) if self.leads_inside(self.folder / kind.file) else None
        except (OSError, ValidationError, UnicodeDecodeError):
            return None

    def record(self, kind: type[R]) -> R:
        """The record that a page is made of. Raises NotYet where there is none, or none that can be read."""
        if self.leads_out or not self.leads_inside(self.folder / kind.file):
            raise NotYet(self.message or f"{kind.file} is a link that leads out of the folder, so it is not opened.")
        if not (self.folder / kind.file).is_file():
            raise NotYet(self.message or f"This run has no {kind.file}.")
        found = self._read(kind)
        if found is None:
            again = f"microtome {self.run.command}" if self.run else "the command that made it"
            raise NotYet(f"{kind.file} of {self.name} cannot be read. Write it again: {again}.")
        return found

    def leads_inside(self, path: Path) -> bool:
        return path.resolve().is_relative_to(self.root)

    @property
    def leads_out(self) -> Path | None:
        """The first link in this run that points out of the folder, or None."""
        parts = [*children(self.folder), *children(self.folder / "catalog")]
        return next((part for part in parts if part.is_symlink() and not self.leads_inside(part)), None)

    @property
    def shows(self) -> Shows:
        """Which page this run has: that of the file which its command writes."""
        return PAGES.get(self.run.command, "dictionary") if self.run else "dictionary"

    @property
    def state(self) -> Literal["done", "unfinished", "unreadable"]:
        """How far this run can be shown."""
        if self.run is None or self.leads_out is not None:
            return "unreadable"
        if self.shows != "dictionary":
            return "done" if (self.folder / FILES[self.shows]).is_file() else "unfinished"
        return "done" if self.summary is not None and self.has_catalog else "unfinished"

    @property
    def has_catalog(self) -> bool:
        return self.leads_out is None and (self.folder / "catalog" / "manifest.json").exists()

    @property
    def message(self) -> str:
        """What is wrong with this run and what to do about it, in a sentence; empty where nothing is."""
        if link := self.leads_out:
            return f"{link.name} is a link that leads out of the folder being browsed, so this run is not opened."
        run = self.run
        if run is None:
            file = next(kind.file for kind in (Run, *ALONE) if (self.folder / kind.file).exists())
            return f"Its {file} cannot be read: it was cut off, or another version of Microtome wrote it."
        return "" if self.state == "done" else unfinished(run, self.folder)

    def best_explanations(self) -> dict[int, Explanation]:
        return Notes(self.folder / "catalog" / "notes.sqlite").best()

    def catalog(self) -> Catalog:
        """The catalogue, opened. Raises NotYet where there is none to open."""
        if not self.has_catalog:
            raise NotYet(self.message or "This run has no catalogue.")
        try:
            return Catalog(self.folder / "catalog")
        except (ValueError, KeyError, OSError) as error:
            raise NotYet(f"The catalogue of {self.name} cannot be read: {error}") from error

    @property
    def written(self) -> int:
        """When the catalogue was completed: a number that changes whenever it is written anew."""
        return (self.folder / "catalog" / "manifest.json").stat().st_mtime_ns


class Runs:
    """The runs under `root`, looked for again at every listing, since other programs write them meanwhile."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise NoSuchFolder(f"{root} is not a folder; give the folder that holds your runs")
        self.root = root.resolve()
        self._known: dict[str, FoundRun] = {}

    def find(self) -> list[FoundRun]:
        found = [FoundRun(self.root, folder) for folder in folders(self.root, DEPTH) if is_run(folder)]
        self._known = {run.id: run for run in found}
        return found

    def __getitem__(self, id: str) -> FoundRun:
        if id not in self._known or not is_run(self._known[id].folder):
            self.find()
        if id not in self._known:
            raise NoSuchRun(f"There is no run {id!r} under {self.root.name}; the list of runs shows what there is.")
        return self._known[id]


def is_run(folder: Path) -> bool:
    return any((folder / kind.file).is_file() for kind in (Run, *ALONE))


def folders(folder: Path, depth: int) -> Iterator[Path]:
    """This folder and those in it, `depth` levels down; no hidden ones and no links."""
    yield folder
    for child in children(folder) if depth else ():
        if child.is_dir() and not child.is_symlink() and not child.name.startswith("."):
            yield from folders(child, depth - 1)


def children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def unfinished(run: Run, folder: Path) -> str:
    if run.command in PAGES:
        file = FILES[PAGES[run.command]]
        return f"Its {file} is not there, or not yet. If it has stopped, run `microtome {run.command}` again."
    command = f"microtome {run.command} {shlex.quote(run.model)} --into {shlex.quote(str(folder))} --resume"
    if run.stage == "done":
        return f"It says that it is done, yet a part is missing. To write it: {command}"
    return f"Stopped while {DOING[run.stage]}, or still at it. If it has stopped, go on with: {command}"
