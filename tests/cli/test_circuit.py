"""`microtome circuit`: found on some pairs, judged on others, written, printed, and refused where it cannot be."""

import json
from pathlib import Path

import pytest

from microtome.circuits.circuit_files import read_mib
from microtome.cli.main import main
from microtome.store.records import Circuit, Run

NAMES = ("cat", "dog", "cow", "pig", "hen", "fox")
PAIRS = [
    {"clean": f"the {a}", "corrupt": f"the {b}", "right": "s", "wrong": "x"} for a in NAMES for b in NAMES if a < b
]


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps(PAIRS))
    return path


def ask(folder: Path, into: Path, *more: object) -> int:
    small = ["--train", "6", "--held-out", "4", "--samples", "4"]
    return main(["circuit", str(folder), "--into", str(into), *small, *map(str, more)])


@pytest.mark.parametrize("method", ["eap-ig", "exact"])
def test_all_nodes_do_what_the_network_does_and_none_do_nothing(
    llama_folder: Path, tmp_path: Path, pairs: Path, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(llama_folder, tmp_path / "run", "--pairs", pairs, "--nodes", "--method", method) == 0
    found = Circuit.read(tmp_path / "run")
    assert (found.kind, found.total, len(found.units)) == ("nodes", 6, 6)
    assert set(found.units) == {"a0.h0", "a0.h1", "m0", "a1.h0", "a1.h1", "m1"}
    assert (found.training_pairs, found.held_out_pairs) == (6, 4)
    assert [abs(s) for s in found.scores] == sorted((abs(s) for s in found.scores), reverse=True)
    assert found.curve.counts[0] == 0 and found.curve.counts[-1] == 6
    assert found.curve.faithfulness[0] == found.curve.mean[0] == pytest.approx(0, abs=1e-4)
    assert found.curve.faithfulness[-1] == found.curve.mean[-1] == pytest.approx(1, abs=1e-4)
    assert found.count == found.reached and found.judged.stability is not None
    assert Run.read(tmp_path / "run").arguments["pairs"] == str(pairs)
    said = capsys.readouterr().out
    assert all(word in said for word in ("faithfulness", "random circuits", "completeness", "stab", "CPR"))


def test_a_circuit_of_edges_goes_out_as_a_file_and_comes_in_as_it_was(
    llama_folder: Path, tmp_path: Path, pairs: Path
) -> None:
    file = tmp_path / "mib.json"
    assert ask(llama_folder, tmp_path / "run", "--pairs", pairs, "--method", "eap", "--count", "9", "--mib", file) == 0
    found = Circuit.read(tmp_path / "run")
    assert len(read_mib(file)) == found.count == 9
    assert ask(llama_folder, tmp_path / "again", "--pairs", pairs, "--circuit", file) == 0
    again = Circuit.read(tmp_path / "again")
    assert again.units[:9] == found.units[:9] and again.count == 9
    assert again.judged.faithfulness == pytest.approx(found.judged.faithfulness, abs=1e-5)
    assert again.judged.stability is None


@pytest.mark.parametrize("method", ["acdc", "mask"])
def test_a_search_says_how_many_it_kept(llama_folder: Path, tmp_path: Path, pairs: Path, method: str) -> None:
    price = {"acdc": ["--threshold", "1e9"], "mask": ["--price", "0"]}[method]
    assert ask(llama_folder, tmp_path / "run", "--pairs", pairs, "--method", method, *price) == 0
    found = Circuit.read(tmp_path / "run")
    assert found.count == found.reached if method == "acdc" else found.count > found.total / 2


def test_what_cannot_be_judged_is_refused(
    llama_folder: Path, tmp_path: Path, pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*more: object, why: str) -> None:
        assert ask(llama_folder, tmp_path / "run", *more) == 2
        assert why in capsys.readouterr().err

    def changed(**change: str) -> Path:
        path = tmp_path / "changed.json"
        path.write_text(json.dumps([*PAIRS[:3], PAIRS[3] | change]))
        return path

    refused("--pairs", changed(corrupt="the horse"), why="pair 3 has")
    refused("--pairs", changed(right="sss"), why="an answer is one token")
    refused("--pairs", changed(clean="a" * 90, corrupt="b" * 90), why="the model's context holds 64")
    refused("--pairs", tmp_path / "nowhere.json", why="there is no file")
    refused("--pairs", pairs, "--nodes", "--method", "acdc", why="searches among edges")
    refused("--pairs", pairs, "--count", "0", why="--count is 0")
    refused("--pairs", pairs, "--count", "99", "--nodes", why="99 of 6 scored units")
    refused("--task", "pronouns", why="did you mean 'pronoun'")
    assert not (tmp_path / "run").exists()
