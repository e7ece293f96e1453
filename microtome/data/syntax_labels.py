"""The labels of Python source that its syntax tree supports: definitions, uses, statements, bodies.

`MARKS` says for each type of node what it labels.
"""

import ast
import keyword
import token as kinds
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator

import numpy as np

from microtome.data.python_text import PythonText, Span

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


def syntax_spans(text: PythonText, tree: ast.Module) -> Iterator[Span]:
    """Every span that the tree of this text supports."""
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


def whole(name: str) -> Callable[[PythonText, ast.AST], Iterator[Span]]:
    """The node from its first character to its last."""

    def mark(text: PythonText, node: ast.AST) -> Iterator[Span]:
        yield Span(name, text.start(node), text.end(node))

    return mark


def after_first_word(name: str) -> Callable[[PythonText, ast.AST], Iterator[Span]]:
    """The node but for the word that begins it: what is returned, and not `return`."""

    def mark(text: PythonText, node: ast.AST) -> Iterator[Span]:
        yield Span(name, text.words[text.first(node)].end, text.end(node))

    return mark


Headed = (
    ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.For | ast.AsyncFor | ast.With | ast.AsyncWith
    | ast.While | ast.Try | ast.ExceptHandler
)  # fmt: skip


def header(name: str) -> Callable[[PythonText, Headed], Iterator[Span]]:
    """From after the statement's first word to the colon before its body."""

    def mark(text: PythonText, node: Headed) -> Iterator[Span]:
        yield Span(name, text.words[text.first(node)].end, colon_before(text, node.body[0]))

    return mark


def body(name: str) -> Callable[[PythonText, Headed], Iterator[Span]]:
    """The statements of the node's own body, not of its `else` or `finally`."""

    def mark(text: PythonText, node: Headed) -> Iterator[Span]:
        yield block(text, name, node.body)

    return mark


def block(text: PythonText, name: str, statements: list[ast.stmt]) -> Span:
    """From after the colon's line to the end of the last statement's line; a body on its header's line starts there."""
    first, last = statements[0], statements[-1]
    colon = colon_before(text, first)
    start = text.next_line(colon)
    return Span(name, min(start, first_character(text, first)), text.next_line(max(text.end(last) - 1, 0)))


def first_character(text: PythonText, statement: ast.stmt) -> int:
    """A decorated definition begins at its decorator."""
    decorators = getattr(statement, "decorator_list", None)
    return text.start(decorators[0]) - 1 if decorators else text.start(statement)


def colon_before(text: PythonText, statement: ast.stmt) -> int:
    """The character of the colon that opens the block whose first statement this is."""
    number = bisect_right(text.starts, first_character(text, statement)) - 1
    while text.words[number].text != ":" or text.words[number].start >= first_character(text, statement):
        number -= 1
    return text.words[number].start


def definition(name: str, keyword_: str) -> Callable[[PythonText, ast.AST], Iterator[Span]]:
    """The name that follows `def` or `class`."""

    def mark(text: PythonText, node: ast.AST) -> Iterator[Span]:
        word = text.words[text.after(text.start(node), keyword_) + 1]
        yield Span(name, word.start, word.end)

    return mark


