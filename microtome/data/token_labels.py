"""The labels of Python source that its tokens alone support: layout, strings, words, brackets and levels of blocks."""

import builtins
import keyword
import re
import token as kinds
from bisect import bisect_right
from collections.abc import Iterator

from microtome.data.python_text import CLOSING, INVISIBLE, OPENING, Piece, PythonText, Span

LAYOUT = (
    "indentation",
    "blank line",
    "end of a statement",
    "line break inside brackets",
    "line break that opens a block",
    "line break that closes a block",
)
TOKEN_LABELS = (
    "in a string",
    "in an f-string",
    "in a byte string",
    "in a comment",
    "opening quote",
    "closing quote",
    "number",
    "operator",
    "assignment sign",
    "comparison sign",
    "keyword",
    "builtin name",
    "True, False or None",
    "dunder name",
    "private name",
    "CONSTANT name",
    "CamelCase name",
    "attribute name",
    "attribute of self",
    "opening bracket",
    "closing bracket",
    "first thing in brackets",
    "in brackets",
    "in brackets two deep",
    "in brackets three deep",
    "in round brackets",
    "in square brackets",
    "in curly brackets",
    "first word of a statement",
    "colon that opens a block",
    "at block level 0",
    "at block level 1",
    "at block level 2",
    "at block level 3 or deeper",
)

BUILTINS = frozenset(n for n in dir(builtins) if not n.startswith("_")) - {"True", "False", "None"}
CONSTANTS = frozenset({"True", "False", "None"})
COMPARISONS = frozenset({"<", ">", "<=", ">=", "==", "!=", "<>"})
ASSIGNMENTS = frozenset({"=", ":=", "+=", "-=", "*=", "/=", "//=", "%=", "**=", "@=", "&=", "|=", "^=", "<<=", ">>="})
OPERATORS = frozenset({"+", "-", "*", "/", "//", "%", "**", "@", "&", "|", "^", "~", "<<", ">>"})
SPACE = re.compile(r"[ \t\f]*")
SHAPES = {"(": "in round brackets", "[": "in square brackets", "{": "in curly brackets"}


def token_spans(text: PythonText) -> Iterator[Span]:
    """Every span that the tokens of this text support."""
    yield from layout(text)
    yield from strings_and_comments(text)
    yield from words(text)
    yield from brackets(text)
    yield from blocks(text)


def strings_and_comments(text: PythonText) -> Iterator[Span]:
    """Comments, and strings with their kinds and quotes."""
    for piece in text.pieces:
        if piece.kind == kinds.COMMENT:
            yield Span("in a comment", piece.start, piece.end)
        elif piece.kind == kinds.STRING:
            yield from string(piece)


def string(piece: Piece) -> Iterator[Span]:
    """The labels of one string; its prefix belongs to the opening quote."""
    opening = re.match(r"""([a-zA-Z]*)('''|\"""|'|")""", piece.text)
    assert opening is not None
    prefix, quote = opening.groups()
    yield Span("in a string", piece.start, piece.end)
    yield Span("opening quote", piece.start, piece.start + len(prefix) + len(quote))
    yield Span("closing quote", piece.end - len(quote), piece.end)
    if set(prefix.lower()) & {"f", "t"}:
        yield Span("in an f-string", piece.start, piece.end)
    if "b" in prefix.lower():
        yield Span("in a byte string", piece.start, piece.end)


def words(text: PythonText) -> Iterator[Span]:
    """Numbers, signs and names, each by its spelling and the two words before it."""
    before = [Piece(kinds.OP, "", 0, 0)] * 2
    for piece in text.words:
        for name in kinds_of_word(piece, [b.text for b in before]):
            yield Span(name, piece.start, piece.end)
        before = [before[1], piece]


def kinds_of_word(piece: Piece, before: list[str]) -> Iterator[str]:
    """`before` holds the two words before."""
    if piece.kind == kinds.NUMBER:
        yield "number"
    elif piece.kind == kinds.OP:
        yield from (name for name, signs in SIGNS.items() if piece.text in signs)
    elif piece.kind == kinds.NAME:
        yield from kinds_of_name(piece.text, before)


SIGNS = {
    "operator": OPERATORS,
    "assignment sign": ASSIGNMENTS,
    "comparison sign": COMPARISONS,
    "opening bracket": frozenset(OPENING),
    "closing bracket": frozenset(CLOSING),
}


def kinds_of_name(name: str, before: list[str]) -> Iterator[str]:
    """What a name is, by its spelling and the two words before it."""
    attribute = before[1] == "."
    if name in CONSTANTS:
        yield "True, False or None"
        return
    if keyword.iskeyword(name):
        yield "keyword"
        return
    if name in BUILTINS and not attribute and before[1] not in ("def", "class"):
        yield "builtin name"
    if attribute:
        yield "attribute name"
    if before == ["self", "."]:
        yield "attribute of self"
    yield from (kind for kind, pattern in SPELLINGS.items() if pattern.fullmatch(name))


