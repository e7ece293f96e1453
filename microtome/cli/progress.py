"""How far a long piece of work has come: a live bar on a terminal, a plain line every few seconds otherwise."""

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

Number = int | float
Advance = Callable[[Number], None]
PLAIN_EVERY = 5.0  # seconds


class Watcher(ABC):
    """Told of each stage of the work, and of how far it has come."""

    @abstractmethod
    def say(self, words: str) -> None:
        """One line of news."""

    @abstractmethod
    def _show(self, stage: "Stage") -> None:
        """Draw the stage as it stands."""

    @contextmanager
    def stage(self, name: str, total: Number, unit: str) -> Iterator[Advance]:
        """A stage that ends at `total` units: call what it yields with the units done so far."""
        stage = Stage(name, total, unit)
        try:
            yield lambda done: self._show(stage.at(done))
        finally:
            self._end(stage)

    @abstractmethod
    def _end(self, stage: "Stage") -> None:
        """The stage is over, or was broken off."""


class Stage:
    """One stage: how much is done, how fast, and how long it may still take.

    The rate is counted from the first news on: what was done before this sitting says nothing about it.
    """

    def __init__(self, name: str, total: Number, unit: str):
        self.name, self.total, self.unit = name, total, unit
        self.done: Number = 0
        self.first: tuple[float, Number] | None = None  # when the first news came, and what was done then
        self.begun = self.shown = time.monotonic()

    def at(self, done: Number) -> "Stage":
        self.done = done
        self.first = self.first or (time.monotonic(), done)
        return self

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.begun

    @property
    def rate(self) -> float:
        since, before = self.first or (self.begun, 0.0)
        return (self.done - before) / max(time.monotonic() - since, 1e-9)

    @property
    def remaining(self) -> float:
        return (self.total - self.done) / max(self.rate, 1e-9)

    def __str__(self) -> str:
        share = min(1.0, self.done / max(self.total, 1e-9))
        return f"{share:4.0%}  {short(self.done)} of {short(self.total)} {self.unit}{self._pace()}"

    def _pace(self) -> str:
        """How fast and how long still; nothing before there are two pieces of news to tell it from."""
        if not self.rate:
            return ""
        rate = f"{short(self.rate)} {self.unit}/s" if self.rate >= 1 else f"{clock(1 / self.rate)} each"
        return f"  {rate}  {clock(self.remaining)} left"


class Plain(Watcher):
    """Lines for a file or a pipe."""

    def __init__(self, write: Callable[[str], object] | None = None):
        self.write = write or (lambda line: print(line, file=sys.stderr, flush=True))

    def say(self, words: str) -> None:
        self.write(words)

    def _show(self, stage: Stage) -> None:
        if time.monotonic() - stage.shown >= PLAIN_EVERY:
            stage.shown = time.monotonic()
            self.write(f"  {stage.name:<8} {stage}")

    def _end(self, stage: Stage) -> None:
        self.write(f"  {stage.name:<8} {short(stage.done)} {stage.unit} in {clock(stage.seconds)}")


class Live(Watcher):
    """A bar on a terminal."""

    def __init__(self, console: Console):
        self.console = console
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description:<9}"),
            BarColumn(32),
            TextColumn("{task.fields[words]}"),
        )
        self.bars = Progress(*columns, TimeElapsedColumn(), console=console, transient=True)
        self.task = None

    def say(self, words: str) -> None:
        self.console.print(words, highlight=False)

    def _show(self, stage: Stage) -> None:
        if self.task is None:
            self.bars.start()
            self.task = self.bars.add_task(stage.name, total=stage.total, words="")
        self.bars.update(self.task, completed=stage.done, words=str(stage))

    def _end(self, stage: Stage) -> None:
        if self.task is not None:
            self.bars.remove_task(self.task)
            self.bars.stop()
            self.task = None
        self.console.print(
            f"  [green]✓[/] {stage.name:<8} {short(stage.done)} {stage.unit} in {clock(stage.seconds)}", highlight=False
        )


def watcher() -> Watcher:
    """The one that suits where standard error goes."""
    console = Console(stderr=True)
    return Live(console) if console.is_terminal else Plain()


def short(number: Number) -> str:
    """2000000 as 2.0M, 512 as 512."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f}{letter}"
    return f"{number:.0f}"


def clock(seconds: Number) -> str:
    """75 as 1:15, 4000 as 1:06:40."""
    if seconds > 359_999:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
