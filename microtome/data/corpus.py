"""A corpus: windows of files, or of the standard library, cut for one model, to learn from or to judge by.

for window in corpus(model, ["notes/*.md"], "held_out"): ...
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, runtime_checkable

from microtome.core.errors import Refusal
from microtome.data import stdlib
from microtome.data.text import Document, Part, text
from microtome.data.windows import Labeller, Tokenizer, Window, shuffled, windows

CONTEXT = 256  # tokens in a window, where the model takes as many and no other number is given


@runtime_checkable
class Reader(Protocol):
    """What is asked of a model: how it cuts text into tokens, and how many it takes at once (None: any number)."""

    name: str

    @property
    def tokenizer(self) -> Tokenizer | None:
        """What cuts its text; None for a network that reads none."""
        ...

    @property
    def context(self) -> int | None:
        """The most tokens that it takes at one time, where it says so."""
        ...


def corpus(
    model: Reader, paths: Sequence[str] = (), part: Part = "train", *, context: int | None = None, seed: int = 0
) -> Iterator[Window]:
    """Windows of one part of some text (no paths: the standard library's source), its documents shuffled by the seed.

    Raises Refusal for a model without a tokenizer, for more context than it takes, and where there is no such text.
    """
    return cut(model, documents(paths, part, seed), context)


def documents(paths: Sequence[str] = (), part: Part = "train", seed: int = 0) -> list[Document]:
    """Files, folders and patterns (none: the standard library's source) as documents, shuffled."""
    found = shuffled(text(paths, part) if paths else stdlib.modules(part), seed)
    if not found:
        raise Refusal(f"the text has no {part.replace('_', '-')} documents; give more files, or longer ones")
    return found


def cut(
    model: Reader, found: Iterable[Document], context: int | None = None, label: Labeller | None = None
) -> Iterator[Window]:
    """Documents as windows for a model."""
    return windows(found, tokenizer_of(model), context_of(model, context), label)


def tokenizer_of(model: Reader) -> Tokenizer:
    """The model's tokenizer. Raises Refusal where it has none."""
    if model.tokenizer is None:
        raise Refusal(f"{model.name} has no tokenizer, so it cannot read text; add one to its folder")
    return model.tokenizer


def context_of(model: Reader, wanted: int | None = None) -> int:
    """How many tokens a window has: as wanted, or 256 where the model takes as many."""
    most = model.context or max(wanted or 0, CONTEXT)
    if (wanted or 0) > most:
        raise Refusal(f"a context of {wanted} is more than the {most} positions of {model.name}; give at most {most}")
    return wanted or min(CONTEXT, most)
