"""The study of monosemanticity: its differences, its splitting, and a run at toy size."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from microtome.studies.monosemanticity import Cutting, Monosemanticity, Size, Worded
from microtome.studies.monosemanticity_page import by_density, by_rank
from microtome.studies.slide import Training
from microtome.studies.splitting import splitting
from microtome.studies.study import Setting
from tests.studies.sums import Silent

TRAINING = Training(tokens=3_000, epochs=1, k=8, batch=256)
TINY = Size(TRAINING, width=64, narrow=16, held_out=6_000, proposals=6_000, components=12)


def cut(densities: list[float], scores: list[float]) -> Cutting:
    words = [Worded(n, "x", d, s, s, 0.5, 0.0) for n, (d, s) in enumerate(zip(densities, scores, strict=True))]
    return Cutting("made up", 0.0, 1.0, len(words), densities, words)


def test_pairs_are_of_one_rank_or_of_about_one_density() -> None:
    generator = np.random.default_rng(0)
    rare = cut([0.001 * (n + 1) for n in range(40)], [0.9 - 0.005 * n for n in range(40)])
    often = cut([0.1 * (n + 1) for n in range(40)], [0.8 - 0.005 * n for n in range(40)])
    found = by_rank(rare, often, "accuracy", generator)
    assert (found.low, found.mean, found.high) == pytest.approx((0.1, 0.1, 0.1)) and found.pairs == 40
    assert by_density(rare, often, "accuracy", generator).pairs == 0
    same = by_density(rare, rare, "simulation", generator)
    assert same.pairs == 40 and same.mean == pytest.approx(0.0)


def test_latents_that_were_split_find_their_parents(generator: torch.Generator) -> None:
    narrow = torch.randn(20, 64, generator=generator)
    wide = torch.cat([narrow[n] + 1.5 * torch.randn(3, 64, generator=generator) / 2 for n in range(20)])
    stray = torch.randn(200, 64, generator=generator)
    densities = torch.full((20,), 0.3)
    found = splitting(torch.cat([wide, stray]), narrow, (torch.full((260,), 0.1), densities), generator)
    true = torch.arange(20).repeat_interleave(3)
    assert (found.parents[:60] == true).float().mean() > 0.8
    assert (found.parents[60:] >= 0).float().mean() < 0.05
    torch.testing.assert_close(found.rarity, torch.full_like(found.rarity, 1 / 3))
    brute = (normalize(wide) @ normalize(narrow).T).max(1).values
    torch.testing.assert_close(found.cosines[:60], brute)


def test_the_study_runs_and_goes_on_from_what_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = Monosemanticity(quick=TINY)
    report = study.run(Setting(tmp_path, quick=True), Silent())
    assert len({c.name for c in report.claims}) == len(report.claims) == 10

    def never(*given: object) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr("microtome.studies.monosemanticity.surveying", never)
    assert study.run(Setting(tmp_path, quick=True), Silent()).claims == report.claims
