"""The card, from a dictionary on disk to card.json: what it holds, and what is said to bad input."""

import json
from pathlib import Path

import pytest
import torch

from microtome.cli.main import DONE, WRONG, main
from microtome.core.site import Site
from microtome.dictionaries.activation_functions import TopK
from microtome.dictionaries.files import save_dictionary
from microtome.dictionaries.sae import SAE
from microtome.store.records import Card

SMALL = ["--context", "32", "--tokens", "1500", "--held-out", "900", "--spliced", "4", "--synthetic", "0"]
COLUMNS = {"own", "random", "frozen", "pca", "neurons"}


def saved(folder: Path, width: int = 16, site: str = "resid_post.0") -> Path:
    generator = torch.Generator().manual_seed(0)
    save_dictionary(SAE(Site(site, "batch pos d"), width, 40, TopK(4), generator=generator), folder)
    return folder


def evaluate(dictionary: Path, model: Path, into: Path, *more: str) -> int:
    return main(["eval", str(dictionary), "--model", str(model), "--into", str(into), *SMALL, *more])


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small modules, in which some of the twenty facts occur and others do not."""
    folder = tmp_path_factory.mktemp("modules")
    for i in range(30):
        lines = [f"def f{i}(a, b={i}):", f"    return a[{i}] + g(b, key='text {i}')", "", f"x{i} = [f{i}(1, (2))]", ""]
        (folder / f"m{i}.py").write_text("\n".join(lines * 4))
    return folder


@pytest.fixture(scope="module")
def card(llama_folder: Path, python: Path, tmp_path_factory: pytest.TempPathFactory) -> Card:
    folder = tmp_path_factory.mktemp("cards")
    into = folder / "card"
    text = ["--text", str(python / "*.py"), "--json", str(folder / "new" / "figures.json")]
    assert evaluate(saved(folder / "sae"), llama_folder, into, *text) == DONE
    assert json.loads((into / "card.json").read_text()) == json.loads((folder / "new" / "figures.json").read_text())
    return Card.read(into)


def test_every_score_stands_beside_those_of_what_it_must_beat(card: Card) -> None:
    assert card.stage == "done" and card.width == 40 and card.site == "resid_post.0" and card.documents > 1
    assert set(card.baselines) == COLUMNS - {"own"}
    groups = {row.group for row in card.rows}
    assert {"reconstruction", "activity", "faithfulness", "probing", "biases"} <= groups
    for row in card.rows:
        if row.group in ("reconstruction", "activity", "faithfulness", "biases") or row.name.startswith("best"):
            assert set(row.scores) == COLUMNS, row.name
        assert "own" in row.scores
    widest = next(row for row in card.rows if row.name == "sparse probe, k = 5")
    assert "pca" not in widest.scores  # of which there are four


def test_intervals_hold_what_was_found(card: Card) -> None:
    for row in card.rows:
        if row.group in ("reconstruction", "faithfulness"):
            for score in row.scores.values():
                assert score.found is not None and score.low is not None and score.high is not None
                assert score.low <= score.found + 0.05 and score.high >= score.found - 0.05, row
    explained = next(row for row in card.rows if row.name == "explained variance").scores
    assert explained["frozen"].found > explained["random"].found


def test_facts_without_an_example_are_left_out_in_a_sentence(card: Card) -> None:
    names = {fact.name for fact in card.facts}
    assert "function name at def" in names and "in a comment" not in names
    assert any("the label 'in a comment' is left out" in note for note in card.notes)
    assert len(names) + len(card.notes) == 20
    assert all(set(fact.scores) == COLUMNS and fact.tokens > 0 for fact in card.facts)


def test_text_without_labels_has_a_card_without_facts(
    llama_folder: Path, stories: Path, tmp_path: Path, capsys
) -> None:
    assert evaluate(saved(tmp_path / "sae"), llama_folder, tmp_path / "card", "--text", str(stories)) == DONE
    card = Card.read(tmp_path / "card")
    assert not card.facts and "give some with --labels" in card.notes[0]
    assert "explained variance" in capsys.readouterr().out


def test_labels_of_ones_own_are_told(llama_folder: Path, tmp_path: Path) -> None:
    lines = [{"text": f"a cat {i} sat on mats", "labels": {"cat": [[2, 5]], "last": [[15, 19]]}} for i in range(10, 99)]
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    assert evaluate(saved(tmp_path / "sae"), llama_folder, tmp_path / "card", "--labels", str(path)) == DONE
    card = Card.read(tmp_path / "card")
    assert [fact.name for fact in card.facts] == ["cat", "last"]
    assert all(fact.linear.found > fact.chance.found for fact in card.facts)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({"text": "a cat", "labels": {"cat": [[2, 9]]}}, "labels characters 2 to 9 as 'cat', but its text has 5"),
        ({"text": "a cat"}, "line 1 of"),
        ({"text": "a   cat", "labels": {"gap": [[2, 3]]}}, None),
        ({"text": "a\u00e9b", "labels": {}}, "has no labels"),
    ],
)
def test_labels_that_do_not_fit_are_one_sentence(
    line: dict, words: str | None, tmp_path: Path, llama_folder: Path, capsys
) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join([json.dumps(line)] * 3))
    code = evaluate(saved(tmp_path / "sae"), llama_folder, tmp_path / "card", "--labels", str(path))
    said = capsys.readouterr().err
    assert code == WRONG
    assert words is None or words in said


def test_what_is_fitted_anew_is_of_the_same_site_and_width(
    llama_folder: Path, stories: Path, tmp_path: Path, capsys
) -> None:
    other = saved(tmp_path / "deep", site="resid_post.1")
    text = ["--text", str(stories), "--refits", str(other)]
    assert evaluate(saved(tmp_path / "sae"), llama_folder, tmp_path / "card", *text) == WRONG
    assert "deep has 40 components at resid_post.1, and the dictionary 40 at resid_post.0" in capsys.readouterr().err


def test_a_dictionary_of_another_model_or_site_is_one_sentence(
    llama_folder: Path, stories: Path, tmp_path: Path, capsys
) -> None:
    text = ["--text", str(stories)]
    assert evaluate(saved(tmp_path / "wide", width=24), llama_folder, tmp_path / "card", *text) == WRONG
    assert "the dictionary has 24 numbers a token at resid_post.0" in capsys.readouterr().err
    assert evaluate(saved(tmp_path / "deep", site="resid_post.7"), llama_folder, tmp_path / "card", *text) == WRONG
    assert "no site 'resid_post.7'" in capsys.readouterr().err
    assert main(["eval", str(tmp_path / "wide")]) == WRONG
    assert "name it with --model" in capsys.readouterr().err
