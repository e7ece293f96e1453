"""`microtome patch`: a grid of layers and positions, as a record and as a table."""

from pathlib import Path

import pytest

from microtome.cli.main import main
from microtome.cli.patch import Patched
from microtome.store.records import Run

PROMPTS = ["--clean", "the cat", "--corrupt", "the dog", "--right", "s", "--wrong", "x"]


def test_the_last_stream_at_the_last_position_carries_all_there_is(llama_folder: Path, tmp_path: Path, capsys) -> None:
    assert main(["patch", str(llama_folder), *PROMPTS, "--into", str(tmp_path)]) == 0
    found = Patched.read(tmp_path)
    assert found.sites == ["resid_post.0", "resid_post.1"] and len(found.tokens) == len(found.effect[0]) == 8
    assert found.share[-1][-1] == pytest.approx(1, abs=1e-3)
    assert found.effect[-1][-1] == pytest.approx(found.clean_value - found.corrupt_value, abs=1e-4)
    assert all(abs(value) < 1e-4 for value in found.effect[0][:4]), "the prompts begin alike"
    assert Run.read(tmp_path).command == "patch"
    assert capsys.readouterr().out.count("\n") >= 9, "a line for each position"


def test_prompts_of_other_lengths_and_answers_of_several_tokens_are_refused(
    llama_folder: Path, tmp_path: Path, capsys
) -> None:
    longer = [*PROMPTS[:3], "the dogs", *PROMPTS[4:]]
    assert main(["patch", str(llama_folder), *longer, "--into", str(tmp_path)]) == 2
    assert "give prompts of one length" in capsys.readouterr().err
    several = [*PROMPTS[:5], "ss", *PROMPTS[6:]]
    assert main(["patch", str(llama_folder), *several, "--into", str(tmp_path)]) == 2
    assert "is 2 tokens" in capsys.readouterr().err
