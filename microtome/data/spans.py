"""Labels of one's own, as spans of characters: JSON lines of a text and, for every label, where it holds.

    {"text": "The cat sat.", "labels": {"animal": [[4, 7]]}}

A label of a whole text is a span from 0 to its length, or `{"text": "So good.", "label": "positive"}`. A token has a
label if its first visible character has. Texts are held out by a hash of their number, as documents are everywhere.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int

from microtome.core.errors import Refusal
from microtome.data.corpus import Reader, context_of, tokenizer_of
from microtome.data.text import Document, Part, chosen
from microtome.data.visible import first_visible
from microtome.data.windows import Text, gather, shuffled, windows

Spans = Mapping[str, Sequence[tuple[int, int]]]


@dataclass(frozen=True)
class OwnLabels:
    """Documents with the spans of each label; texts that stand twice must be labelled alike."""

    names: tuple[str, ...]
    documents: tuple[Document, ...]
    spans: Mapping[str, Spans]

    @classmethod
    def read(cls, path: Path) -> "OwnLabels":
        """From a file of JSON lines. Raises Refusal for a line that is no such object, and a span outside its text."""
        if not path.is_file():
            raise Refusal(f"there is no file {path}; give JSON lines of texts with labels")
        documents, spans = [], {}
        lines = path.read_text(encoding="utf-8").split("\n")
        for number, line in enumerate(lines, 1):
            if line.strip():
                text, found = labelled_line(line, f"line {number} of {path}")
                documents.append(Document(f"{path.name}#{number}", text))
                spans[text] = found
        names = sorted({name for found in spans.values() for name in found})
        if not names:
            raise Refusal(f"{path} has no labels; give lines such as {EXAMPLE}")
        return cls(tuple(names), tuple(documents), spans)

    def __call__(self, text: str, offsets: Int[np.ndarray, "tokens 2"]) -> Bool[np.ndarray, "tokens labels"]:
        """The labels of a model's tokens. Raises Refusal for a span in which no token begins."""
        first = first_visible(text, offsets)
        found = np.zeros((len(offsets), len(self.names)), bool)
        for name, spans in self.spans[text].items():
            for start, end in spans:
                inside = (first >= start) & (first < end) & (offsets[:, 0] < offsets[:, 1])
                if not inside.any():
                    raise Refusal(
                        f"the label {name!r} of {text[start:end]!r} (characters {start} to {end}) does not align to "
                        "tokens: none begins there; widen the span to whole words"
                    )
                found[inside, self.names.index(name)] = True
        return found

    def text(self, model: Reader, part: Part, most: int, context: int | None = None, seed: int = 0) -> Text:
        """At most so many windows of one part of the documents, for a model."""
        here = shuffled(chosen(self.documents, part), seed)
        return gather(windows(here, tokenizer_of(model), context_of(model, context), self), max(1, most))


EXAMPLE = '{"text": "The cat sat.", "labels": {"animal": [[4, 7]]}}'


def labelled_line(line: str, where: str) -> tuple[str, Spans]:
    """The text of one line and its spans."""
    try:
        found = json.loads(line)
        text = found["text"]
        labels = {found["label"]: [(0, len(text))]} if "label" in found else found["labels"]
        spans = {str(name): [(int(start), int(end)) for start, end in each] for name, each in labels.items()}
        assert isinstance(text, str)
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError):
        raise Refusal(f"{where} is no text with labels; write it as {EXAMPLE}") from None
    for name, each in spans.items():
        for start, end in each:
            if not 0 <= start < end <= len(text):
                raise Refusal(
                    f"{where} labels characters {start} to {end} as {name!r}, but its text has {len(text)}; "
                    "give spans that begin before they end, within the text"
                )
    return text, spans
