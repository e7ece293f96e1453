"""What is logged can be read back, whoever keeps it; what a stop cut off is not missed."""

import math
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from microtome.core.errors import Refusal
from microtome.core.fit import Step
from microtome.store.journal import Journal, JSONLines, Several, SQLite, figures_of
from microtome.store.journal_tensorboard import TensorBoard
from microtome.store.journal_trackio import Trackio
from microtome.store.journal_wandb import WandB

LOCAL = [JSONLines, SQLite]
LOGGED = [(20, {"loss": 0.5, "auxk": 0.0}), (40, {"loss": 0.25, "auxk": 1e-9}), (60, {"loss": 0.125, "auxk": 3.0})]
ROWS = [{"step": step, **figures} for step, figures in LOGGED]


@pytest.mark.parametrize("kind", LOCAL)
def test_what_is_logged_is_read_back(kind: type, tmp_path: Path) -> None:
    journal = kind(tmp_path / "new" / "journal")
    assert isinstance(journal, Journal) and journal.rows() == []
    for step, figures in LOGGED:
        journal.log(step, figures)
    assert journal.rows() == ROWS == kind(tmp_path / "new" / "journal").rows()


@pytest.mark.parametrize("kind", LOCAL)
def test_steps_that_will_be_made_again_are_dropped_on_resuming(kind: type, tmp_path: Path) -> None:
    for step, figures in LOGGED:
        kind(tmp_path / "journal").log(step, figures)
    journal = kind(tmp_path / "journal", resume_after=40)
    assert journal.rows() == ROWS[:2]
    journal.log(*LOGGED[2])
    assert journal.rows() == ROWS


@pytest.mark.parametrize("kind", LOCAL)
def test_a_number_that_is_not_finite_is_no_number(kind: type, tmp_path: Path) -> None:
    journal = kind(tmp_path / "journal")
    journal.log(1, {"loss": math.nan, "most": math.inf, "fine": 1.0})
    assert journal.rows() == [{"step": 1, "loss": None, "most": None, "fine": 1.0}]


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    journal = JSONLines(tmp_path / "training.jsonl")
    for step, figures in LOGGED:
        journal.log(step, figures)
    text = journal.path.read_text()
    journal.path.write_text(text[:-9])
    again = JSONLines(journal.path, resume_after=60)
    again.log(*LOGGED[2])
    assert again.rows() == ROWS


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("not a database " * 100)
    with pytest.raises(Refusal, match="journal is no SQLite database; choose another path for the journal"):
        SQLite(tmp_path / "journal")


def test_several_journals_take_down_the_same(tmp_path: Path) -> None:
    one, other = JSONLines(tmp_path / "a"), SQLite(tmp_path / "b")
    both = Several(one, other)
    both.log(*LOGGED[0])
    both.close()
    assert one.rows() == other.rows() == ROWS[:1]


def test_a_steps_figures_are_its_counts_its_loss_and_its_parts() -> None:
    assert figures_of(Step(3, 96, 0.75, {"a": 0.5, "b": 0.25})) == {"tokens": 96, "loss": 0.75, "a": 0.5, "b": 0.25}


class Recorder:
    """What is asked of a tracker's run."""

    def __init__(self, **settings: Any) -> None:
        self.settings, self.logged, self.closed = settings, [], False

    def log(self, figures: dict[str, float], *, step: int) -> None:
        self.logged.append((step, figures))

    def finish(self) -> None:
        self.closed = True


@pytest.mark.parametrize("name, kind", [("wandb", WandB), ("trackio", Trackio)])
def test_a_tracker_is_told_each_step(name: str, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(init=Recorder))
    journal = kind("sweep", name="a", settings={"k": 32})
    for step, figures in LOGGED:
        journal.log(step, figures)
    journal.close()
    assert isinstance(journal, Journal) and journal.run.logged == LOGGED and journal.run.closed
    assert journal.run.settings == {"project": "sweep", "name": "a", "config": {"k": 32}}


def test_tensorboard_is_told_each_figure_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told = []
    writer = types.SimpleNamespace(add_scalar=lambda *scalar: told.append(scalar), close=lambda: told.append("closed"))
    fake = types.SimpleNamespace(SummaryWriter=lambda folder: told.append(folder) or writer)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    journal = TensorBoard(tmp_path)
    journal.log(*LOGGED[1])
    journal.close()
    assert isinstance(journal, Journal)
    assert told == [str(tmp_path), ("loss", 0.25, 40), ("auxk", 1e-9, 40), "closed"]


@pytest.mark.parametrize(
    "module, package, make",
    [
        ("wandb", "wandb", lambda: WandB("p")),
        ("trackio", "trackio", lambda: Trackio("p")),
        ("torch.utils.tensorboard", "tensorboard", lambda: TensorBoard("p")),
    ],
)
def test_a_tracker_that_is_not_installed_says_how_to_get_it(
    module: str, package: str, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        Refusal, match=rf"this journal needs the package `{package}`: pip install 'microtome\[{package}\]'"
    ):
        make()
