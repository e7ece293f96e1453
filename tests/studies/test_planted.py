"""The study of the planted circuit: its claims hold, its area is a probability, its path patching is exact patching."""

from pathlib import Path

import pytest
import torch

from microtome.studies.planted import PlantedCircuit, Size, area
from microtome.studies.study import Setting
from tests.studies.sums import Silent


def test_the_area_is_how_often_what_belongs_scores_more(generator: torch.Generator) -> None:
    scores, truth = torch.randn(30, generator=generator).round(decimals=1), torch.rand(30, generator=generator) < 0.4
    pairs = [(a, b) for a in scores[truth].abs().tolist() for b in scores[~truth].abs().tolist()]
    assert area(scores, truth) == pytest.approx(sum((a > b) + 0.5 * (a == b) for a, b in pairs) / len(pairs))
    assert area(torch.ones(30), truth) == 0.5


def test_every_claim_holds(tmp_path: Path) -> None:
    tiny = Size(pairs=6, steps=4, thresholds=(0.01,))
    report = PlantedCircuit(quick=tiny).run(Setting(tmp_path, quick=True), Silent())
    assert [c.name for c in report.claims if not c.ok] == []
