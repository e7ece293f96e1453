"""Text cut into windows of one context each, as token ids with the document that each came from.

Documents follow one another, parted by the tokenizer's end-of-text token where it has one, and every window begins with
its begin-of-text token where it has one. Position 0 is left out of every statistic: nothing stands before it.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from microtome.core.errors import Refusal
from microtome.data.text import Document

Labeller = Callable[[str, Int[np.ndarray, "tokens 2"]], Bool[np.ndarray, "tokens labels"]]


@runtime_checkable
class Tokenizer(Protocol):
    """What is asked of a Hugging Face tokenizer."""

    bos_token_id: int | None
    eos_token_id: int | None

    def __call__(self, text: str, **settings: bool) -> dict: ...

    def decode(self, token_ids: list[int]) -> str:
        """The text of these tokens."""
        ...


class Window(NamedTuple):
    """One context of tokens; `document` is the name of the one that its first real token belongs to."""

    tokens: Int[np.ndarray, "context"]
    document: str
    labels: Bool[np.ndarray, "context labels"]


def windows(
    documents: Iterable[Document], tokenizer: Tokenizer, context: int, label: Labeller | None = None
) -> Iterator[Window]:
    """Cut documents into full windows; what is left at the end, shorter than a context, is dropped."""
    if context < 2:
        raise Refusal(f"the context is {context}; a window needs at least two tokens, for position 0 is never counted")
    begin = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    body = context - len(begin)
    ids, names, labels = [], [], None
    for document in documents:
        new, marks = tokenised(document, tokenizer, label)
        ids, names = ids + new, names + [document.name] * len(new)
        labels = marks if labels is None else np.concatenate([labels, marks])
        blank = np.zeros((len(begin), labels.shape[1]), bool)
        whole = len(ids) // body * body
        for start in range(0, whole, body):
            here = slice(start, start + body)
            yield Window(np.array(begin + ids[here]), names[start], np.concatenate([blank, labels[here]]))
        ids, names, labels = ids[whole:], names[whole:], labels[whole:]


def tokenised(
    document: Document, tokenizer: Tokenizer, label: Labeller | None
) -> tuple[list[int], Bool[np.ndarray, "tokens labels"]]:
    """A document's ids and labels, the end-of-text token included."""
    settings = {"add_special_tokens": False, "return_offsets_mapping": label is not None, "verbose": False}
    encoded = tokenizer(document.text, **settings)
    ids = encoded["input_ids"]
    if label is None:
        marks = np.zeros((len(ids), 0), bool)
    else:
        marks = label(document.text, np.array(encoded["offset_mapping"], dtype=np.int64).reshape(-1, 2))
    if tokenizer.eos_token_id is None:
        return ids, marks
    return [*ids, tokenizer.eos_token_id], np.concatenate([marks, np.zeros((1, marks.shape[1]), bool)])


@dataclass(frozen=True)
class Text:
    """Windows gathered into memory."""

    tokens: Int[Tensor, "windows context"]
    document: Int[np.ndarray, "windows"]
    documents: list[str]
    labels: Bool[np.ndarray, "windows context labels"]

    def __len__(self) -> int:
        return len(self.tokens)


def gather(found: Iterable[Window], most: int | None = None) -> Text:
    """At most so many windows, in memory. Raises Refusal where there is not even one."""
    kept = []
    for window in found:
        if most is not None and len(kept) == most:
            break
        kept.append(window)
    if not kept:
        raise Refusal("the text is empty, or shorter than one context; give more text or a smaller --context")
    documents = list(dict.fromkeys(w.document for w in kept))
    number = {name: i for i, name in enumerate(documents)}
    tokens = torch.from_numpy(np.stack([w.tokens for w in kept]))
    return Text(tokens, np.array([number[w.document] for w in kept]), documents, np.stack([w.labels for w in kept]))


def shuffled(documents: Iterable[Document], seed: int) -> list[Document]:
    """Documents in an order that depends on the seed alone."""
    order = sorted(documents)
    random.Random(seed).shuffle(order)
    return order


def grouped(found: Iterable[Window], size: int) -> Iterator[list[Window]]:
    """Windows in lists of `size`, the last perhaps shorter."""
    group: list[Window] = []
    for window in found:
        group.append(window)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def pieces(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """The text of each token as it stands inside a text, its leading space included.

    Decoded alone, many tokenizers drop the space that begins a word; so each token is decoded after another one.
    """
    before = tokenizer("a", add_special_tokens=False)["input_ids"]
    start = len(tokenizer.decode(before))
    return [tokenizer.decode([*before, i])[start:] for i in ids]
