"""What every character of a Python file is: ground truth for components of models that read code.

Labels are read from the text alone, by Python's own `tokenize` and `ast`, so they are exact: no model and no person
guessed them. A label is a set of spans of characters. Its name reads in a sentence: a name that begins with "in" or
"at" is a place ("in a docstring"), any other is a kind of thing ("function name at def").

A file that does not parse (Python 2, a template) keeps the labels that its tokens alone support; one that does not
even tokenize has none. `Labelled.read_by` says which. Strings are opaque: a replacement field of an f-string is in the
string, and its names are not labelled as names, so labels do not depend on the version of Python (f-strings are one
token up to 3.11 and many from 3.12).

A model's token has a label if its first visible character has. A token of white space alone takes its first character,
and the layout labels (indentation, line breaks) of any of its characters: "newline and eight spaces" both ends a
statement and indents. A token of no characters (beginning of sequence) has no label.
"""

import ast
import builtins
import io
import keyword
import re
import token as kinds
import tokenize
import warnings
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol, cast

import numpy as np
from jaxtyping import Bool, Int

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
SYNTAX_LABELS = (
    "in a docstring",
    "in the first line of a docstring",
    "function name at def",
    "class name at class",
    "parameter name",
    "keyword argument name",
    "attribute of self seen before in this class",
    "imported name",
    "module name in import",
    "name being assigned",
    "name being called",
    "exception name",
    "name seen before in this function",
    "first use of a name",
    "in a def line",
    "in a class line",
    "in a decorator",
    "in a type annotation",
    "in a default value",
    "in an import",
    "in a return statement",
    "in a raise statement",
    "in an assert",
    "in a for line",
    "in a with line",
    "in an except line",
    "in a test of if or while",
    "in the value of an assignment",
    "in call arguments",
    "in a subscript",
    "in a comparison",
    "in a dict",
    "in a list",
    "in a tuple",
    "in a comprehension",
    "in a lambda",
    "in a class body",
    "in a function body",
    "in a loop body",
    "in a try body",
    "in an except body",
)
LABELS = LAYOUT + TOKEN_LABELS + SYNTAX_LABELS

BUILTINS = frozenset(n for n in dir(builtins) if not n.startswith("_")) - {"True", "False", "None"}
CONSTANTS = frozenset({"True", "False", "None"})
COMPARISONS = frozenset({"<", ">", "<=", ">=", "==", "!=", "<>"})
ASSIGNMENTS = frozenset({"=", ":=", "+=", "-=", "*=", "/=", "//=", "%=", "**=", "@=", "&=", "|=", "^=", "<<=", ">>="})
OPERATORS = frozenset({"+", "-", "*", "/", "//", "%", "**", "@", "&", "|", "^", "~", "<<", ">>"})
SPACE = re.compile(r"[ \t\f]*")
OPENING, CLOSING = "([{", ")]}"
SHAPES = {"(": "in round brackets", "[": "in square brackets", "{": "in curly brackets"}
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


class Labelled:
    """The labels of one source text. `read_by` is "syntax", "tokens" or "nothing"."""

    def __init__(self, source: str, spans: Mapping[str, list[Span]], read_by: str) -> None:
        self.source, self.spans, self.read_by = source, spans, read_by

    def characters(self) -> Bool[np.ndarray, "labels characters"]:
        return np.array([self.row(label) for label in LABELS])

    def tokens(self, offsets: Int[np.ndarray, "tokens 2"]) -> Bool[np.ndarray, "tokens labels"]:
        """The labels of a model's tokens, given the characters start..end of each in this text."""
        first, empty = first_visible(self.source, offsets), offsets[:, 0] >= offsets[:, 1]
        found = np.zeros((len(offsets), len(LABELS)), bool)
        for number, label in enumerate(LABELS):
            if self.spans.get(label):
                row = self.row(label)
                found[:, number] = row[np.minimum(first, len(row) - 1)]
                if label in LAYOUT:
                    found[:, number] |= any_of_space(self.source, row, offsets)
        return found & ~empty[:, None]

    def row(self, label: str) -> Bool[np.ndarray, "characters"]:
        """Whether each character has this label: spans begin and end, and whoever is between has it."""
        spans = np.array([s[1:] for s in self.spans.get(label, ())], np.int64).reshape(-1, 2)
        length = len(self.source) + 1
        steps = np.bincount(spans[:, 0], minlength=length) - np.bincount(spans[:, 1], minlength=length)
        return np.cumsum(steps)[:-1] > 0


