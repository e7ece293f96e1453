"""The labels of a file are what Python's own tokenizer and parser say of it."""

import ast
import importlib.util
import io
import tokenize
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.data.labels import LABELS, label, label_tokens

MODULES = ("textwrap", "heapq", "json.decoder", "dataclasses", "contextlib", "asyncio.locks", "email.header")


def source_of(module: str) -> str:
    return Path(importlib.util.find_spec(module).origin).read_text(encoding="utf-8")


def spans(source: str, name: str) -> list[str]:
    return sorted(source[s.start : s.end] for s in label(source).spans.get(name, ()))


SNIPPET = '''\
"""Dôc
two."""
from a.b import (c as d,
                 e)
import os.path as p, sys
@deco(1)
class Foo(Bar):
    X: int = 3

    async def go(self, n: int = 2, *args, key=None, **kw) -> str:
        # é comment
        self.x = self.x + n
        é = f"{self.y!r} {n:>{n}} {'a'}"; b = b"x"
        if (m := len(args)) >= 3 and not n:
            raise errors.Bad("é", key=n)
        try:
            return self.x[1:2, {a: [3]}]
        except (KeyError, os.error) as e:
            pass
        match n:
            case [1, *rest]: pass
            case Foo(x=1) as q: pass
'''


@pytest.mark.parametrize(("name", "found"), [
    ("in a docstring", ['"""Dôc\ntwo."""']),
    ("in the first line of a docstring", ['"""Dôc\n']),
    ("in a comment", ["# é comment"]),
    ("in an f-string", ["""f"{self.y!r} {n:>{n}} {'a'}\""""]),
    ("in a byte string", ['b"x"']),
    ("function name at def", ["go"]),
    ("class name at class", ["Foo"]),
    ("parameter name", ["args", "key", "kw", "n", "self"]),
    ("keyword argument name", ["key"]),
    ("attribute of self", ["x", "x", "x"]),
    ("attribute of self seen before in this class", ["x", "x"]),
    ("imported name", ["c", "d", "e", "p"]),
    ("module name in import", ["a", "b", "os", "path", "sys"]),
    ("name being assigned", ["X", "b", "m", "q", "rest", "x", "é"]),
    ("name being called", ["Bad", "deco", "len"]),
    ("exception name", ["Bad", "KeyError", "error"]),
    ("in a type annotation", ["int", "int", "str"]),
    ("in a default value", ["2", "None"]),
    ("in a decorator", ["@deco(1)"]),
    ("in a test of if or while", ["(m := len(args)) >= 3 and not n"]),
    ("in call arguments", ['"é", key=n', "1", "args"]),
    ("in a subscript", ["1:2, {a: [3]}"]),
    ("in brackets three deep", ["3"]),
    ("in a return statement", [" self.x[1:2, {a: [3]}]"]),
    ("comparison sign", [">="]),
    ("in a def line", [" def go(self, n: int = 2, *args, key=None, **kw) -> str"]),
    ("at block level 2", [
        "        # é comment\n        self.x = self.x + n\n", "        except (KeyError, os.error) as e:\n",
        "        if (m := len(args)) >= 3 and not n:\n", "        match n:\n", "        try:\n",
        "        é = f\"{self.y!r} {n:>{n}} {'a'}\"; b = b\"x\"\n",
    ]),
])  # fmt: skip
def test_a_snippet_has_these_spans(name: str, found: list[str]) -> None:
    assert spans(SNIPPET, name) == found


def of_token(source: str, token: str) -> set[str]:
    start = source.index(token)
    row = label_tokens(source, np.array([[start, start + len(token)]]))[0]
    return {LABELS[n] for n in np.flatnonzero(row)}


def test_a_token_has_the_labels_of_its_first_visible_character() -> None:
    source = "def f(x):\n    return x  # why\n"
    assert {"function name at def", "in a def line"} <= of_token(source, " f")
    assert "in a comment" in of_token(source, "  # why")
    assert {"opening bracket", "in a def line"} <= of_token(source, "(x")


def test_a_token_of_white_space_takes_the_layout_of_all_its_characters() -> None:
    found = of_token("if a:\n\n    b = 1\n", "\n\n    ")
    assert {"end of a statement", "blank line", "indentation", "line break that opens a block"} <= found
    assert {"at block level 0"} == {n for n in found if n.startswith("at ")}


def test_a_token_of_no_characters_has_no_label() -> None:
    assert not label_tokens("x = 1\n", np.array([[0, 0], [6, 6]])).any()


