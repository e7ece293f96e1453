"""A grid of networks: every combination, from the same starts, and what of their results each setting explains."""

import pytest

from microtome.notebook.page import Table
from microtome.studies.stability import FEATURES, Ended, Grid, of_setting, pieces, trained

TINY = Grid(seeds=2, rates=(1e-3, 1e-2), sizes=(1.0,), steps=2, rows=16)


def test_every_combination_is_there_and_each_seed_ends_elsewhere() -> None:
    told: list[float] = []
    found = trained(TINY, 0, told.append)
    assert sorted(found) == [(s, r, 1.0) for s in (0, 1) for r in (1e-3, 1e-2)] and told == [1, 2]
    assert found[0, 1e-3, 1.0] != found[1, 1e-3, 1.0]
    assert found == trained(TINY, 0, told.append), "nothing is drawn but by the seed"


def test_learning_makes_the_loss_smaller() -> None:
    before, after = (of_setting(Grid(seeds=2, steps=steps), 2e-2, 1.0, 0) for steps in (1, 150))
    assert all(a.loss < b.loss and a.placed <= FEATURES for b, a in zip(before, after, strict=True))


def test_what_depends_on_the_rate_alone_is_explained_by_it() -> None:
    found = {(s, r, 1.0): Ended(100 * r, 5.0) for s in (0, 1) for r in TINY.rates}
    shares, settings = (piece for piece in pieces(TINY, found) if isinstance(piece, Table))
    assert list(shares.rows[0])[3:] == ["0%", "100%", "0%", "0%"] and list(shares.rows[1])[3:] == ["0%"] * 3 + ["100%"]
    assert [float(str(row[2])) for row in settings.rows] == pytest.approx([0.1, 1.0])
