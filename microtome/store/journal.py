"""Where the figures of a training go: lines of JSON, a database, or a tracker of your choice, behind one small face.

for step in learning:
    journal.log(step.index, figures_of(step))

Trackers that are extras have a file each: journal_tensorboard.py, journal_wandb.py, journal_trackio.py.
"""

import json
import math
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Protocol, runtime_checkable

from microtome.core.errors import Refusal
from microtome.core.fit import Step

Figures = Mapping[str, float | int]
Row = dict[str, float | int | None]  # None where no finite number was found


@runtime_checkable
class Journal(Protocol):
    """Takes down figures by step."""

    def log(self, step: int, figures: Figures) -> None:
        """The figures of one step."""
        ...

    def close(self) -> None:
        """Nothing more will come."""
        ...


def figures_of(step: Step) -> dict[str, float | int]:
    """The rows seen (`tokens`), the loss and its parts."""
    return {"tokens": step.rows, "loss": step.loss, **step.parts}


class Several:
    """Takes down the same in several journals."""

    def __init__(self, *journals: Journal):
        self.journals = journals

    def log(self, step: int, figures: Figures) -> None:
        for journal in self.journals:
            journal.log(step, figures)

    def close(self) -> None:
        for journal in self.journals:
            journal.close()


class JSONLines:
    """One line of JSON for each step: {"step": 20, "loss": 0.3, ...}. A number that is not finite is null."""

    def __init__(self, path: Path | str, resume_after: int | None = None):
        """Goes on with what is there. `resume_after`: later steps are dropped, for they will be made again."""
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if resume_after is not None:
            kept = [row for row in self.rows() if (row["step"] or 0) <= resume_after]
            self.path.write_text("".join(json.dumps(row) + "\n" for row in kept))

    def log(self, step: int, figures: Figures) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **finite(figures)}, allow_nan=False) + "\n")

    def rows(self) -> list[Row]:
        """What was taken down, in that order. A line that a stop cut off is left out."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}")]

    def close(self) -> None:
        pass


TABLE = "CREATE TABLE IF NOT EXISTS figure (step INTEGER, name TEXT, value REAL, PRIMARY KEY (step, name))"


class SQLite:
    """A table `figure` of (step, name, value). One taken down again replaces the one before."""

    def __init__(self, path: Path | str, resume_after: int | None = None):
        """Goes on with what is there. `resume_after`: later steps are dropped, for they will be made again.

        Raises Refusal for a file that is no database.
        """
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with closing(self._connect()) as connection, connection:
                connection.execute(TABLE)
                if resume_after is not None:
                    connection.execute("DELETE FROM figure WHERE step > ?", (resume_after,))
        except sqlite3.DatabaseError:
            raise Refusal(f"{path} is no SQLite database; choose another path for the journal") from None

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=30)
        connection.execute("PRAGMA journal_mode=WAL")
        return connection

    def log(self, step: int, figures: Figures) -> None:
        rows = [(step, name, value) for name, value in finite(figures).items()]
        with closing(self._connect()) as connection, connection:
            connection.executemany("INSERT OR REPLACE INTO figure VALUES (?, ?, ?)", rows)

    def rows(self) -> list[Row]:
        """What was taken down, by step."""
        found: dict[int, Row] = {}
        with closing(self._connect()) as connection:
            for step, name, value in connection.execute("SELECT step, name, value FROM figure ORDER BY step, rowid"):
                found.setdefault(step, {"step": step})[name] = value
        return list(found.values())

    def close(self) -> None:
        pass


def finite(figures: Figures) -> Row:
    """The figures, None for those that are infinite or no number."""
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}
