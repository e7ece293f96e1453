"""Never the same question twice, never beyond the budget, and what was answered outlives a stop."""

from dataclasses import replace
from pathlib import Path

import pytest

from microtome.core.errors import Refusal
from microtome.language.ask import Answer, NoAnswer, OffTopic, Prompt, Rehearsal
from microtome.language.asker import Asker
from microtome.language.budget import Budget, BudgetReached
from microtome.language.kept import Kept

PROMPT = Prompt("You count.", "How many?", 8, "[1]")


class Told:
    """Says what it was told to, one thing after another."""

    name = "told"

    def __init__(self, *words: str, cost: int = 5):
        self.words, self.cost, self.asked = list(words), cost, []

    def say(self, prompt: Prompt) -> Answer:
        self.asked.append(prompt)
        return Answer(self.words.pop(0), self.cost, self.cost)


def number(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


def test_a_question_is_asked_once_and_its_answer_outlives_the_process(tmp_path: Path) -> None:
    speaker, path = Told("7"), tmp_path / "exchanges.jsonl"
    first = Asker(speaker, Budget(1000), Kept(path))
    assert first.last is None
    assert first.ask(PROMPT) == first.ask(PROMPT) == Asker(Told(), Budget(0), Kept(path)).ask(PROMPT)
    assert len(speaker.asked) == 1
    assert (first.budget.requests, first.budget.recalled, first.budget.spent) == (1, 1, 10)
    assert PROMPT.text in path.read_text() and '"7"' in path.read_text()


@pytest.mark.parametrize(
    "changed", [{"text": "Why?"}, {"system": "x"}, {"most": 9}, {"temperature": 0.5}, {"attempt": 1}]
)
def test_another_question_has_another_answer(changed: dict, tmp_path: Path) -> None:
    asker = Asker(Told("7", "8"), Budget(1000), Kept(tmp_path / "kept"))
    assert asker.ask(PROMPT).text == "7" and asker.ask(replace(PROMPT, **changed)).text == "8"


def test_another_model_has_its_own_answers(tmp_path: Path) -> None:
    kept, other = Kept(tmp_path / "kept"), Told("8")
    other.name = "other"
    assert Asker(Told("7"), Budget(1000), kept).ask(PROMPT).text == "7"
    assert Asker(other, Budget(1000), kept).ask(PROMPT).text == "8"


def test_a_line_that_was_cut_off_is_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    Asker(Told("7"), Budget(1000), Kept(path)).ask(PROMPT)
    path.write_text(path.read_text().rstrip()[:-3])
    asker = Asker(Told("9"), Budget(1000), Kept(path))
    assert asker.ask(PROMPT).text == "9"
    assert Kept(path).find("told", PROMPT) == Answer("9", 5, 5)


def test_nothing_is_asked_beyond_the_budget(tmp_path: Path) -> None:
    most = PROMPT.tokens + PROMPT.most
    speaker, kept = Told("7", "8", cost=most // 2), Kept(tmp_path / "kept")
    asker = Asker(speaker, Budget(most + 2 * (most // 2) - 1), kept)
    asker.ask(PROMPT)
    with pytest.raises(BudgetReached, match=r"is reached: \d+ are spent .* larger --budget goes on"):
        asker.ask(replace(PROMPT, attempt=1))
    assert len(speaker.asked) == 1 and asker.ask(PROMPT).text == "7"  # what was answered still is
    with pytest.raises(Refusal, match="a budget of -1 tokens is none"):
        Budget(-1)


def test_an_answer_of_no_use_is_asked_for_once_more_and_warmer(tmp_path: Path) -> None:
    speaker = Told("I cannot", "42")
    asker = Asker(speaker, Budget(1000), Kept(tmp_path / "kept"))
    assert asker.ask_for(PROMPT, number, "a number") == 42
    assert [p.temperature > 0 for p in speaker.asked] == [False, True]
    again = Asker(Told(), Budget(0), Kept(tmp_path / "kept"))
    assert again.ask_for(PROMPT, number, "a number") == 42  # resumed without a word


def test_what_stays_of_no_use_is_quoted(tmp_path: Path) -> None:
    asker = Asker(Told("Sorry\nno", "Sorry\nno"), Budget(1000), Kept(tmp_path / "kept"))
    with pytest.raises(OffTopic, match="asked for a number, the model said 'Sorry no'; try another model"):
        asker.ask_for(PROMPT, number, "a number")


def test_a_rehearsal_counts_at_least_what_is_then_spent(tmp_path: Path) -> None:
    dry = Asker(Rehearsal(), Budget(10_000))
    assert dry.ask(PROMPT).text == PROMPT.example
    assert dry.budget.spent == PROMPT.tokens + PROMPT.most
    assert len(list(tmp_path.iterdir())) == 0
    assert issubclass(NoAnswer, Refusal)
