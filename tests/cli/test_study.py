"""`microtome study`: lists what there is, refuses what there is not, and fails where a claim does."""

import json
from pathlib import Path

import pytest

from microtome.cli import study as command
from microtome.cli.main import DONE, FAILED, WRONG, main
from tests.studies.sums import Sums


def test_without_a_name_the_studies_are_listed(capsys: pytest.CaptureFixture) -> None:
    assert main(["study"]) == DONE
    assert "scaling" in capsys.readouterr().out


def test_a_study_that_is_none_is_wrong_usage(capsys: pytest.CaptureFixture) -> None:
    assert main(["study", "scalin"]) == WRONG
    assert "no study 'scalin'; did you mean 'scaling'? there are:" in capsys.readouterr().err


@pytest.mark.parametrize(("found", "code"), [(2.0, DONE), (3.0, FAILED)])
def test_the_exit_code_says_whether_every_claim_holds(
    found: float, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(command, "find", lambda name: Sums(found))
    into, file = tmp_path / "run", tmp_path / "figures" / "sums.json"
    assert main(["study", "sums", "--into", str(into), "--quick", "--json", str(file)]) == code
    assert json.loads(file.read_text()) == json.loads((into / "result.json").read_text())
    said = capsys.readouterr().out
    assert "page.html" in said and ("All 1 claims hold." in said) == (code == DONE)
