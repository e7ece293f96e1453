"""A Python source text as pieces and places: its tokens at their characters, and the ways to find one.

Strings are opaque: an f-string is one piece, so what is read here does not depend on the version of Python (f-strings
are one token up to 3.11 and many from 3.12).
"""

import ast
import io
import re
import token as kinds
import tokenize
import warnings
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol, cast

OPENING, CLOSING = "([{", ")]}"
STRING_STARTS = frozenset(k for k, name in kinds.tok_name.items() if name.endswith("STRING_START"))
STRING_ENDS = frozenset(k for k, name in kinds.tok_name.items() if name.endswith("STRING_END"))
INVISIBLE = frozenset({kinds.INDENT, kinds.DEDENT, kinds.NEWLINE, kinds.NL, kinds.COMMENT, kinds.ENDMARKER})


class Span(NamedTuple):
    """Characters start..end (end excluded) have this label."""

    label: str
    start: int
    end: int


class Piece(NamedTuple):
    """One token of Python's own tokenizer, at its characters; a string is one piece whatever it holds."""

    kind: int
    text: str
    start: int
    end: int


class MisreadError(Exception):
    """The tokenizer's columns do not fit the text (stray carriage returns, null bytes)."""


def pieces(source: str) -> Iterator[Piece]:
    """Python's tokens as spans of characters, each f-string joined to one piece."""
    lines, open_string = line_starts(source), []
    for kind, text, (row, column), (end_row, end_column), _ in tokenize.generate_tokens(io.StringIO(source).readline):
        start, end = lines[min(row, len(lines)) - 1] + column, lines[min(end_row, len(lines)) - 1] + end_column
        if kind in STRING_STARTS:
            open_string.append(start)
        elif kind in STRING_ENDS:
            start = open_string.pop()
            if not open_string:
                yield Piece(kinds.STRING, source[start:end], start, end)
        elif not open_string:
            yield checked(source, Piece(kind, text, start, min(end, len(source))))


def checked(source: str, piece: Piece) -> Piece:
    """The piece itself. Raises MisreadError where its characters are not its text."""
    if piece.kind == kinds.ERRORTOKEN and not piece.text.isspace():
        raise MisreadError(piece)
    if piece.kind not in INVISIBLE and source[piece.start : piece.end] != piece.text:
        raise MisreadError(piece)
    return piece


def line_starts(source: str) -> list[int]:
    """The first character of each line. Only a newline ends a line: form feeds do not."""
    return [0, *(m.end() for m in re.finditer("\n", source))]


def parse(source: str) -> ast.Module | None:
    """The syntax tree of a text; None where this version of Python cannot read it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old escapes in strings
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


class Standing(Protocol):
    """Where a node of the syntax tree stands: all that are asked have these, and `ast.AST` does not say so."""

    lineno: int
    col_offset: int
    end_lineno: int
    end_col_offset: int


@dataclass(frozen=True)
class PythonText:
    """A source text with its pieces, and the ways to find one."""

    source: str
    pieces: list[Piece]

    @cached_property
    def words(self) -> list[Piece]:
        """The pieces that are not layout or comments."""
        return [p for p in self.pieces if p.kind not in INVISIBLE and p.kind != kinds.ERRORTOKEN]

    @cached_property
    def starting(self) -> dict[int, int]:
        """The number of the word that begins at a character."""
        return {p.start: n for n, p in enumerate(self.words)}

    @cached_property
    def ending(self) -> dict[int, int]:
        """The number of the word that ends before a character."""
        return {p.end: n for n, p in enumerate(self.words)}

    @cached_property
    def starts(self) -> list[int]:
        """The first character of each word, in order."""
        return [p.start for p in self.words]

    @cached_property
    def lines(self) -> list[int]:
        """The first character of each line."""
        return line_starts(self.source)

    @cached_property
    def pairs(self) -> dict[int, int]:
        """The word number of the opening bracket of each closing one."""
        stack, found = [], {}
        for number, word in enumerate(self.words):
            if word.kind == kinds.OP and word.text in OPENING:
                stack.append(number)
            elif word.kind == kinds.OP and word.text in CLOSING and stack:
                found[number] = stack.pop()
        return found

    def at(self, line: int, column: int) -> int:
        """The character at a place of the syntax tree, whose columns count bytes of UTF-8."""
        start = self.lines[line - 1]
        text = self.source[start : start + column]
        return start + (column if text.isascii() else len(text.encode()[:column].decode(errors="ignore")))

    def start(self, node: ast.AST) -> int:
        """The character at which a node begins."""
        stands = cast(Standing, node)
        return self.at(stands.lineno, stands.col_offset)

    def end(self, node: ast.AST) -> int:
        """The character after a node's last."""
        stands = cast(Standing, node)
        return self.at(stands.end_lineno, stands.end_col_offset)

    def first(self, node: ast.AST) -> int:
        """The number of the node's first word."""
        return self.starting[self.start(node)]

    def last(self, node: ast.AST) -> Piece:
        """The node's last word."""
        return self.words[self.ending[self.end(node)]]

    def after(self, character: int, text: str) -> int:
        """The number of the first word with this text at or after a character."""
        number = bisect_right(self.starts, character - 1)
        while self.words[number].text != text:
            number += 1
        return number

    def line_of(self, character: int) -> int:
        """The first character of the line that holds this one."""
        return self.lines[bisect_right(self.lines, character) - 1]

    def next_line(self, character: int) -> int:
        """The first character of the next line; the end of the text where there is none."""
        number = bisect_right(self.lines, character)
        return self.lines[number] if number < len(self.lines) else len(self.source)
