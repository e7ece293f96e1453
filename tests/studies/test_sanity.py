"""The study of baselines: what nearness is, and a run at toy size."""

import math
from pathlib import Path

from microtome.studies.monosemanticity import Size
from microtome.studies.sanity import BASELINES, OWN, Row, Sanity
from microtome.studies.slide import Training
from microtome.studies.study import Setting
from tests.studies.sums import Silent

TRAINING = Training(tokens=3_000, epochs=1, k=8, batch=256)
TINY = Size(TRAINING, width=64, narrow=16, held_out=3_000, proposals=3_000, components=4)


def test_nearness_is_0_at_chance_and_1_at_the_autoencoder() -> None:
    row = Row("made up", 0.5, {OWN: 0.9, "neurons": 0.7, "principal": 0.5, "frozen random": 0.9, "frozen encoder": 1.0})
    assert [round(row.nearness(name), 6) for name in BASELINES] == [1.0, 1.25, 0.0, 0.5]
    assert math.isnan(Row("none", 0.5, {OWN: 0.4, "neurons": 0.7}).nearness("neurons"))


def test_the_study_runs_and_says_how_near_each_baseline_comes(tmp_path: Path) -> None:
    report = Sanity(quick=TINY).run(Setting(tmp_path, quick=True), Silent())
    assert len({claim.name for claim in report.claims}) == len(report.claims) == 8
    assert (tmp_path / "examined.jsonl").exists()
