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

import tokenize
from collections import defaultdict
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Int

from microtome.data.python_text import MisreadError, PythonText, Span, parse, pieces
from microtome.data.syntax_labels import SYNTAX_LABELS, syntax_spans
from microtome.data.token_labels import LAYOUT, TOKEN_LABELS, token_spans
from microtome.data.visible import any_of_space, first_visible

LABELS = LAYOUT + TOKEN_LABELS + SYNTAX_LABELS


class Labelled:
    """The labels of one source text. `read_by` is "syntax", "tokens" or "nothing"."""

    def __init__(self, source: str, spans: Mapping[str, list[Span]], read_by: str) -> None:
        self.source, self.spans, self.read_by = source, spans, read_by

    def characters(self) -> Bool[np.ndarray, "labels characters"]:
        """Which labels each character has, in the order of `LABELS`."""
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
        text = PythonText(source, list(pieces(source)))
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