def label(source: str) -> Labelled:
    """Every label of a Python source text. Never raises on account of the text."""
    try:
        text = Text(source, list(pieces(source)))
    except (tokenize.TokenError, SyntaxError, MisreadError):
        return Labelled(source, {}, "nothing")
    tree = parse(source)
    found = defaultdict(list)
    for span in [*token_spans(text), *(syntax_spans(text, tree) if tree else ())]:
        if span.start < span.end:
            found[span.label].append(span)
    return Labelled(source, found, "syntax" if tree else "tokens")


def label_tokens(source: str, offsets: Int[np.ndarray, "tokens 2"]) -> Bool[np.ndarray, "tokens labels"]:
    """The labels of a model's tokens; a text that cannot be read has none."""
    return label(source).tokens(offsets)


# --------------------------------------------------------------------------------------------------- characters


def first_visible(source: str, offsets: Int[np.ndarray, "tokens 2"]) -> Int[np.ndarray, "tokens"]:
    """Where each token's first visible character stands; its first character where there is none."""
    start, end = offsets.T
    nearest = next_visible(source)[np.minimum(start, len(source))]
    return np.where(nearest < end, nearest, start)


def any_of_space(
    source: str, row: Bool[np.ndarray, "characters"], offsets: Int[np.ndarray, "tokens 2"]
) -> Bool[np.ndarray, "tokens"]:
    """Which tokens are white space alone and touch a character of this row."""
    start, end = offsets.T
    before = np.concatenate([[0], np.cumsum(row)])
    return (next_visible(source)[np.minimum(start, len(source))] >= end) & (before[end] > before[start])


def next_visible(source: str) -> Int[np.ndarray, "characters_and_end"]:
    """The next character at or after each one that is not white space; the text's length where none is left."""
    visible = np.fromiter((not c.isspace() for c in source), bool, len(source))
    places = np.where(visible, np.arange(len(source)), len(source))
    return np.append(np.minimum.accumulate(places[::-1])[::-1], len(source))


# --------------------------------------------------------------------------------------------------- the text, read


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
    if piece.kind == kinds.ERRORTOKEN and not piece.text.isspace():
        raise MisreadError(piece)
    if piece.kind not in INVISIBLE and source[piece.start : piece.end] != piece.text:
        raise MisreadError(piece)
    return piece


def line_starts(source: str) -> list[int]:
    """The first character of each line. Only a newline ends a line: form feeds do not."""
    return [0, *(m.end() for m in re.finditer("\n", source))]


def parse(source: str) -> ast.Module | None:
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
class Text:
    """A source text with its pieces, and the ways to find one."""

    source: str
    pieces: list[Piece]

    @cached_property
    def words(self) -> list[Piece]:
        """The pieces that are not layout or comments."""
        return [p for p in self.pieces if p.kind not in INVISIBLE and p.kind != kinds.ERRORTOKEN]

    @cached_property
    def starting(self) -> dict[int, int]:
        return {p.start: n for n, p in enumerate(self.words)}

    @cached_property
    def ending(self) -> dict[int, int]:
        return {p.end: n for n, p in enumerate(self.words)}

    @cached_property
    def starts(self) -> list[int]:
        return [p.start for p in self.words]

    @cached_property
    def lines(self) -> list[int]:
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
        stands = cast(Standing, node)
        return self.at(stands.lineno, stands.col_offset)

    def end(self, node: ast.AST) -> int:
        stands = cast(Standing, node)
        return self.at(stands.end_lineno, stands.end_col_offset)

    def first(self, node: ast.AST) -> int:
        """The number of the node's first word."""
        return self.starting[self.start(node)]

    def last(self, node: ast.AST) -> Piece:
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
        number = bisect_right(self.lines, character)
        return self.lines[number] if number < len(self.lines) else len(self.source)


# --------------------------------------------------------------------------------------------------- what tokens say


def token_spans(text: Text) -> Iterator[Span]:
    yield from layout(text)
    yield from strings_and_comments(text)
    yield from words(text)
    yield from brackets(text)
    yield from blocks(text)


def strings_and_comments(text: Text) -> Iterator[Span]:
    for piece in text.pieces:
        if piece.kind == kinds.COMMENT:
            yield Span("in a comment", piece.start, piece.end)
        elif piece.kind == kinds.STRING:
            yield from string(piece)


