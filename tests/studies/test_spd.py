"""The study of stochastic parameter decomposition, at a size at which nothing is found but every step is taken."""

from pathlib import Path

from microtome.parameters.spd import SPD
from microtome.studies.spd import Size, Spd, Toys, matrix
from microtome.studies.study import Setting, conduct
from tests.studies.sums import Silent

NARROW, METHOD = Toys(5, 2, trained=3, kept=2, steps=20, rows=64), SPD(parts=6, steps=3, rows=16)
TINY = Size(
    narrow=NARROW, method=METHOD, seeds=2, with_identity=METHOD, wide=Toys(6, 3, 1, 1, 10, 32), wide_method=METHOD,
    curve=(1, 2), gate_steps=3,
)  # fmt: skip


def test_the_study_runs_and_leaves_a_page(tmp_path: Path) -> None:
    result = conduct(Spd(quick=TINY), Setting(tmp_path, quick=True), Silent())
    assert len({c.name for c in result.claims}) == len(result.claims) == 15
    assert "What an adversary finds" in (tmp_path / "page.html").read_text()


def test_parts_are_shown_in_the_order_of_their_features() -> None:
    import torch

    importance = torch.zeros(3, 5)
    importance[[0, 1, 2], [4, 0, 2]] = 1
    assert [row[1:] for row in matrix(importance)] == [
        ["1.00", "0.00", "0.00"],
        ["0.00", "1.00", "0.00"],
        ["0.00", "0.00", "1.00"],
    ]
