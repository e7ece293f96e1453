"""Circuits are judged by what their game says: on games whose answer is known, and on small networks."""

import pytest
import torch
from torch import Tensor

from microtome.circuits.circuit_run import CircuitRun
from microtome.circuits.circuit_score import (
    MIB_SHARES,
    along,
    band,
    best,
    chance,
    completeness,
    curve,
    enough,
    faithfulness,
    jaccard,
    minimality,
    report,
    sizes,
    stability,
    strongest,
)
from microtome.circuits.games import EdgeGame, Game, NodeGame
from microtome.circuits.wiring import wiring
from microtome.core.edit import patch
from microtome.core.errors import Refusal
from microtome.core.inputs import Tokens
from microtome.core.measure import logit_diff
from tests.models.zoo import model

CLEAN, CORRUPT = Tokens.of([[5, 6, 7, 8], [9, 10, 11]]), Tokens.of([[5, 12, 7, 8], [13, 10, 11]])
MEASURE = logit_diff(torch.tensor([3, 4]), torch.tensor([5, 6]))


class Sum:
    """Each unit adds its worth; a pair of backups adds its worth if either is there."""

    def __init__(self, worth: list[float], backups: tuple[int, int] | None = None) -> None:
        self.worth, self.backups = torch.tensor(worth), backups
        self.units = tuple(f"unit {i}" for i in range(len(worth)))

    def __call__(self, kept: Tensor) -> Tensor:
        kept = kept.float()
        if self.backups:
            one, other = self.backups
            kept = kept.clone()
            kept[:, one] = torch.maximum(kept[:, one], kept[:, other])
            kept[:, other] = 0
        return (1 + kept @ self.worth)[:, None].expand(-1, 2)


def of(*members: int, units: int = 6) -> Tensor:
    kept = torch.zeros(units, dtype=torch.bool)
    kept[list(members)] = True
    return kept


def test_the_empty_circuit_is_nothing_and_the_full_one_everything() -> None:
    game = Sum([3.0, 2.0, 1.0, -1.0, 0.0, 0.0])
    assert isinstance(game, Game)
    f = faithfulness(game, torch.stack([of(), of(*range(6)), of(0), of(0, 1, 2)]))
    torch.testing.assert_close(f, torch.tensor([0, 1, 0.6, 1.2]))


