"""What a thing looks like, before any screen: a page is headings, sentences, tables and strips of shaded tokens."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """One entry of a table, or one token of a strip.

    `shade` colours it, from -1 (blue) by 0 (none) to 1 (orange); the text must be readable without. `hover` is what a
    pointer that rests on it is told.
    """

    text: str
    shade: float = 0.0
    hover: str = ""


@dataclass(frozen=True)
class Heading:
    text: str


@dataclass(frozen=True)
class Sentence:
    """Words. What stands in backticks is code."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows under named columns; the first cell of a row names it. `numeric` columns are aligned to the right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    caption: str = ""
    numeric: Sequence[int] = ()


@dataclass(frozen=True)
class Strip:
    """A line of tokens; `peak` is the place of the one that it is about, `label` what is said before the line."""

    tokens: Sequence[Cell]
    peak: int | None = None
    label: str = ""


Piece = Heading | Sentence | Table | Strip


@dataclass(frozen=True)
class Page:
    """Pieces from top to bottom. IPython draws it as HTML, `print` as plain text."""

    pieces: tuple[Piece, ...]

    @classmethod
    def of(cls, *pieces: Piece) -> "Page":
        return cls(pieces)

    def __add__(self, other: "Page") -> "Page":
        return Page(self.pieces + other.pieces)

    def _repr_html_(self) -> str:
        from microtome.notebook.html import drawn

        return drawn(self)

    def __str__(self) -> str:
        from microtome.notebook.plain import written

        return written(self)

    __repr__ = __str__


def cell(given: Cell | str) -> Cell:
    return given if isinstance(given, Cell) else Cell(given)


def visible(token: str) -> str:
    """A token on one line, its line breaks and tabs shown as ↵ and ⇥."""
    return token.replace("\r", "␍").replace("\n", "↵").replace("\t", "⇥")


def shortened(rows: list, most: int, columns: int) -> list:
    """The first rows, and one that says how many more there are."""
    if len(rows) <= most:
        return rows
    return [*rows[:most], [f"and {len(rows) - most:,} more", *[""] * (columns - 1)]]
