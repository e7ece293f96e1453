"""Answers are read where they hold what was asked for, and nowhere else; prompts hold what a reader needs."""

import numpy as np
import pytest

from microtome.explain.passages import Passages
from microtome.explain.prompts import (
    answered_by_list,
    choice_in,
    detecting,
    explaining,
    intruding,
    marks_in,
    sentence_in,
    simulating,
    strengths_in,
)

WORDS = ["the", " cat", "\n", ' "']
TWO = Passages(np.array([1, 40]), np.array([[0, 1, 2], [3, 1, 0]]), np.array([[0, 2.0, 0], [0, 1.0, 0]], np.float32))


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("[1, 0, 1]", [1, 0, 1]),
        ("Let me think [1].\nAnswer: [0,0,1].", [0, 0, 1]),
        ("[1, 0]", None),
        ("[1, 2, 0]", None),
        ("yes, no, yes", None),
        ("[1, 0,", None),
        ("", None),
    ],
)
def test_lists_of_yes_and_no(said: str, read: list[int] | None) -> None:
    assert marks_in(said, 3) == read


@pytest.mark.parametrize(
    ("said", "read"), [("[3]", 2), ("It is [1].", 0), ("[6]", None), ("[0]", None), ("3", None), ('["1"]', None)]
)
def test_choices(said: str, read: int | None) -> None:
    assert choice_in(said, 5) == read


@pytest.mark.parametrize(
    ("said", "read"),
    [('{"1": 8}', [0, 8, 0]), ("{}", [0, 0, 0]), ('so {"0": 10, "2": 0.5}', [10, 0, 0.5]), ('{"3": 1}', None),
     ('{"1": 11}', None), ('{"a": 1}', None), ('{"1": "x"}', None), ("0 8 0", None)],
)  # fmt: skip
def test_strengths(said: str, read: list[float] | None) -> None:
    assert strengths_in(said, 3) == read


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("Explanation: names of animals", "names of animals"),
        ("Sure!\nEXPLANATION:  **names**\nmore", "names"),
        ("names of animals", "names of animals"),
        ("I'm sorry, but I can't help with that.", None),
        ("Explanation: I cannot say", None),
        ("Explanation:\n ", None),
        ("", None),
    ],
)
def test_sentences(said: str, read: str | None) -> None:
    assert sentence_in(said) == read
    assert len(sentence_in("Explanation: " + "x" * 1000) or "") == 300


def test_the_example_of_every_prompt_reads_as_an_answer() -> None:
    assert marks_in(detecting("cats", TWO, WORDS).example, 2) == [0, 0]
    assert strengths_in(simulating("cats", TWO.some(slice(0, 1)), WORDS).example, 3) == [10, 10, 10]
    assert choice_in(intruding(TWO, TWO.active > 0, WORDS).example, 2) == 0
    assert sentence_in(explaining(TWO, WORDS).example)
    for prompt in (answered_by_list("x", 5), detecting("cats", TWO, WORDS)):
        assert prompt.most >= len(prompt.example) // 2


def test_a_passage_stands_in_quotes_with_its_tokens_marked_and_nothing_ends_it_early() -> None:
    text = explaining(TWO, WORDS).text
    assert '"the⟦ cat⟧\\n"' in text and '" \\"⟦ cat⟧the"' in text
    assert '" cat" 10' in text and '" cat" 5' in text
    assert "⟦" not in detecting("cats", TWO, WORDS).text
