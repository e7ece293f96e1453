"""The study of the planted circuit: its claims hold, its path patching is exact patching."""

from pathlib import Path

from microtome.studies.planted import PlantedCircuit, Size
from microtome.studies.study import Setting
from tests.studies.sums import Silent


def test_every_claim_holds(tmp_path: Path) -> None:
    tiny = Size(pairs=6, steps=4, thresholds=(0.01,))
    report = PlantedCircuit(quick=tiny).run(Setting(tmp_path, quick=True), Silent())
    assert [c.name for c in report.claims if not c.ok] == []
