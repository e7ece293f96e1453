"""What is drawn is what was asked for: frequencies, trees, correlation, magnitudes, directions."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from microtome.core.errors import Refusal
from microtome.data.synthetic import (
    NONE,
    Drawn,
    LowRank,
    Synthetic,
    Trees,
    bench_16k,
    coherence,
    power_law,
    pushed_apart,
    small,
)

ROWS = 20_000
SIGMAS = 4.5  # of a binomial count: one in 10^5 beyond, for each of a few hundred features


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def within(successes: Tensor, trials: Tensor | int, probability: Tensor) -> bool:
    """Whether counts are what a binomial of this probability gives."""
    trials = torch.as_tensor(trials)
    spread = (trials * probability * (1 - probability)).sqrt()
    return bool(((successes - trials * probability).abs() <= SIGMAS * spread + 1).all())


def active(drawn: Drawn) -> Tensor:
    return drawn.codes.dense() != 0


@pytest.mark.parametrize("seed", range(3))
def test_every_feature_fires_as_often_as_the_truth_says(seed: int) -> None:
    source = small(seeded(seed))
    fires = active(source.draw(ROWS, seeded(seed + 10)))
    assert within(fires.sum(0), ROWS, source.truth.frequency)
    assert fires.sum().item() / ROWS == pytest.approx(source.l0, rel=0.05)


def test_without_trees_the_truth_is_what_was_asked_for() -> None:
    asked = power_law(50, high=0.3, low=0.01)
    source = Synthetic(50, 20, generator=seeded(), frequencies=asked, correlation=LowRank(3, 0.3))
    assert source.truth.frequency.equal(asked) and (source.truth.parent == NONE).all()
    assert within(active(source.draw(ROWS, seeded(1))).sum(0), ROWS, asked)


def test_the_power_law_runs_from_high_to_low_as_its_exponent_says() -> None:
    found = power_law(1000, high=0.4, low=4e-4, exponent=0.5).double()
    assert found[0].item() == pytest.approx(0.4) and found[-1].item() == pytest.approx(4e-4, rel=1e-4)
    assert (found.diff() < 0).all()
    share = (found - found[-1]) / (found[0] - found[-1])
    pure = torch.arange(1, 1001).double() ** -0.5
    torch.testing.assert_close(share, (pure - pure[-1]) / (1 - pure[-1]), atol=1e-6, rtol=1e-4)
    assert power_law(1, 0.4, 0.1).tolist() == pytest.approx([0.4])


@pytest.mark.parametrize("exclusive", [False, True])
def test_a_child_fires_only_with_its_parent_and_as_often_there_as_it_should(exclusive: bool) -> None:
    source = Synthetic(
        60, 30, generator=seeded(), frequencies=power_law(60, 0.4, 0.05), trees=Trees(4, 3, 2, exclusive)
    )
    fires, parent = active(source.draw(ROWS, seeded(1))), source.truth.parent
    born = (parent != NONE).nonzero()[:, 0]
    assert len(born) == 4 * (3 + 9)
    assert not (fires[:, born] & ~fires[:, parent[born]]).any()
    with_parent = source.truth.frequency[born] / source.truth.frequency[parent[born]]
    assert within(fires[:, born].sum(0), fires[:, parent[born]].sum(0), with_parent)


def test_exclusive_siblings_never_fire_together_and_others_do() -> None:
    for exclusive in (True, False):
        source = Synthetic(
            40, 30, generator=seeded(), frequencies=power_law(40, 0.4, 0.1), trees=Trees(4, 3, 1, exclusive)
        )
        fires = active(source.draw(4000, seeded(1))).int()
        families = [(source.truth.parent == p).nonzero()[:, 0] for p in source.truth.parent.unique() if p != NONE]
        assert len(families) == 4 and all(len(f) == 3 for f in families)
        together = max(fires[:, f].sum(1).max().item() for f in families)
        assert together == 1 if exclusive else together > 1


def test_a_parent_is_at_least_as_frequent_as_each_child_and_as_all_exclusive_ones_together() -> None:
    truth = bench_like().truth
    born = truth.parent != NONE
    assert (truth.frequency[born] <= truth.frequency[truth.parent[born]] + 1e-7).all()
    together = torch.zeros_like(truth.frequency).index_add(0, truth.parent[born], truth.frequency[born])
    assert (together <= truth.frequency + 1e-6).all()


def bench_like() -> Synthetic:
    return Synthetic(400, 32, generator=seeded(), trees=Trees(6, 4, 2, exclusive=True))


@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_trees_have_the_shape_that_was_asked_for(roots: int, branching: int, depth: int) -> None:
    trees = Trees(roots, branching, depth)
    parents = trees.parents()
    assert len(parents) == len(trees) and (parents == NONE).sum() == roots
    children = torch.bincount(parents[parents != NONE], minlength=len(trees))
    assert set(children.tolist()) == {0, branching}
    depths = torch.zeros(len(trees), dtype=torch.long)
    for member in range(roots, len(trees)):
        assert parents[member] < member
        depths[member] = depths[parents[member]] + 1
    assert torch.bincount(depths).tolist() == [roots * branching**level for level in range(depth + 1)]


def both_below(first: float, second: float, correlation: float) -> float:
    """The probability that two normal variables of this correlation lie below two bounds, by integration."""
    z = torch.linspace(-8, first, 20_001, dtype=torch.float64)
    density = (-z.pow(2) / 2).exp() / math.sqrt(2 * math.pi)
    rest = torch.special.ndtr((second - correlation * z) / math.sqrt(1 - correlation**2))
    return torch.trapezoid(density * rest, z).item()


def test_features_fire_together_as_often_as_their_correlation_says() -> None:
    n = 8
    source = Synthetic(
        n, 16, generator=seeded(), frequencies=torch.full((n,), 0.2), correlation=LowRank(rank=2, share=0.8)
    )
    correlations = source.loadings @ source.loadings.T
    fires = active(source.draw(ROWS, seeded(1))).double()
    together, bound = fires.T @ fires, torch.special.ndtri(torch.tensor(0.2)).item()
    pairs = [(i, j) for i in range(n) for j in range(i)]
    expected = torch.tensor([both_below(bound, bound, correlations[i, j].item()) for i, j in pairs])
    assert within(torch.tensor([together[i, j] for i, j in pairs]), ROWS, expected)
    assert expected.max() > 0.08 and expected.min() < 0.02  # independent ones would give .04 everywhere


def test_magnitudes_have_the_mean_and_the_spread_that_were_asked_for() -> None:
    source = Synthetic(30, 20, generator=seeded(), frequencies=torch.full((30,), 0.3), magnitude=(2.0, 0.5))
    values = source.draw(ROWS, seeded(1)).codes.values.double()
    assert values.mean().item() == pytest.approx(2.0, abs=5 * 0.5 / len(values) ** 0.5)
    assert values.std().item() == pytest.approx(0.5, rel=0.02) and (values > 0).all()


def test_rows_are_the_sum_of_what_fires_the_offset_and_noise() -> None:
    source = Synthetic(40, 24, generator=seeded(), noise=0.1, offset=3.0)
    x, codes = source.draw(5000, seeded(1))
    rest = x - codes.dense() @ source.truth.directions
    assert source.offset.norm().item() == pytest.approx(3.0, rel=1e-5)
    torch.testing.assert_close(rest.mean(0), source.offset, atol=5 * 0.1 / 5000**0.5, rtol=0)
    assert (rest - source.offset).std().item() == pytest.approx(0.1, rel=0.02)


def test_codes_are_in_order_and_every_feature_stands_once_in_a_row() -> None:
    codes = small(seeded()).draw(300, seeded(1)).codes
    places = codes.rows * codes.width + codes.indices
    assert (places.diff() > 0).all() and codes.offsets[-1] == len(codes.values)


def test_the_same_generators_draw_the_same_and_others_do_not() -> None:
    one, two = small(seeded()), small(seeded())
    assert one.truth.directions.equal(two.truth.directions) and one.truth.parent.equal(two.truth.parent)
    first, again = list(one.batches(16, 3, seeded(1))), list(two.batches(16, 3, seeded(1)))
    assert all(a.equal(b) for a, b in zip(first, again, strict=True)) and not first[0].equal(first[1])
    assert not next(one.batches(16, 1, seeded(2))).equal(first[0])


def test_directions_are_of_unit_length_and_can_be_pushed_apart() -> None:
    drawn = torch.nn.functional.normalize(torch.randn(96, 32, generator=seeded()), dim=1)
    apart = pushed_apart(drawn, 50)
    torch.testing.assert_close(apart.norm(dim=1), torch.ones(96))
    assert coherence(apart) < 0.8 * coherence(drawn)
    torch.testing.assert_close(pushed_apart(drawn, 3, block=10), pushed_apart(drawn, 3), atol=1e-5, rtol=1e-5)
    few = Synthetic(8, 32, generator=seeded(), apart=200)
    assert coherence(few.truth.directions) < 0.02


def test_coherence_is_the_mean_largest_cosine() -> None:
    x = torch.nn.functional.normalize(torch.randn(30, 8, generator=seeded()), dim=1)
    cosines = (x @ x.T).fill_diagonal_(0).abs()
    assert coherence(x, block=7) == pytest.approx(cosines.max(1).values.mean().item())


def test_the_large_preset_is_as_crowded_as_published() -> None:
    source = bench_16k(seeded())
    assert source.truth.directions.shape == (16_384, 768)
    assert (source.truth.parent != NONE).sum() == 128 * (4 + 16 + 64)
    some = (source.truth.directions[:512] @ source.truth.directions.T).abs().topk(2, 1).values[:, 1]
    assert some.mean().item() == pytest.approx(0.15, abs=0.005)
    assert source.truth.frequency.max().item() == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: power_law(10, high=0.1, low=0.2), "frequencies from 0.1 to 0.2"),
        (lambda: Trees(0, 2, 2), "is no forest"),
        (lambda: LowRank(2, 1.0), "cannot be drawn; give a rank"),
        (lambda: Synthetic(0, 4, generator=seeded()), "0 features in 4 dimensions"),
        (lambda: Synthetic(4, 4, generator=seeded(), trees=Trees(2, 2, 2)), "14 members, more than the 4 features"),
        (lambda: Synthetic(4, 4, generator=seeded(), noise=-1.0), "noise -1"),
        (lambda: Synthetic(2, 4, generator=seeded(), frequencies=torch.tensor([0.0, 0.5])), "above 0 and at most 1"),
    ],
)
def test_nonsense_is_refused(wrong: object, said: str) -> None:
    with pytest.raises(Refusal, match=said):
        wrong()
