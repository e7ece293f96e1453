"""The study of stochastic parameter decomposition, at a size at which nothing is found but every step is taken."""

import json
from dataclasses import replace
from pathlib import Path

from microtome.parameters.spd import SPD
from microtome.studies.spd import Experiment, Size, Spd, Toys, ordered
from microtome.studies.spd_beside import Effort
from microtome.studies.study import Setting, conduct
from tests.studies.sums import Silent

METHOD = SPD(parts=6, steps=3, rows=16)
NARROW = Experiment(Toys(5, 2, trained=3, kept=2, steps=20, rows=64), METHOD, METHOD, 2, 0.02, 24.0)
TINY = Size(NARROW, replace(NARROW, toys=Toys(6, 3, 1, 1, 10, 32), restarts=1), Effort((1, 2), steps=3, gate_steps=3))


def test_the_study_runs_leaves_a_page_and_does_nothing_twice(tmp_path: Path) -> None:
    setting, study = Setting(tmp_path, quick=True), Spd(quick=TINY)
    result = conduct(study, setting, Silent())
    assert len({c.name for c in result.claims}) == len(result.claims) == 19
    page = (tmp_path / "page.html").read_text()
    assert "What an adversary finds" in page and "TopK 1" in page
    kept = (tmp_path / "found.jsonl").read_text()
    assert [json.loads(row)["name"] for row in kept.split("\n") if row] == [
        "5 in 2", "5 in 2 with an identity", "beside", "6 in 3", "6 in 3 with an identity",
    ]  # fmt: skip
    assert conduct(study, setting, Silent()).claims == result.claims
    assert (tmp_path / "found.jsonl").read_text() == kept


def test_parts_are_shown_in_the_order_of_their_features() -> None:
    importance = [[0.0, 0.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0, 0.0]]
    assert ordered(importance) == [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