@pytest.mark.parametrize("module", MODULES)
def test_every_character_of_a_comment_is_in_a_comment_and_of_a_string_in_a_string(module: str) -> None:
    source = source_of(module)
    characters = label(source).characters()
    lines = source.split("\n")
    starts = np.concatenate([[0], np.cumsum([len(line) + 1 for line in lines])])
    covered = {"in a comment": np.zeros(len(source), bool), "in a string": np.zeros(len(source), bool)}
    for kind, _, (row, start), (end_row, end), _ in tokenize.generate_tokens(io.StringIO(source).readline):
        name = {"COMMENT": "in a comment", "STRING": "in a string"}.get(tokenize.tok_name[kind])
        if name:
            covered[name][starts[row - 1] + start : starts[end_row - 1] + end] = True
    assert (characters[LABELS.index("in a comment")] == covered["in a comment"]).all()
    assert (characters[LABELS.index("in a string")] >= covered["in a string"]).all()


@pytest.mark.parametrize("module", MODULES)
def test_names_are_those_of_the_syntax_tree(module: str) -> None:
    source = source_of(module)
    nodes = list(ast.walk(ast.parse(source)))
    functions = [n.name for n in nodes if type(n) in (ast.FunctionDef, ast.AsyncFunctionDef)]
    assert spans(source, "function name at def") == sorted(functions)
    assert spans(source, "class name at class") == sorted(n.name for n in nodes if type(n) is ast.ClassDef)
    assert spans(source, "parameter name") == sorted(n.arg for n in nodes if type(n) is ast.arg)
    documented = [n for n in nodes if type(n) in (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)]
    assert len(spans(source, "in a docstring")) == sum(ast.get_docstring(n) is not None for n in documented)


@pytest.mark.parametrize("module", MODULES)
def test_every_line_is_at_one_level_and_every_bracketed_character_in_one_shape(module: str) -> None:
    characters = label(source_of(module)).characters()
    levels = [n for n, name in enumerate(LABELS) if name.startswith("at block level")]
    shapes = [LABELS.index(f"in {shape} brackets") for shape in ("round", "square", "curly")]
    assert (characters[levels].sum(0) == 1).all()
    in_brackets = characters[LABELS.index("in brackets")]
    assert (characters[shapes].sum(0) <= 1).all()
    assert (characters[shapes].any(0) <= in_brackets).all()


def test_labels_that_reach_past_others_stay_inside_them() -> None:
    characters = label(source_of("dataclasses")).characters()
    for inner, outer in [("in a docstring", "in a string"), ("in brackets two deep", "in brackets")]:
        assert (characters[LABELS.index(inner)] <= characters[LABELS.index(outer)]).all()


def test_python_2_keeps_what_its_tokens_say() -> None:
    found = label("print 'a', 0777L  # old\n")
    assert found.read_by == "tokens"
    assert [s.label for s in found.spans["in a comment"]] == ["in a comment"]


UNREADABLE = ["'''never closed", "a = (", "x\x00y", "  bad\n indent\n", "\f\n", "", "a\rb\r\n", "x = `a`\n"]


@pytest.mark.parametrize("source", UNREADABLE)
def test_a_text_that_cannot_be_read_is_no_error(source: str) -> None:
    assert label(source).characters().shape == (len(LABELS), len(source))


def test_a_form_feed_ends_no_line() -> None:
    assert spans("a = 1\n\f\ndef f():\n    pass\n", "function name at def") == ["f"]


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="ab é=()[]'\"#:\n\t\f\\f{}.,1", max_size=60), st.integers(1, 5))
def test_any_text_is_labelled_within_its_length(source: str, step: int) -> None:
    found = label(source)
    assert all(0 <= s.start < s.end <= len(source) for group in found.spans.values() for s in group)
    offsets = np.array([[a, min(a + step, len(source))] for a in range(0, len(source), step)]).reshape(-1, 2)
    offsets = offsets.astype(np.int64)
    assert found.tokens(offsets).shape == (len(offsets), len(LABELS))


@pytest.mark.parametrize("module", MODULES)
def test_tokens_of_one_character_have_the_labels_of_that_character(module: str) -> None:
    source = source_of(module)
    found = label(source)
    offsets = np.stack([np.arange(len(source)), np.arange(len(source)) + 1], 1)
    assert (found.tokens(offsets) == found.characters().T).all()
