"""`microtome explain`: by rules and by an endpoint; what goes wrong is one sentence, and the work so far is kept."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from microtome.cli.explain import numbers
from microtome.cli.main import DONE, STOPPED, WRONG, main
from microtome.core.errors import Refusal
from microtome.explain.conditions import Rule, TokenIs
from microtome.store.notes import Notes
from tests.explain import planted
from tests.language.endpoint import Reply, message, serving

TEXT = planted.reading()
WORD = {word: number for number, word in enumerate(planted.WORDS)}
FIRES_ON = (" the", "name", "if")
COST = {"prompt_tokens": 600, "completion_tokens": 2}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose three components fire on one token each."""
    generator = np.random.default_rng(0)
    rules = [Rule.of(TokenIs("here", (WORD[word],))) for word in FIRES_ON]
    (tmp_path / "run").mkdir()
    planted.catalog(tmp_path / "run" / "catalog", TEXT, [planted.firing(TEXT, rule, generator) for rule in rules])
    return tmp_path / "run"


def explained(run: Path) -> dict[int, str]:
    return {n: e.text for n, e in Notes(run / "catalog" / "notes.sqlite").best().items()}


def reader(text: str) -> Reply:
    """A model that names the first marked token, and then finds it."""
    if "What is it active on?" in text:
        return message(f"Explanation: {re.findall('⟦(.*?)⟧', text.split('Passage 1:')[1])[0]}", COST)
    word = text.split("active on: ")[1].split("\n")[0]
    passages = [json.loads(line.split(": ", 1)[1]) for line in text.splitlines() if line.startswith("Passage ")]
    return message(json.dumps([int(word in p) for p in passages]), COST)


def asked(run: Path, address: str, *more: str) -> int:
    return main(["explain", str(run), "--with", address, "--score", "detection", "--passages", "10", *more])


def test_rules_need_no_language_model(run: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["explain", str(run), "--components", "all", "--score", "fuzzing", "simulation"]) == DONE
    figures = json.loads((run / "explained.json").read_text())
    assert figures["explained"] == 3 and figures["spent"] is None
    assert min(figures["scores"][name]["median"] for name in ("detection", "fuzzing", "simulation")) > 0.9
    assert set(explained(run)) == {0, 1, 2}


def test_a_model_explains_and_why_is_kept(run: Path, tmp_path: Path) -> None:
    with serving(reader) as fake:
        assert asked(run, fake.address, "--json", str(tmp_path / "f.json")) == DONE
        count = len(fake.asked)
        assert asked(run, fake.address) == DONE and len(fake.asked) == count  # nothing is asked twice
    note = Notes(run / "catalog" / "notes.sqlite").of(0)[0]
    assert note.text == "the" and note.score == 1.0
    assert "What is it active on?" in note.evidence["prompt"] and note.evidence["answer"].startswith("Explanation:")
    assert json.loads((tmp_path / "f.json").read_text())["spent"]["requests"] == count
    assert len((run / "exchanges.jsonl").read_text().split()) > count


def test_a_dry_run_asks_nobody_and_foretells_at_least_what_is_spent(run: Path, capsys: pytest.CaptureFixture) -> None:
    with serving(reader) as fake:
        assert asked(run, fake.address, "--dry-run") == DONE
        assert not fake.asked and not (run / "exchanges.jsonl").exists() and not explained(run)
        foretold = int(re.search(r"components: (\d+) questions", capsys.readouterr().out)[1])
        asked(run, fake.address)
        assert foretold >= len(fake.asked) > 0


def test_a_budget_that_is_reached_keeps_the_work_and_a_larger_one_goes_on(
    run: Path, capsys: pytest.CaptureFixture
) -> None:
    with serving(reader) as fake:
        assert asked(run, fake.address, "--budget", "4000") == STOPPED
        assert "the budget of 4,000 tokens is reached" in capsys.readouterr().err
        before, count = explained(run), len(fake.asked)
        assert count > 0 and len(before) < 3
        assert asked(run, fake.address) == DONE
        texts = [body["messages"][1]["content"] for _, _, body in fake.asked]
    assert (
        len(texts) == len(set(texts)) and set(explained(run)) == {0, 1, 2} and before.items() <= explained(run).items()
    )


def fails_after(good: int, reply: Reply) -> Callable[[str], Reply]:
    left = [good]

    def say(text: str) -> Reply:
        left[0] -= 1
        return reader(text) if left[0] >= 0 else reply

    return say


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [((401, b"no", {}), "refused the key (HTTP 401)"), ((200, b"<html>", {}), "which is no JSON"),
     ((404, b"", {}), "answered HTTP 404")],
)  # fmt: skip
def test_a_server_that_fails_midway_is_one_sentence_and_the_work_is_kept(
    reply: Reply, sentence: str, run: Path, capsys: pytest.CaptureFixture
) -> None:
    with serving(fails_after(6, reply)) as fake:
        assert asked(run, fake.address) == STOPPED
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("microtome: ")]
    assert len(said) == 1 and sentence in said[0] and set(explained(run)) == {0}


def test_a_model_that_refuses_leaves_the_component_out(run: Path, capsys: pytest.CaptureFixture) -> None:
    def shy(text: str) -> Reply:
        return message("I'm sorry, I can't.") if "⟦name⟧" in text else reader(text)

    with serving(shy) as fake:
        assert asked(run, fake.address) == DONE
    assert set(explained(run)) == {0, 2}
    assert "1 left out: asked for an explanation, the model said" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [(["--components", "7"], "names 7; there are 0 to 2"), (["--components", "a:b"], "is no choice; give all"),
     (["--score", "magic"], "no scorer 'magic'; there are"), (["--passages", "2"], "give at least 5"),
     (["--with", "http://127.0.0.1:1/v1", "--budget", "-5"], "a budget of -5 tokens is none"),
     (["--embedder", "words"], "needs an endpoint")],
)  # fmt: skip
def test_wrong_usage_is_one_sentence(
    arguments: list[str], sentence: str, run: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["explain", str(run), *arguments]) == WRONG
    assert sentence in capsys.readouterr().err


def test_a_folder_without_a_catalogue_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["explain", str(tmp_path)]) == WRONG
    assert "it is no catalogue" in capsys.readouterr().err


def test_components_are_chosen_as_ranges_lists_or_all() -> None:
    assert numbers("all", 3) == [0, 1, 2] and numbers("1:", 3) == [1, 2] and numbers("2,0", 3) == [2, 0]
    with pytest.raises(Refusal, match="names none"):
        numbers("3:", 3)


def test_a_model_in_this_process_is_asked_by_the_same_way(
    run: Path, llama_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    """A model of 64 tokens cannot take the question: it is refused before it is run."""
    assert asked(run, str(llama_folder)) == STOPPED
    assert "tiny-llama takes 64 tokens and this question needs" in capsys.readouterr().err
