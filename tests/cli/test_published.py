"""`microtome convert` between a run's catalogue and what others publish."""

import json
from pathlib import Path

import pytest

from microtome.cli.main import DONE, WRONG, main
from microtome.store.catalog import Catalog
from microtome.store.notes import Notes
from microtome.store.records import Run
from tests.browser.sample import write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "run", 20)


def convert(source: Path, into: Path, to: str) -> int:
    return main(["convert", str(source), str(into), "--to", to])


def test_a_run_goes_to_neuronpedia_and_comes_back_as_a_run(run: Path, tmp_path: Path, capsys) -> None:
    figures = tmp_path / "figures.json"
    arguments = ["convert", str(run), str(tmp_path / "np"), "--to", "neuronpedia", "--json", str(figures)]
    assert main(arguments) == DONE
    found, before = json.loads(figures.read_text()), Catalog(run / "catalog")
    (folder,) = (tmp_path / "np").glob("*/*")
    assert (
        folder.name.endswith("microtome-resid-post") and found["components"] == (before.components["count"] > 0).sum()
    )
    assert convert(folder, tmp_path / "back", "run") == DONE
    after = Catalog(tmp_path / "back" / "catalog")
    for component in range(len(after)):
        assert [e.tokens[1:] for e in before.examples(component)] == [e.tokens[1:] for e in after.examples(component)]
    notes = Notes(after.folder / "notes.sqlite")
    assert notes.count() == found["explained"] > 0 and Run.read(tmp_path / "back").command == "convert"
    assert all(one.score == one.chance and one.low == 0 and one.high == 1 for one in notes.best().values())
    assert "microtome browse" in capsys.readouterr().out


def test_a_run_goes_to_saedashboard_and_comes_back_without_sentences(run: Path, tmp_path: Path) -> None:
    assert convert(run, tmp_path / "batches", "saedashboard") == DONE
    assert convert(tmp_path / "batches", tmp_path / "back", "run") == DONE
    assert not (tmp_path / "back" / "catalog" / "notes.sqlite").exists()


def test_what_cannot_be_published_is_one_sentence(run: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "empty").mkdir()
    for arguments, words in (
        ((run, run, "neuronpedia"), "is not an empty folder; give another"),
        ((tmp_path / "empty", tmp_path / "new", "run"), "has no folder features"),
        ((tmp_path / "empty", tmp_path / "new", "neuronpedia"), "run.json"),
    ):
        assert convert(*arguments) == WRONG
        said = capsys.readouterr().err
        assert words in said and said.count("\n") == 1