SPELLINGS = {
    "dunder name": re.compile(r"__\w+__"),
    "private name": re.compile(r"_(?!_)\w+|__\w+(?<!__)"),
    "CONSTANT name": re.compile(r"_*[A-Z][A-Z0-9_]+"),
    "CamelCase name": re.compile(r"_*[A-Z][A-Za-z0-9]*[a-z][A-Za-z0-9]*"),
}


def brackets(text: PythonText) -> Iterator[Span]:
    """What stands between brackets, by how deep, by which shape is the innermost, and what comes first."""
    depth = dict.fromkeys(text.pairs, 0)
    stack = []
    for number, word in enumerate(text.words):
        if stack and number == stack[-1] + 1 and word.text not in CLOSING:
            yield Span("first thing in brackets", word.start, word.end)
        if word.kind == kinds.OP and word.text in OPENING:
            stack.append(number)
        elif number in text.pairs:
            depth[number] = len(stack)
            stack.pop()
    for closing, opening in text.pairs.items():
        start, end = text.words[opening].end, text.words[closing].start
        names = ("in brackets", "in brackets two deep", "in brackets three deep")[: depth[closing]]
        yield from (Span(name, start, end) for name in names[-1:])
    yield from innermost(text)


def innermost(text: PythonText) -> Iterator[Span]:
    """Which shape of bracket is the innermost around each stretch of text."""
    stack, since = [], 0
    for number, word in enumerate(text.words):
        if word.kind != kinds.OP or word.text not in OPENING + CLOSING:
            continue
        if stack:
            yield Span(SHAPES[stack[-1]], since, word.start)
        if word.text in OPENING:
            stack.append(word.text)
        elif number in text.pairs:
            stack.pop()
        since = word.end


def layout(text: PythonText) -> Iterator[Span]:
    """Ends of statements, line breaks that end none, blank lines and indentation."""
    for piece in text.pieces:
        if piece.kind == kinds.NEWLINE:
            yield Span("end of a statement", piece.start, text.next_line(piece.start))
        elif piece.kind == kinds.NL:
            start = text.line_of(piece.start)
            blank = not text.source[start : piece.start].strip()
            name = "blank line" if blank else "line break inside brackets"
            if blank or text.source[start : piece.start].lstrip()[0] != "#":
                yield Span(name, start if blank else piece.start, text.next_line(piece.start))
    yield from indentation(text)


def indentation(text: PythonText) -> Iterator[Span]:
    """White space at the head of a line, outside of strings."""
    inside = {line for p in text.pieces if p.kind == kinds.STRING for line in line_breaks_in(text, p)}
    for start in text.lines:
        if start not in inside:
            blank = SPACE.match(text.source, start)
            assert blank is not None  # it may be empty
            yield Span("indentation", start, blank.end())


def line_breaks_in(text: PythonText, piece: Piece) -> list[int]:
    """The first characters of the lines that begin inside this piece."""
    first, last = bisect_right(text.lines, piece.start), bisect_right(text.lines, piece.end - 1)
    return text.lines[first:last]


def blocks(text: PythonText) -> Iterator[Span]:
    """Levels of blocks. Comments and blank lines belong to the statement that follows them."""
    level, since, new_statement, last = 0, 0, True, None
    for piece in text.pieces:
        if piece.kind in (kinds.INDENT, kinds.DEDENT):
            level += 1 if piece.kind == kinds.INDENT else -1
            if last is not None:
                act = "opens" if piece.kind == kinds.INDENT else "closes"
                yield Span(f"line break that {act} a block", last.start, text.next_line(last.start))
        elif piece.kind in (kinds.NEWLINE, kinds.ENDMARKER):
            until = text.next_line(piece.start)
            yield Span(LEVELS[min(level, 3)], since, until)
            since, new_statement, last = until, True, piece
        elif piece.kind not in INVISIBLE and new_statement:
            yield Span("first word of a statement", piece.start, piece.end)
            new_statement = False
    yield from block_colons(text)


LEVELS = ("at block level 0", "at block level 1", "at block level 2", "at block level 3 or deeper")


def block_colons(text: PythonText) -> Iterator[Span]:
    """The last colon of a line whose statement opens an indented block."""
    last = None
    for piece in text.pieces:
        if piece.kind == kinds.INDENT and last is not None and last.text == ":":
            yield Span("colon that opens a block", last.start, last.end)
        elif piece.kind not in INVISIBLE:
            last = piece
