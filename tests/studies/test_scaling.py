"""The grid is what it says, the frontier is what nothing cheaper beats, and a planted law makes every claim hold."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from microtome.studies.chart import Chart
from microtome.studies.joint_law import JointLaw
from microtome.studies.scaling import (
    FULL,
    QUICK,
    SPARSE,
    Grid,
    Outcome,
    Scaling,
    Trial,
    claims,
    falling,
    fitted,
    frontier,
    frontier_slope,
    operations,
    pieces,
)
from microtome.studies.study import Report, Setting
from tests.studies.sums import Silent

LAW = JointLaw(a=0.8, b_k=-0.1, b_n=-0.2, g=-0.02, z=-3.5, e=-0.2)
TINY = Grid((16, 24, 32, 40), (1, 2, 4), 1000, 2, (0.5,), 1, 256, 500)


def outcomes(grid: Grid, sign: float = 1.0) -> list[Outcome]:
    """As the law says, and worse by a power of the tokens that were missing."""
    found = []
    for trial in grid.trials(0, grid.tokens):
        n, k = (torch.tensor([float(x)], dtype=torch.float64) for x in (trial.width, trial.k))
        loss = LAW.loss(n, k).item() * (grid.tokens / trial.tokens) ** 0.1
        found.append(Outcome(trial, loss**sign, 0.0, operations(trial, 64)))
    return found


@pytest.mark.parametrize("grid", [QUICK, FULL])
def test_a_planted_law_makes_every_claim_hold_and_its_reverse_does_not(grid: Grid) -> None:
    for sign, holds in ((1.0, True), (-1.0, False)):
        found = outcomes(grid, sign)
        judged = claims(found, fitted(found, grid, 0), grid, quick=False)
        assert all(c.ok for c in judged) is holds, [c for c in judged if not c.ok]
        assert len({c.name for c in judged}) == len(judged)


def test_errors_at_points_held_out_are_those_of_points_that_were_not_fitted() -> None:
    found = outcomes(FULL)
    spoilt = [o._replace(loss=1.1 * o.loss) if FULL.held_back(o.trial.width, o.trial.k) else o for o in found]
    error = claims(spoilt, fitted(spoilt, FULL, 0), FULL, quick=False)[0]
    assert not error.ok and error.found == pytest.approx(0.0953, abs=1e-3)  # log 1.1


@pytest.mark.parametrize("grid", [QUICK, FULL, TINY])
def test_a_fifth_is_held_out_and_the_rest_determines_the_law(grid: Grid) -> None:
    places = grid.places
    kept = [p for p in places if not grid.held_back(*p)]
    assert 0.65 < len(kept) / len(places) < 0.9 and len(kept) > 6
    assert {n for n, _ in kept} == set(grid.widths) and {k for _, k in kept} == set(grid.ks)


def test_trials_are_every_width_and_k_and_some_on_less() -> None:
    trials = FULL.trials(5, FULL.tokens)
    most = FULL.tokens // FULL.batch * FULL.batch * FULL.epochs
    whole = [t for t in trials if t.tokens == most]
    assert len(whole) == 5 * 4 * 2 and {t.seed for t in whole} == {5, 6} and len(set(trials)) == len(trials)
    assert {t.k for t in trials if t.tokens < most} == {FULL.middle}
    assert all(t.width >= SPARSE * t.k for t in trials)
    assert all(t.tokens % FULL.batch == 0 for t in trials)
    assert max(t.tokens for t in FULL.trials(0, 100_000)) <= 100_000 * FULL.epochs


def test_the_frontier_is_what_no_cheaper_one_beats() -> None:
    generator = torch.Generator().manual_seed(0)
    numbers = torch.rand(40, 2, generator=generator).tolist()
    found = [Outcome(Trial(i, 1, 1, 0), loss, 0.0, compute) for i, (loss, compute) in enumerate(numbers)]
    best = frontier(found)
    beaten = [o for o in found if any(p.compute <= o.compute and p.loss < o.loss for p in found)]
    assert {o.trial.width for o in best} == {o.trial.width for o in found} - {o.trial.width for o in beaten}
    power = [Outcome(Trial(i, 1, 1, 0), 2.0 * c**-0.3, 0.0, c) for i, c in enumerate((1.0, 5.0, 70.0))]
    assert frontier_slope(power) == pytest.approx(-0.3)
    assert frontier_slope(power[:1]) != frontier_slope(power[:1])


def test_falling_counts_neighbours_that_differ_in_one_thing_alone() -> None:
    def outcome(width: int, k: int, loss: float) -> Outcome:
        return Outcome(Trial(width, k, 10, 0), loss, 0.0, 1.0)

    found = [outcome(8, 1, 0.9), outcome(16, 1, 0.8), outcome(32, 1, 0.85), outcome(8, 2, 0.7), outcome(16, 2, 0.6)]
    assert falling(found, "width") == pytest.approx(2 / 3) and falling(found, "k") == 1.0
    assert falling(found, "tokens") != falling(found, "tokens")


def test_operations_grow_as_they_are_counted() -> None:
    assert operations(Trial(100, 4, 10, 0), 8) == 10 * (2 * 100 * 8 + 8 * 4 * 8)


def found_in(report: Report) -> list[float | None]:
    return [claim.found for claim in report.claims]


@pytest.fixture(scope="module")
def ran(llama_folder: Path, stories: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    into = tmp_path_factory.mktemp("scaling")
    setting = Setting(into, model=str(llama_folder), text=[str(stories)], quick=True)
    return Scaling(quick=TINY, full=FULL).run(setting, Silent())


def test_the_study_runs_on_whatever_model_it_is_given(ran: Report) -> None:
    found = {c.name: c for c in ran.claims}
    assert len(found) == 8 and all(c.found is not None for c in ran.claims)
    assert found["share of steps to larger k at which the loss falls"].ok
    assert sum(isinstance(p, Chart) for p in ran.pieces) == 3


def test_a_run_is_the_same_again_and_another_seed_is_another(
    llama_folder: Path, stories: Path, tmp_path: Path, ran: Report
) -> None:
    setting = Setting(tmp_path / "a", model=str(llama_folder), text=[str(stories)], quick=True)
    study = Scaling(quick=TINY)
    before, again = found_in(ran), found_in(study.run(setting, Silent()))
    assert again == pytest.approx(before, rel=1e-3, abs=1e-4)
    assert found_in(study.run(replace(setting, into=tmp_path / "b", seed=1), Silent())) != pytest.approx(
        again, rel=1e-3
    )


def test_the_page_shows_what_was_held_out() -> None:
    found = outcomes(QUICK)
    shown = pieces(found, fitted(found, QUICK, 0), QUICK)
    first = next(p for p in shown if isinstance(p, Chart))
    hollow = sum(len(s.x) for s in first.series if s.style == "hollow")
    assert hollow == sum(QUICK.held_back(n, k) for n, k in QUICK.places) > 0
