"""`microtome convert`: what was found is said, what is written is read back, and a difference is a failure."""

import json
from pathlib import Path

import pytest
import torch

from microtome.cli import convert as command
from microtome.cli.main import main
from microtome.dictionaries.formats.registry import find_all, load_any, write
from tests.dictionaries.formats import examples
from tests.dictionaries.formats.examples import assert_same


def test_a_dictionary_is_written_in_another_format_and_compared(tmp_path: Path, capsys) -> None:
    made = examples.sae("batchtopk")
    write(made, tmp_path / "dl", "dictionary_learning")
    figures = tmp_path / "out" / "figures.json"
    arguments = [
        "convert", str(tmp_path / "dl"), str(tmp_path / "sl"), "--to", "saelens", "--allow-pickle", "--json", str(figures),
    ]  # fmt: skip
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "dictionary_learning: SAE at resid_post.3, 14 components, BatchTopK of 3" in said
    assert "the decoder's bias is taken from the input" in said and "read back: the same" in said
    assert_same(made, load_any(tmp_path / "sl"))
    found = json.loads(figures.read_text())
    assert found["ok"] and found["difference"] <= 1e-6 and found["found"] == "dictionary_learning"


def test_a_set_is_converted_whole(tmp_path: Path) -> None:
    write([examples.transcoder("relu", layer=layer) for layer in range(3)], tmp_path / "set", "circuit_tracer")
    assert main(["convert", str(tmp_path / "set"), str(tmp_path / "apart"), "--to", "saelens"]) == 0
    assert len(find_all(tmp_path / "apart")) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--to", "saelense"], "no format 'saelense'; known: microtome, saelens"),
        (["--to", "gemma_scope"], "holds a threshold for each latent, and TopK has none"),
        ([], "--to"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(arguments: list[str], words: str, tmp_path: Path, capsys) -> None:
    write(examples.sae("topk"), tmp_path / "sae", "saelens")
    assert main(["convert", str(tmp_path / "sae"), str(tmp_path / "new"), *arguments]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1


def test_nothing_is_overwritten(tmp_path: Path, capsys) -> None:
    write(examples.sae("topk"), tmp_path / "sae", "saelens")
    assert main(["convert", str(tmp_path / "sae"), str(tmp_path / "sae"), "--to", "sparsify"]) == 2
    assert "is not an empty folder" in capsys.readouterr().err


def test_a_pickle_is_refused_with_the_flag_that_allows_it(tmp_path: Path, capsys) -> None:
    write(examples.sae("topk"), tmp_path / "dl", "dictionary_learning")
    assert main(["convert", str(tmp_path / "dl"), str(tmp_path / "new"), "--to", "saelens"]) == 2
    assert "--allow-pickle" in capsys.readouterr().err and not (tmp_path / "new").exists()


def test_a_format_that_does_not_say_the_site_is_read_back_with_it(tmp_path: Path, capsys) -> None:
    write(examples.sae("relu", site="pooler"), tmp_path / "sae", "microtome")
    assert main(["convert", str(tmp_path / "sae"), str(tmp_path / "oa"), "--to", "openai"]) == 0
    assert "read it with --site pooler" in capsys.readouterr().out


def test_a_difference_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    write(examples.sae("relu"), tmp_path / "sae", "saelens")
    monkeypatch.setattr(command, "apart", lambda a, b: torch.full((command.ROWS,), 1e-3, dtype=torch.float64))
    assert main(["convert", str(tmp_path / "sae"), str(tmp_path / "new"), "--to", "gemma_scope"]) == 1
    assert "NOT the same" in capsys.readouterr().out
