"""The study of known features runs, and what it measures of planted dictionaries is what was planted."""

from pathlib import Path

import torch

from microtome.core.linear import Linear
from microtome.data.synthetic import small
from microtome.dictionaries.baselines import random_dictionary
from microtome.notebook.page import Table
from microtome.studies.ground_truth import ENTRANTS, SITE, GroundTruth, Size, judged
from microtome.studies.study import Setting
from tests.studies.sums import Silent

TINY = Size(width=96, batch=128, steps=12, judged=600)


def test_the_true_directions_score_one_and_chance_does_not() -> None:
    source = small(torch.Generator().manual_seed(0))
    sample = source.draw(500, torch.Generator().manual_seed(1)).x
    chance = random_dictionary(SITE, sample, 512, 8, torch.Generator().manual_seed(2))
    truth = Linear(SITE, SITE, source.truth.directions).requires_grad_(False)
    found = judged("truth", truth, source, chance, TINY, 0).recovered.mcc
    assert found.found > 0.999 and found.chance < 0.6


def test_the_study_runs(tmp_path: Path) -> None:
    report = GroundTruth(quick=TINY).run(Setting(tmp_path, quick=True), Silent())
    table = report.pieces[-1]
    assert isinstance(table, Table) and {row[0] for row in table.rows} == set(ENTRANTS)
    assert len({c.name for c in report.claims}) == len(report.claims) == 4