def string(piece: Piece) -> Iterator[Span]:
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


def words(text: Text) -> Iterator[Span]:
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


def brackets(text: Text) -> Iterator[Span]:
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


def innermost(text: Text) -> Iterator[Span]:
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


def layout(text: Text) -> Iterator[Span]:
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


def indentation(text: Text) -> Iterator[Span]:
    """White space at the head of a line, outside of strings."""
    inside = {line for p in text.pieces if p.kind == kinds.STRING for line in line_breaks_in(text, p)}
    for start in text.lines:
        if start not in inside:
            blank = SPACE.match(text.source, start)
            assert blank is not None  # it may be empty
            yield Span("indentation", start, blank.end())


def line_breaks_in(text: Text, piece: Piece) -> list[int]:
    first, last = bisect_right(text.lines, piece.start), bisect_right(text.lines, piece.end - 1)
    return text.lines[first:last]


def blocks(text: Text) -> Iterator[Span]:
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


def block_colons(text: Text) -> Iterator[Span]:
    """The last colon of a line whose statement opens an indented block."""
    last = None
    for piece in text.pieces:
        if piece.kind == kinds.INDENT and last is not None and last.text == ":":
            yield Span("colon that opens a block", last.start, last.end)
        elif piece.kind not in INVISIBLE:
            last = piece


# --------------------------------------------------------------------------------------------------- what syntax says


def syntax_spans(text: Text, tree: ast.Module) -> Iterator[Span]:
    for node in visible_nodes(tree):
        for mark in MARKS.get(type(node), ()):
            yield from mark(text, node)
    yield from docstrings(text, tree)
    yield from names_seen(text, tree)
    yield from attributes_seen(text, tree)


def visible_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """The tree without the insides of f-strings, whose places are wrong up to 3.11."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if type(node).__name__ not in ("JoinedStr", "TemplateStr"):
            waiting.extend(ast.iter_child_nodes(node))


def whole(name: str) -> Callable[[Text, ast.AST], Iterator[Span]]:
    def mark(text: Text, node: ast.AST) -> Iterator[Span]:
        yield Span(name, text.start(node), text.end(node))

    return mark


def after_first_word(name: str) -> Callable[[Text, ast.AST], Iterator[Span]]:
    def mark(text: Text, node: ast.AST) -> Iterator[Span]:
        yield Span(name, text.words[text.first(node)].end, text.end(node))

    return mark


Headed = (
    ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.For | ast.AsyncFor | ast.With | ast.AsyncWith
    | ast.ExceptHandler
)  # fmt: skip


def header(name: str) -> Callable[[Text, Headed], Iterator[Span]]:
    """From after the statement's first word to the colon before its body."""

    def mark(text: Text, node: Headed) -> Iterator[Span]:
        yield Span(name, text.words[text.first(node)].end, colon_before(text, node.body[0]))

    return mark


def body(name: str, field: str = "body") -> Callable[[Text, ast.AST], Iterator[Span]]:
    def mark(text: Text, node: ast.AST) -> Iterator[Span]:
        yield block(text, name, getattr(node, field))

    return mark


def block(text: Text, name: str, statements: list[ast.stmt]) -> Span:
    """From after the colon's line to the end of the last statement's line; a body on its header's line starts there."""
    first, last = statements[0], statements[-1]
    colon = colon_before(text, first)
    start = text.next_line(colon)
    return Span(name, min(start, first_character(text, first)), text.next_line(max(text.end(last) - 1, 0)))


def first_character(text: Text, statement: ast.stmt) -> int:
    """A decorated definition begins at its decorator."""
    decorators = getattr(statement, "decorator_list", None)
    return text.start(decorators[0]) - 1 if decorators else text.start(statement)


def colon_before(text: Text, statement: ast.stmt) -> int:
    number = bisect_right(text.starts, first_character(text, statement)) - 1
    while text.words[number].text != ":" or text.words[number].start >= first_character(text, statement):
        number -= 1
    return text.words[number].start


def definition(name: str, keyword_: str) -> Callable[[Text, ast.AST], Iterator[Span]]:
    def mark(text: Text, node: ast.AST) -> Iterator[Span]:
        word = text.words[text.after(text.start(node), keyword_) + 1]
        yield Span(name, word.start, word.end)

    return mark


