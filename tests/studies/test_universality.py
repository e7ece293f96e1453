"""The study of universality: a small form of it runs, its networks are kept, and kept ones are read again."""

from pathlib import Path

import pytest
import torch

from microtome.studies.study import Setting
from microtome.studies.taught import taught
from microtome.studies.universality import AcrossSeeds, Size
from microtome.toys.talker import Lessons
from tests.studies.sums import Silent

TINY = Lessons(d=16, heads=2, neurons=24, prompts=60, batch=8, steps=3)


def test_a_network_is_taught_once(tmp_path: Path) -> None:
    first = taught("ioi", TINY, 0, tmp_path, Silent()).model.module.state_dict()
    path = tmp_path / "ioi-0.safetensors"
    written = path.stat().st_mtime_ns
    again = taught("ioi", TINY, 0, tmp_path, Silent()).model.module.state_dict()
    assert path.stat().st_mtime_ns == written
    assert all(torch.equal(first[name], again[name]) for name in first)
    longer = Lessons(d=16, heads=2, neurons=24, prompts=60, batch=8, steps=4)
    taught("ioi", longer, 0, tmp_path, Silent())
    assert path.stat().st_mtime_ns != written


def test_the_study_runs_and_nothing_is_like_a_rotation_of_it(tmp_path: Path) -> None:
    report = AcrossSeeds(quick=Size(seeds=2, lessons=TINY, rows=40, rotations=3, latents=32, k=4, fitted=3)).run(
        Setting(tmp_path, quick=True), Silent()
    )
    assert len({c.name for c in report.claims}) == len(report.claims) == 7
    rotated = next(c for c in report.claims if "rotated" in c.name)
    assert rotated.found == pytest.approx(0, abs=0.1)
