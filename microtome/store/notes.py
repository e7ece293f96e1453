"""What was said about components: explanations with their scores, in SQLite, searchable by their words.

One writer and any number of readers at once (write-ahead log). An explanation is never replaced by another method's:
each method has its own row, and the best score is the one shown first.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path

TABLES = """
CREATE TABLE IF NOT EXISTS explanation (
    component INTEGER, method TEXT, text TEXT, score REAL, low REAL, high REAL, chance REAL, baseline REAL,
    positives INTEGER, negatives INTEGER, evidence TEXT, PRIMARY KEY (component, method));
CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5(text, content='explanation', tokenize='porter');
CREATE TRIGGER IF NOT EXISTS said AFTER INSERT ON explanation BEGIN
    INSERT INTO words(rowid, text) VALUES (new.rowid, new.text); END;
CREATE TRIGGER IF NOT EXISTS unsaid AFTER DELETE ON explanation BEGIN
    INSERT INTO words(words, rowid, text) VALUES ('delete', old.rowid, old.text); END;
"""


@dataclass(frozen=True)
class Explanation:
    """One sentence about one component, with how well it holds on text it was not proposed from.

    `score` is balanced accuracy in [0, 1] with its 95% interval `low`..`high`; `chance` is what a sentence that knows
    nothing scores, `baseline` what the best rule over the token alone scores. `positives` and `negatives` count the
    held-out tokens it was scored on. `evidence` is the method's own record (a rule's conditions, a prompt and answer).
    """

    component: int
    method: str
    text: str
    score: float
    low: float
    high: float
    chance: float
    baseline: float
    positives: int
    negatives: int
    evidence: Mapping = field(default_factory=dict)


class Notes:
    """The explanations of one catalogue."""

    def __init__(self, path: Path):
        self.path = path
        with closing(self.connect()) as connection, connection:
            connection.executescript(TABLES)

    def connect(self) -> sqlite3.Connection:
        """A connection that waits for other writers, up to 30 seconds."""
        connection = sqlite3.connect(self.path, timeout=30)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.row_factory = sqlite3.Row
        return connection

    def put(self, explanations: Iterable[Explanation]) -> None:
        """Write explanations, each in place of an earlier one of its component and method."""
        rows = [{**asdict(e), "evidence": json.dumps(e.evidence)} for e in explanations]
        columns = list(Explanation.__dataclass_fields__)
        places = ", ".join(f":{c}" for c in columns)
        with closing(self.connect()) as connection, connection:
            key = "DELETE FROM explanation WHERE component = :component AND method = :method"
            connection.executemany(key, rows)
            connection.executemany(f"INSERT INTO explanation ({', '.join(columns)}) VALUES ({places})", rows)

    def of(self, component: int) -> list[Explanation]:
        """Everything said of one component, best score first."""
        return self._read("SELECT * FROM explanation WHERE component = ? ORDER BY score DESC", (component,))

    def best(self, components: Sequence[int] | None = None) -> dict[int, Explanation]:
        """The best-scored explanation of every explained component, or of those among `components`."""
        places = "" if components is None else f"WHERE component IN ({', '.join('?' * len(components))})"
        read = self._read(f"SELECT * FROM explanation {places} ORDER BY score", tuple(components or ()))
        return {e.component: e for e in read}

    def count(self) -> int:
        """How many components have been explained."""
        with closing(self.connect()) as connection:
            return connection.execute("SELECT COUNT(DISTINCT component) FROM explanation").fetchone()[0]

    def search(self, words: str, limit: int = 200) -> list[Explanation]:
        """Explanations that hold every one of these words (stems; the last may be unfinished), best match first."""
        quoted = " ".join('"' + w.replace('"', '""') + '"' for w in words.replace("\0", " ").split())
        if not quoted:
            return []
        joined = "SELECT e.* FROM words JOIN explanation e ON e.rowid = words.rowid"
        query = f"{joined} WHERE words MATCH ? ORDER BY rank LIMIT ?"
        return self._read(query, (f"{quoted}*", limit))

    def _read(self, query: str, values: tuple) -> list[Explanation]:
        with closing(self.connect()) as connection:
            return [
                Explanation(**{**row, "evidence": json.loads(row["evidence"])})
                for row in map(dict, connection.execute(query, values))
            ]
