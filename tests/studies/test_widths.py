"""The study of widths: matching beside its two nulls, and a run at toy size."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from microtome.studies.slide import Training
from microtome.studies.study import Setting
from microtome.studies.widths import Live, Size, Widths, matched
from tests.studies.sums import Silent

TINY = Size(Training(tokens=3_000, epochs=1, k=4, batch=256), widths=(16, 48), held_out=3_000)


def live(directions: torch.Tensor) -> Live:
    return Live(normalize(directions), torch.ones(len(directions)), 1.0, 1.0)


def test_what_is_shared_is_matched_and_what_is_turned_is_not(generator: torch.Generator) -> None:
    common, own, others = (torch.randn(n, 64, generator=generator) for n in (30, 20, 50))
    one = live(torch.cat([common, own]))
    two = live(torch.cat([common + 0.2 * torch.randn(30, 64, generator=generator), others])[torch.randperm(80)])
    found = matched(one, two, "made up", generator)
    assert found.share == pytest.approx(30 / 50) and found.turned == found.drawn == 0 and found.found[:30].all()
    assert found.cosines[:30].min() > 0.9 and found.cosines_turned.max() < 0.7


def test_directions_in_one_cone_agree_by_chance_and_the_drawn_ones_say_so(generator: torch.Generator) -> None:
    centre = torch.randn(1, 64, generator=generator)
    one, two = (live(2 * centre + torch.randn(40, 64, generator=generator)) for _ in range(2))
    found = matched(one, two, "made up", generator)
    assert found.share > 0.1 and abs(found.share - found.drawn) < 0.25 and found.turned == 0


def test_the_study_runs_at_toy_size(tmp_path: Path) -> None:
    report = Widths(quick=TINY).run(Setting(tmp_path, quick=True), Silent())
    assert len({claim.name for claim in report.claims}) == len(report.claims) == 6
