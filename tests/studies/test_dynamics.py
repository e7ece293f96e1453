"""The study of learning coefficients: its losses by hand, and all of it very small."""

from pathlib import Path

import torch

from microtome.studies.dynamics import Dynamics, Size, crossing, regression
from microtome.studies.stability import Grid
from microtome.studies.study import Setting
from tests.studies.sums import Silent

TINY = Size(
    samples=100, chains=4, steps=6, burn=2, crossings=((1,), (1, 2)), ranks=((2, 2, 2, 1),), timed=2,
    grid=Grid(seeds=2, rates=(1e-3,), sizes=(1.0,), steps=2, rows=8),
)  # fmt: skip


def test_losses_are_nothing_where_chains_begin_and_as_written_elsewhere(generator: torch.Generator) -> None:
    rank = regression(3, 2, 4, 1, generator)
    assert rank.loss({n: w[None] for n, w in rank.at.items()}, None).abs() < 1e-12
    x = torch.randn(20_000, 3, generator=generator).double()
    moved = {n: w + torch.randn(w.shape, generator=generator) for n, w in rank.at.items()}
    teacher = rank.at["w_out"] @ rank.at["w_in"]
    sampled = (x @ (moved["w_out"] @ moved["w_in"] - teacher).T).square().sum(1).mean() / 2
    torch.testing.assert_close(rank.loss({n: w[None] for n, w in moved.items()}, None)[0], sampled, rtol=0.05, atol=0)
    product = crossing((1, 2))
    assert product.loss({"w": torch.tensor([[2.0, 3.0]])}, None).tolist() == [4.0 * 81.0] and product.known == 0.25


def test_the_study_runs(tmp_path: Path) -> None:
    report = Dynamics(quick=TINY).run(Setting(tmp_path, quick=True), Silent())
    assert [c.expected for c in report.claims[:2]] == [0.5, 0.25]
    assert len({c.name for c in report.claims}) == len(report.claims) == 4
