"""Windows are the text, cut: put together again they give every token, its document and its labels."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.core.errors import Refusal
from microtome.data.text import Document
from microtome.data.windows import Window, gather, grouped, pieces, shuffled, windows

BOS, EOS = 1, 2


class Letters:
    """A token for every character."""

    def __init__(self, bos: int | None, eos: int | None):
        self.bos_token_id, self.eos_token_id = bos, eos

    def __call__(self, text: str, **settings: bool) -> dict:
        assert settings["add_special_tokens"] is False
        return {"input_ids": [ord(c) for c in text], "offset_mapping": [(i, i + 1) for i in range(len(text))]}

    def decode(self, token_ids: list[int]) -> str:
        """As sentencepiece does: a space that would begin the text is dropped."""
        return "".join(map(chr, token_ids)).removeprefix(" ")


def vowels(text: str, offsets: np.ndarray) -> np.ndarray:
    return np.array([[text[a:b] in "aeiou", text[a:b] == "b"] for a, b in offsets], bool).reshape(-1, 2)


texts = st.lists(st.text("abcde", max_size=30), min_size=0, max_size=6)


def cut(documents: list[str], bos: int | None, eos: int | None, context: int) -> list[Window]:
    named = [Document(f"d{i}", t) for i, t in enumerate(documents)]
    return list(windows(named, Letters(bos, eos), context, vowels))


@settings(deadline=None)
@given(texts, st.sampled_from([None, BOS]), st.sampled_from([None, EOS]), st.integers(2, 12))
def test_windows_put_together_are_the_text(
    documents: list[str], bos: int | None, eos: int | None, context: int
) -> None:
    found = cut(documents, bos, eos, context)
    whole = [(ord(c), f"d{i}") for i, t in enumerate(documents) for c in [*t, *([chr(eos)] if eos else [])]]
    skip = 0 if bos is None else 1
    again = [t for w in found for t in w.tokens[skip:].tolist()]
    assert again == [token for token, _ in whole][: len(again)] and len(whole) - len(again) < context - skip
    for number, window in enumerate(found):
        assert len(window.tokens) == len(window.labels) == context
        assert bos is None or window.tokens[0] == BOS and not window.labels[0].any()
        assert window.document == whole[number * (context - skip)][1]
        for token, label in zip(window.tokens[skip:].tolist(), window.labels[skip:].tolist(), strict=True):
            assert label == [chr(token) in "aeiou", chr(token) == "b"]


def test_without_a_labeller_there_are_no_labels() -> None:
    found = list(windows([Document("d", "abcdef")], Letters(BOS, None), 4))
    assert [w.labels.shape for w in found] == [(4, 0)] * 2


def test_gathering_keeps_at_most_so_many_and_numbers_the_documents() -> None:
    found = gather(iter(cut(["abcabc", "dede", "abcd"], None, None, 3)), most=3)
    assert len(found) == 3 and found.documents == ["d0", "d1"] and found.document.tolist() == [0, 0, 1]
    assert found.tokens.shape == (3, 3) and found.labels.shape == (3, 3, 2)


@pytest.mark.parametrize("documents", [[], ["ab"], ["", ""]])
def test_a_text_shorter_than_a_context_is_refused(documents: list[str]) -> None:
    with pytest.raises(
        Refusal, match="the text is empty, or shorter than one context; give more text or a smaller --context"
    ):
        gather(iter(cut(documents, BOS, None, 9)))


def test_a_context_of_one_token_is_refused() -> None:
    with pytest.raises(Refusal, match="the context is 1; a window needs at least two tokens"):
        cut(["abc"], BOS, None, 1)


def test_the_order_of_shuffled_documents_depends_on_the_seed_alone() -> None:
    documents = [Document(str(i), "") for i in range(30)]
    assert shuffled(documents, 1) == shuffled(reversed(documents), 1) != shuffled(documents, 2)


def test_groups_hold_every_window_once_and_are_made_as_they_are_asked_for() -> None:
    def endless() -> Iterator[int]:
        yield from range(7)

    assert list(grouped(endless(), 3)) == [[0, 1, 2], [3, 4, 5], [6]]


def test_a_piece_keeps_the_space_that_decoding_it_alone_would_drop() -> None:
    assert pieces(Letters(None, None), [ord("x"), ord(" ")]) == ["x", " "]
