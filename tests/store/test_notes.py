"""Explanations are kept by component and method, best first, and found by their words, however oddly written."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from microtome.store.notes import Explanation, Notes


def said(component: int, text: str, score: float = 0.9, method: str = "rules") -> Explanation:
    return Explanation(component, method, text, score, score - 0.1, score + 0.1, 0.5, 0.7, 20, 40, {"rule": [1, "a"]})


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    found = Notes(tmp_path / "notes.sqlite")
    found.put(
        [said(1, "the name after def"), said(2, "inside a docstring", 0.6), said(2, "any quoted word", 0.8, "other")]
    )
    return found


def test_what_was_said_comes_back_best_first(notes: Notes) -> None:
    assert [e.method for e in notes.of(2)] == ["other", "rules"]
    assert notes.of(1) == [said(1, "the name after def")] and notes.of(7) == []
    assert {c: e.score for c, e in notes.best().items()} == {1: 0.9, 2: 0.8}
    assert list(notes.best([2])) == [2] and notes.best([]) == {} and notes.count() == 2


def test_the_same_method_replaces_what_it_said_and_nothing_else(notes: Notes) -> None:
    notes.put([said(2, "names in brackets", 0.95)])
    assert [e.text for e in notes.of(2)] == ["names in brackets", "any quoted word"] and notes.count() == 2
    assert notes.search("docstring") == [] and [e.component for e in notes.search("brackets")] == [2]


def test_searching_finds_stems_and_unfinished_last_words(notes: Notes) -> None:
    for words in ("names", "naming after", "def", "after nam", "THE NAME"):
        assert [e.component for e in notes.search(words)] == [1], words
    assert {e.method for e in notes.search("quot")} == {"other"} and notes.search("   ") == []
    assert len(Notes(notes.path).search("a", limit=1)) <= 1


@pytest.mark.parametrize(
    "words",
    [
        '"',
        "'",
        '"a" OR b',
        "NEAR(a b)",
        "text:def",
        "a*",
        "^def",
        "-def",
        "(",
        "def AND",
        "\0",
        "';--",
        "{a b}: c",
        "é",
        "🙂",
    ],
)
def test_no_search_can_be_read_as_an_operator(notes: Notes, words: str) -> None:
    assert isinstance(notes.search(words), list)


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=12))
def test_any_text_can_be_searched_for_and_what_was_said_is_found_by_its_own_words(notes: Notes, text: str) -> None:
    assert isinstance(notes.search(text), list)
    if text.isascii() and text.isalnum():
        notes.put([said(9, f"about {text} here")])
        assert 9 in [e.component for e in notes.search(text)]


def test_quotes_in_an_explanation_are_kept(notes: Notes) -> None:
    odd = replace(said(3, 'it\'s "quoted"; DROP TABLE explanation'), evidence={"q": "'\"\\"})
    notes.put([odd])
    assert notes.of(3) == [odd] and [e.component for e in notes.search('it\'s "quoted"')] == [3]