def decorators(text: PythonText, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> Iterator[Span]:
    """Each decorator with its sign."""
    for decorator in node.decorator_list:
        sign = text.words[bisect_right(text.starts, text.start(decorator)) - 1]
        number = text.starting[sign.start]
        while text.words[number].text != "@":
            number -= 1
        yield Span("in a decorator", text.words[number].start, text.end(decorator))


def annotation_of_return(text: PythonText, node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[Span]:
    """What follows the arrow."""
    if node.returns:
        yield Span("in a type annotation", text.start(node.returns), text.end(node.returns))


def defaults(text: PythonText, node: ast.arguments) -> Iterator[Span]:
    """Default values of positional and keyword parameters, in brackets or not."""
    for default in [*node.defaults, *node.kw_defaults]:
        if default is not None:
            yield Span("in a default value", text.start(default), text.end(default))


def parameter(text: PythonText, node: ast.arg) -> Iterator[Span]:
    """The name and the annotation of one parameter."""
    word = text.words[text.first(node)]
    yield Span("parameter name", word.start, word.end)
    if node.annotation:
        yield Span("in a type annotation", text.start(node.annotation), text.end(node.annotation))


def keyword_argument(text: PythonText, node: ast.keyword) -> Iterator[Span]:
    """The name before the equals sign of a call's argument; `**rest` has none."""
    if node.arg is not None:
        word = text.words[text.first(node)]
        yield Span("keyword argument name", word.start, word.end)


def call(text: PythonText, node: ast.Call) -> Iterator[Span]:
    """The arguments of a call, and the last name of what is called where it has one."""
    yield inside_brackets(text, "in call arguments", node)
    if type(node.func) in (ast.Name, ast.Attribute):
        word = text.last(node.func)
        yield Span("name being called", word.start, word.end)


def subscript(text: PythonText, node: ast.Subscript) -> Iterator[Span]:
    """What stands between the square brackets."""
    yield inside_brackets(text, "in a subscript", node)


def inside_brackets(text: PythonText, name: str, node: ast.AST) -> Span:
    """Between the bracket that ends this node and the one that it closes."""
    closing = text.ending[text.end(node)]
    return Span(name, text.words[text.pairs[closing]].end, text.words[closing].start)


def stored(text: PythonText, node: ast.Name | ast.Attribute) -> Iterator[Span]:
    """The last name of what is written to: `x`, or the `x` of `self.x`."""
    if type(node.ctx) is ast.Store:
        word = text.last(node)
        yield Span("name being assigned", word.start, word.end)


def captured(text: PythonText, node: ast.MatchAs | ast.MatchStar) -> Iterator[Span]:
    """The name that a pattern of `match` binds."""
    if node.name is not None:
        word = text.last(node)
        yield Span("name being assigned", word.start, word.end)


def value(text: PythonText, node: ast.Assign | ast.AnnAssign | ast.AugAssign | ast.NamedExpr) -> Iterator[Span]:
    """The right-hand side of an assignment."""
    if node.value is not None:
        yield Span("in the value of an assignment", text.start(node.value), text.end(node.value))


def annotated(text: PythonText, node: ast.AnnAssign) -> Iterator[Span]:
    """The annotation of a variable."""
    yield Span("in a type annotation", text.start(node.annotation), text.end(node.annotation))


def imported(text: PythonText, node: ast.Import | ast.ImportFrom) -> Iterator[Span]:
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


def raised(text: PythonText, node: ast.Raise) -> Iterator[Span]:
    """The exceptions after `raise`."""
    yield from exception_names(text, node.exc)


def caught(text: PythonText, node: ast.ExceptHandler) -> Iterator[Span]:
    """The exceptions after `except`."""
    yield from exception_names(text, node.type)


def exception_names(text: PythonText, node: ast.expr | None) -> Iterator[Span]:
    """The last name of what is raised or caught: `E`, `E(...)`, `module.E`, or each of a tuple."""
    if type(node) is ast.Tuple:
        for one in node.elts:
            yield from exception_names(text, one)
    elif type(node) is ast.Call:
        yield from exception_names(text, node.func)
    elif isinstance(node, ast.Name | ast.Attribute):
        word = text.last(node)
        yield Span("exception name", word.start, word.end)


def test(text: PythonText, node: ast.If | ast.While | ast.IfExp) -> Iterator[Span]:
    """The condition, without its keyword and colon."""
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


def docstrings(text: PythonText, tree: ast.Module) -> Iterator[Span]:
    """The docstrings of the module, its classes and its functions, and the first line of each."""
    for node in visible_nodes(tree):
        found = docstring(node) if isinstance(node, Documented) else None
        if found is not None:
            start, end = text.start(found), text.end(found)
            yield Span("in a docstring", start, end)
            yield Span("in the first line of a docstring", start, min(end, text.next_line(start)))


def docstring(node: Documented) -> ast.Constant | None:
    """The string that opens a body, as a node; None where a body opens with anything else."""
    first = node.body[0] if node.body else None
    said = first.value if isinstance(first, ast.Expr) else None
    return said if isinstance(said, ast.Constant) and isinstance(said.value, str) else None


def names_seen(text: PythonText, tree: ast.Module) -> Iterator[Span]:
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


def attributes_seen(text: PythonText, tree: ast.Module) -> Iterator[Span]:
    """Attributes of `self` that stood before in the same class; outside of classes, in the rest of the file."""
    scope = scopes(text, tree, (ast.ClassDef,))
    seen = defaultdict(set)
    for number in range(2, len(text.words)):
        word = text.words[number]
        if word.kind == kinds.NAME and [w.text for w in text.words[number - 2 : number]] == ["self", "."]:
            if word.text in seen[scope[number]]:
                yield Span("attribute of self seen before in this class", word.start, word.end)
            seen[scope[number]].add(word.text)


def scopes(text: PythonText, tree: ast.Module, of: tuple[type, ...]) -> list[int]:
    """The innermost node of these types around each word, as a number; 0 is none."""
    found = np.zeros(len(text.words), np.int64)
    nodes = sorted((n for n in visible_nodes(tree) if type(n) in of), key=lambda n: (text.start(n), -text.end(n)))
    for number, node in enumerate(nodes, 1):
        first, last = bisect_right(text.starts, text.start(node) - 1), bisect_right(text.starts, text.end(node) - 1)
        found[first:last] = number
    return found.tolist()