def decorators(text: Text, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> Iterator[Span]:
    for decorator in node.decorator_list:
        sign = text.words[bisect_right(text.starts, text.start(decorator)) - 1]
        number = text.starting[sign.start]
        while text.words[number].text != "@":
            number -= 1
        yield Span("in a decorator", text.words[number].start, text.end(decorator))


def annotation_of_return(text: Text, node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[Span]:
    if node.returns:
        yield Span("in a type annotation", text.start(node.returns), text.end(node.returns))


def defaults(text: Text, node: ast.arguments) -> Iterator[Span]:
    for default in [*node.defaults, *node.kw_defaults]:
        if default is not None:
            yield Span("in a default value", text.start(default), text.end(default))


def parameter(text: Text, node: ast.arg) -> Iterator[Span]:
    word = text.words[text.first(node)]
    yield Span("parameter name", word.start, word.end)
    if node.annotation:
        yield Span("in a type annotation", text.start(node.annotation), text.end(node.annotation))


def keyword_argument(text: Text, node: ast.keyword) -> Iterator[Span]:
    if node.arg is not None:
        word = text.words[text.first(node)]
        yield Span("keyword argument name", word.start, word.end)


def call(text: Text, node: ast.Call) -> Iterator[Span]:
    yield inside_brackets(text, "in call arguments", node)
    if type(node.func) in (ast.Name, ast.Attribute):
        word = text.last(node.func)
        yield Span("name being called", word.start, word.end)


def subscript(text: Text, node: ast.Subscript) -> Iterator[Span]:
    yield inside_brackets(text, "in a subscript", node)


def inside_brackets(text: Text, name: str, node: ast.AST) -> Span:
    """Between the bracket that ends this node and the one that it closes."""
    closing = text.ending[text.end(node)]
    return Span(name, text.words[text.pairs[closing]].end, text.words[closing].start)


def stored(text: Text, node: ast.Name | ast.Attribute) -> Iterator[Span]:
    if type(node.ctx) is ast.Store:
        word = text.last(node)
        yield Span("name being assigned", word.start, word.end)


def captured(text: Text, node: ast.MatchAs | ast.MatchStar) -> Iterator[Span]:
    if node.name is not None:
        word = text.last(node)
        yield Span("name being assigned", word.start, word.end)


def value(text: Text, node: ast.Assign | ast.AnnAssign | ast.AugAssign | ast.NamedExpr) -> Iterator[Span]:
    if node.value is not None:
        yield Span("in the value of an assignment", text.start(node.value), text.end(node.value))


def annotated(text: Text, node: ast.AnnAssign) -> Iterator[Span]:
    yield Span("in a type annotation", text.start(node.annotation), text.end(node.annotation))


def imported(text: Text, node: ast.Import | ast.ImportFrom) -> Iterator[Span]:
    """After `import`: names, unless it is the whole statement that names modules. After `as`: names again."""
    start, end = text.first(node), text.ending[text.end(node)]
    place = "module name in import"
    for number in range(start + 1, end + 1):
        word = text.words[number]
        if word.text in ("import", "as"):
            place = "imported name"
        elif word.text == "," and type(node) is ast.Import:
            place = "module name in import"
        elif word.kind == kinds.NAME:
            yield Span(place, word.start, word.end)


def raised(text: Text, node: ast.Raise) -> Iterator[Span]:
    yield from exception_names(text, node.exc)


def caught(text: Text, node: ast.ExceptHandler) -> Iterator[Span]:
    yield from exception_names(text, node.type)


def exception_names(text: Text, node: ast.expr | None) -> Iterator[Span]:
    """The last name of what is raised or caught: `E`, `E(...)`, `module.E`, or each of a tuple."""
    if type(node) is ast.Tuple:
        for one in node.elts:
            yield from exception_names(text, one)
    elif type(node) is ast.Call:
        yield from exception_names(text, node.func)
    elif isinstance(node, ast.Name | ast.Attribute):
        word = text.last(node)
        yield Span("exception name", word.start, word.end)


def test(text: Text, node: ast.If | ast.While | ast.IfExp) -> Iterator[Span]:
    yield Span("in a test of if or while", text.start(node.test), text.end(node.test))


FUNCTION = (
    definition("function name at def", "def"),
    decorators,
    annotation_of_return,
    header("in a def line"),
    body("in a function body"),
)
CLASS = (
    definition("class name at class", "class"),
    decorators,
    header("in a class line"),
    body("in a class body"),
)
LOOP = (header("in a for line"), body("in a loop body"))
COMPREHENSION = (whole("in a comprehension"),)
IMPORT = (after_first_word("in an import"), imported)
MARKS = {
    ast.FunctionDef: FUNCTION,
    ast.AsyncFunctionDef: FUNCTION,
    ast.ClassDef: CLASS,
    ast.arguments: (defaults,),
    ast.arg: (parameter,),
    ast.keyword: (keyword_argument,),
    ast.Call: (call,),
    ast.Subscript: (subscript,),
    ast.Name: (stored,),
    ast.Attribute: (stored,),
    ast.MatchAs: (captured,),
    ast.MatchStar: (captured,),
    ast.Assign: (value,),
    ast.AugAssign: (value,),
    ast.AnnAssign: (value, annotated),
    ast.NamedExpr: (value,),
    ast.Import: IMPORT,
    ast.ImportFrom: IMPORT,
    ast.Return: (after_first_word("in a return statement"),),
    ast.Raise: (after_first_word("in a raise statement"), raised),
    ast.Assert: (after_first_word("in an assert"),),
    ast.For: LOOP,
    ast.AsyncFor: LOOP,
    ast.While: (test, body("in a loop body")),
    ast.If: (test,),
    ast.IfExp: (test,),
    ast.With: (header("in a with line"),),
    ast.AsyncWith: (header("in a with line"),),
    ast.Try: (body("in a try body"),),
    ast.ExceptHandler: (header("in an except line"), caught, body("in an except body")),
    ast.Compare: (whole("in a comparison"),),
    ast.Dict: (whole("in a dict"),),
    ast.List: (whole("in a list"),),
    ast.Tuple: (whole("in a tuple"),),
    ast.ListComp: COMPREHENSION,
    ast.SetComp: COMPREHENSION,
    ast.DictComp: COMPREHENSION,
    ast.GeneratorExp: COMPREHENSION,
    ast.Lambda: (whole("in a lambda"),),
}


Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def docstrings(text: Text, tree: ast.Module) -> Iterator[Span]:
    for node in visible_nodes(tree):
        found = docstring(node) if isinstance(node, Documented) else None
        if found is not None:
            start, end = text.start(found), text.end(found)
            yield Span("in a docstring", start, end)
            yield Span("in the first line of a docstring", start, min(end, text.next_line(start)))


def docstring(node: Documented) -> ast.Constant | None:
    first = node.body[0] if node.body else None
    said = first.value if isinstance(first, ast.Expr) else None
    return said if isinstance(said, ast.Constant) and isinstance(said.value, str) else None


def names_seen(text: Text, tree: ast.Module) -> Iterator[Span]:
    """Names (not attributes) that stood before in the same function, and those that stand there for the first time.

    Outside of functions the scope is the rest of the file. A nested function is its own scope, header included.
    """
    scope = scopes(text, tree, (ast.FunctionDef, ast.AsyncFunctionDef))
    seen, before = defaultdict(set), ""
    for word, owner in zip(text.words, scope, strict=True):
        if word.kind == kinds.NAME and before != "." and not keyword.iskeyword(word.text):
            if word.text not in seen[owner]:
                yield Span("first use of a name", word.start, word.end)
            elif owner:
                yield Span("name seen before in this function", word.start, word.end)
            seen[owner].add(word.text)
        before = word.text


def attributes_seen(text: Text, tree: ast.Module) -> Iterator[Span]:
    scope = scopes(text, tree, (ast.ClassDef,))
    seen = defaultdict(set)
    for number in range(2, len(text.words)):
        word = text.words[number]
        if word.kind == kinds.NAME and [w.text for w in text.words[number - 2 : number]] == ["self", "."]:
            if word.text in seen[scope[number]]:
                yield Span("attribute of self seen before in this class", word.start, word.end)
            seen[scope[number]].add(word.text)


def scopes(text: Text, tree: ast.Module, of: tuple[type, ...]) -> list[int]:
    """The innermost node of these types around each word, as a number; 0 is none."""
    found = np.zeros(len(text.words), np.int64)
    nodes = sorted((n for n in visible_nodes(tree) if type(n) in of), key=lambda n: (text.start(n), -text.end(n)))
    for number, node in enumerate(nodes, 1):
        first, last = bisect_right(text.starts, text.start(node) - 1), bisect_right(text.starts, text.end(node) - 1)
        found[first:last] = number
    return found.tolist()