def test_areas_are_trapezia_over_shares() -> None:
    worth = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    found = curve(worth, Sum(worth.tolist()))
    assert found.counts == (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
    ordered = worth.sort(descending=True).values.cumsum(0) / worth.sum()
    f = torch.stack([ordered[c - 1] for c in found.counts])
    torch.testing.assert_close(found.faithfulness, f)
    wide = [b - a for a, b in zip(MIB_SHARES, MIB_SHARES[1:], strict=False)]
    area = sum(w * float(a + b) / 2 for w, a, b in zip(wide, f, f[1:], strict=False))
    assert found.cpr == pytest.approx(area, abs=1e-5)
    assert found.cmd == pytest.approx(0.999 - area, abs=1e-5)


def test_a_perfect_ranking_has_the_areas_of_a_perfect_circuit() -> None:
    found = curve(torch.arange(1000, 0, -1.0), Sum([1.0] + [0.0] * 999))
    assert found.cpr == pytest.approx(0.999)
    assert found.cmd == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("needed", [1, 2, 17, 99, 399, 400])
def test_the_size_that_is_enough_is_found(needed: int) -> None:
    """Each of the first `needed` units adds the same; so many of them as make .85 are enough."""
    game = Sum([1.0] * needed + [0.0] * (400 - needed))
    assert enough(torch.arange(400, 0, -1.0), game) == max(1, -(-85 * needed // 100))


def test_sizes_go_from_none_to_all(generator: torch.Generator) -> None:
    assert sizes(0) == (0,) and sizes(1) == (0, 1) and sizes(3) == (0, 1, 2, 3)
    assert sizes(1000)[:2] == (0, 1) and sizes(1000)[-1] == 1000 and len(sizes(1000)) <= 14
    game = Sum([1.0] * 4 + [0.0] * 4)
    torch.testing.assert_close(along(torch.arange(8, 0, -1.0), game, (0, 2, 4, 8)), torch.tensor([0, 0.5, 1, 1]))
    found = band(game, (0, 4, 8), generator, samples=400)
    torch.testing.assert_close(found[[0, 2]], torch.tensor([[0.0, 0, 0], [1, 1, 1]]))
    low, mean, high = found[1].tolist()
    assert low < mean < high and mean == pytest.approx(0.5, abs=0.03)


def test_completeness_finds_the_backup_that_was_left_out(generator: torch.Generator) -> None:
    """Units 0 and 1 back each other up; a circuit with 0 alone breaks without it, and the network does not."""
    game = Sum([2.0, 2.0, 1.0, 0.0, 0.0, 0.0], backups=(0, 1))
    left_out = completeness(game, of(0, 2), generator)
    assert left_out.worst == pytest.approx(2 / 3)
    assert "unit 0" in left_out.worst_set
    whole = completeness(game, of(0, 1, 2), generator)
    assert whole.worst == pytest.approx(0, abs=1e-6)


def test_minimality_is_what_a_unit_is_worth(generator: torch.Generator) -> None:
    worth = minimality(Sum([3.0, 1.0, 0.0, 0.0, 0.0, 0.0]), of(0, 1, 2), generator)
    assert worth == pytest.approx({"unit 0": 0.75, "unit 1": 0.25, "unit 2": 0.0}, abs=1e-6)
    backed = minimality(Sum([2.0, 2.0, 1.0, 0.0, 0.0, 0.0], backups=(0, 1)), of(0, 1, 2), generator, samples=20)
    assert backed["unit 1"] == pytest.approx(2 / 3)  # worth nothing until its backup has gone


def test_chance_counts_random_circuits_that_do_as_well(generator: torch.Generator) -> None:
    game = Sum([1.0] + [0.0] * 49)
    found = chance(game, of(0, units=50), generator, samples=200)
    assert float(found.faithfulness.mean()) == pytest.approx(1 / 50, abs=0.03)
    assert found.p < 0.06
    assert chance(game, of(1, units=50), generator, samples=50).p == 1


def test_stability_tells_a_steady_circuit_from_noise(generator: torch.Generator) -> None:
    steady = torch.tensor([9.0, 8, 7, 0, 0, 0, 0, 0]) + 0.1 * torch.randn(40, 8, generator=generator)
    found = stability(steady, 3, generator)
    assert (found.mean, found.stable) == (1.0, True)
    assert str(found).startswith("stable")
    noise = stability(torch.randn(40, 200, generator=generator), 10, generator)
    assert noise.low <= noise.mean <= noise.high
    assert not noise.stable
    assert str(noise).startswith("unstable: Jaccard 0.")
    with pytest.raises(Refusal, match="1 pair cannot be resampled"):
        stability(torch.zeros(1, 3), 1, generator)


def test_choosing_units() -> None:
    scores = torch.tensor([1.0, -3, 2])
    assert best(scores, 1).tolist() == [False, False, True]
    assert strongest(scores, 1).tolist() == [False, True, False]
    assert jaccard(of(0, 1), of(1, 2)) == pytest.approx(1 / 3)
    assert jaccard(of(), of()) == 1


def test_what_cannot_be_judged_is_refused(generator: torch.Generator) -> None:
    with pytest.raises(Refusal, match="1 with all units and 1 with none"):
        faithfulness(Sum([0.0, 0.0]), of(0, units=2)[None])
    with pytest.raises(Refusal, match="give at least two, growing"):
        curve(torch.zeros(2), Sum([1.0, 1.0]), (0.5, 0.1))
    with pytest.raises(Refusal, match="3 of 2 scored units are asked for and the game has 2"):
        report(Sum([1.0, 0.0]), torch.zeros(4, 2), 3, generator)


# ---------------------------------------------------------------- on networks


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "gpt_neox"])
def test_nodes_that_are_not_kept_hold_what_the_corrupt_run_holds(name: str) -> None:
    m = model(name)
    game = NodeGame.resampled(m, CLEAN, CORRUPT, MEASURE)
    assert game.units == tuple(u for i in (0, 1) for u in (*(f"a{i}.h{h}" for h in range(4)), f"m{i}"))
    kept = torch.rand(3, 10, generator=torch.Generator().manual_seed(0)) < 0.5
    kept[0] = True
    found = game(kept)
    torch.testing.assert_close(found[0], MEASURE(m.run(CLEAN)))
    outside = m.run(CORRUPT, read=[*m.sites("z.*"), *m.sites("mlp_out.*")])
    for row, value in zip(kept[1:], found[1:], strict=True):
        edits = []
        for unit, keep in zip(game.units, row.tolist(), strict=True):
            layer = unit[1]
            site = m.site(f"mlp_out.{layer}") if unit[0] == "m" else m.site(f"z.{layer}").at(head=int(unit[-1]))
            edits += [] if keep else [patch(site, outside)]
        torch.testing.assert_close(value, MEASURE(m.run(CLEAN, edit=edits)), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_nodes_may_hold_their_mean() -> None:
    m = model("llama")
    game = NodeGame.mean_ablated(m, CLEAN, CORRUPT, MEASURE)
    z = m.run(CORRUPT, read=[m.site("z.0")])["z.0"][CORRUPT.mask].mean(0)
    torch.testing.assert_close(game.outside["z.0"][1, 2], z)
    whole, nothing = game(torch.tensor([[True] * 10, [False] * 10]))
    torch.testing.assert_close(whole, MEASURE(m.run(CLEAN)))
    assert not torch.allclose(whole, nothing)


@torch.no_grad()
def test_edges_are_played_as_they_run() -> None:
    m = model("llama")
    run = CircuitRun(wiring(m, CLEAN), CLEAN, CORRUPT, MEASURE)
    game = EdgeGame(run, rows=4)
    assert len(game.units) == int(run.wired.anatomy.possible.sum())
    whole, nothing, some = game(
        torch.stack(
            [
                of(*range(len(game.units)), units=len(game.units)),
                of(units=len(game.units)),
                of(3, 9, units=len(game.units)),
            ]
        )
    )
    torch.testing.assert_close(whole, MEASURE(m.run(CLEAN)), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(nothing, MEASURE(m.run(CORRUPT)), atol=1e-5, rtol=1e-4)
    anatomy = run.wired.anatomy
    kept = torch.zeros(1, *anatomy.possible.shape)
    for i in (3, 9):
        kept[0][anatomy.place(anatomy.named(game.units[i]))] = 1
    torch.testing.assert_close(some, run(kept)[0])


def test_a_report_says_all_of_it(generator: torch.Generator) -> None:
    m = model("llama")
    game = NodeGame.resampled(m, CLEAN, CORRUPT, MEASURE)
    whole = torch.ones(1, 10, dtype=torch.bool)
    each = (game(whole) - game(~torch.eye(10, dtype=torch.bool))).T
    found = report(game, each, 4, generator, shares=(0.1, 0.5, 1.0), samples=4)
    assert len(found.units) == len(found.minimality) == 4
    assert found.curve.faithfulness[-1] == pytest.approx(1, abs=1e-4)
    for word in ("faithfulness", "CPR", "random circuits", "completeness", "minimality", "stable"):
        assert word in str(found)


def test_pairs_of_unequal_lengths_are_refused() -> None:
    with pytest.raises(Refusal, match=r"clean prompts have \[4, 3\] tokens and corrupt ones \[3, 3\]"):
        NodeGame.resampled(model("llama"), CLEAN, Tokens.of([[1, 2, 3], [4, 5, 6]]), MEASURE)
