"""The study of attribution-based parameter decomposition, at a size at which nothing is found but every step is taken."""

from pathlib import Path

import pytest
import torch

from microtome.parameters.apd import APD
from microtome.studies.apd import Apd, Experiment, Outcome
from microtome.studies.spd import Toys
from microtome.studies.study import Setting, conduct
from tests.studies.sums import Silent

TINY = (Experiment(Toys(5, 2, trained=3, kept=2, steps=20, rows=64), APD(steps=3, rows=32), 2, 0.89),)


def test_the_study_runs_and_leaves_a_page(tmp_path: Path) -> None:
    result = conduct(Apd(quick=TINY), Setting(tmp_path, quick=True), Silent())
    assert len({c.name for c in result.claims}) == len(result.claims) == 3
    assert "related left out" in (tmp_path / "page.html").read_text()


def test_separation_is_the_share_of_pairs_in_order() -> None:
    far = Outcome("", [], torch.tensor([0.1, 0.2]), torch.tensor([0.3, 0.4]))
    assert far.separation == 1
    assert Outcome("", [], far.hurt, far.spared).separation == 0
    assert Outcome("", [], far.hurt, far.hurt).separation == pytest.approx(0.5)
