"""The true dictionary recovers everything, chance does not; pairs are the best there are, by trying all."""

from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float
from torch import Tensor

from microtome.core.codes import Codes, DenseCodes
from microtome.core.component import Dictionary, Directions
from microtome.core.linear import Linear
from microtome.core.pairing import best_pairs
from microtome.core.site import Site
from microtome.data.synthetic import Synthetic, power_law
from microtome.evals.ground_truth import interval, recovery

SITE = Site("synthetic", "batch d")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def source(features: int = 24, d: int = 24) -> Synthetic:
    """Orthogonal features, so that each can be read off exactly."""
    made = Synthetic(features, d, generator=seeded(), frequencies=power_law(features, 0.4, 0.1))
    basis = torch.linalg.qr(torch.randn(d, d, generator=seeded(1))).Q[:features]
    made.truth = made.truth._replace(directions=basis)
    return made


class Known(Dictionary):
    """Reads chosen directions, silences what is small or below a threshold, and writes them back `length` times."""

    def __init__(self, read: Tensor, write: Tensor, threshold: float = 1e-4):
        super().__init__()
        self.reads = self.writes = (SITE,)
        self.read, self.write, self.threshold = read, write, threshold

    def encode(self, x: Float[Tensor, "... d_in"]) -> Codes:
        pre = x @ self.read.T
        return DenseCodes(pre * (pre > self.threshold))

    def decode(self, codes: Codes) -> Float[Tensor, "... d_out"]:
        return codes.times(self.write)

    def directions(self) -> Directions:
        return Directions(self.read[:, None], self.write[:, None])


def chance(width: int, d: int = 24) -> Dictionary:
    drawn = torch.nn.functional.normalize(torch.randn(width, d, generator=seeded(7)), dim=1)
    return Known(drawn, drawn, threshold=0.5)


def test_the_truth_recovers_itself_in_any_order_and_sign_of_what_is_written() -> None:
    made = source()
    basis = made.truth.directions[torch.randperm(24, generator=seeded(2))]
    found = recovery(Known(basis, basis), made, chance=chance(24), generator=seeded(3), rows=3000)
    for name in ("mcc", "f1", "precision", "recall", "uniqueness", "shrinkage"):
        estimate = getattr(found, name)
        assert estimate.found == pytest.approx(1.0, abs=1e-4), name
        assert estimate.low == pytest.approx(1.0, abs=1e-3) and estimate.high == pytest.approx(1.0, abs=1e-3), name
    assert found.dead.found == 0.0
    assert found.mcc.chance < 0.7 and found.f1.chance < 0.6 and found.uniqueness.chance < 0.9


def test_shrinkage_is_the_factor_by_which_what_is_written_is_too_small() -> None:
    made = source()
    basis = made.truth.directions
    for read, write in ((0.7 * basis, basis), (basis, 0.7 * basis), (0.35 * basis, 2 * basis)):
        found = recovery(Known(read, write), made, chance=chance(24), generator=seeded(3), rows=2000)
        assert found.shrinkage.found == pytest.approx(0.7, abs=1e-4)
        assert found.mcc.found == pytest.approx(1.0, abs=1e-5)


def test_firing_is_judged_as_by_counting() -> None:
    made = source()
    basis = made.truth.directions
    dictionary = Known(basis, basis, threshold=1.0)  # silent where a feature is weak
    found = recovery(dictionary, made, chance=chance(24), generator=seeded(3), rows=3000, batch=700)
    drawn = [made.draw(size, g) for g in [seeded(3)] for size in (700, 700, 700, 700, 200)]
    true = torch.cat([d.codes.dense() for d in drawn]) != 0
    fires = torch.cat([dictionary.encode(d.x).dense() for d in drawn]) != 0
    hits = (true & fires).sum(0)
    assert found.recall.found == pytest.approx((hits / true.sum(0)).mean().item(), abs=1e-5)
    assert found.precision.found == pytest.approx((hits / fires.sum(0)).mean().item(), abs=1e-5)
    f1 = 2 * hits / (true.sum(0) + fires.sum(0))
    assert found.f1.found == pytest.approx(f1.mean().item(), abs=1e-5)
    assert found.f1.low < found.f1.found < found.f1.high and 0.3 < found.recall.found < 0.7


def test_latents_that_share_a_feature_or_never_fire_are_seen() -> None:
    made = source()
    basis = made.truth.directions
    doubled = Known(torch.cat([basis[:12], basis[:12]]), torch.cat([basis[:12], basis[:12]]))
    found = recovery(doubled, made, chance=chance(24), generator=seeded(3), rows=500)
    assert found.uniqueness.found == pytest.approx(0.5) and found.dead.found == 0.0
    silent = Known(torch.cat([basis[:18], -basis[18:]]), basis)
    found = recovery(silent, made, chance=chance(24), generator=seeded(3), rows=500)
    assert found.dead.found == pytest.approx(0.25) and found.uniqueness.found == 1.0
    assert found.recall.found == pytest.approx(0.75) and found.precision.found == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("width", [6, 60])
def test_a_dictionary_may_be_narrower_or_wider_than_the_truth(width: int) -> None:
    made = source()
    extra = torch.nn.functional.normalize(torch.randn(60, 24, generator=seeded(4)), dim=1)
    rows = torch.cat([made.truth.directions[:6], 0.1 * extra])[:width]
    found = recovery(Known(rows, rows), made, chance=chance(width), generator=seeded(3), rows=500)
    assert (found.mcc.found > 0.999) == (width == 6)


def test_a_dictionary_that_never_fires_has_no_precision() -> None:
    made = source()
    mute = Linear(SITE, SITE, torch.zeros(24, 24)).requires_grad_(False)
    found = recovery(mute, made, chance=chance(24), generator=seeded(3), rows=200)
    assert found.dead.found == 1.0 and found.recall.found == 0.0 and found.f1.found == 0.0
    assert found.precision.found != found.precision.found and found.shrinkage.low != found.shrinkage.low


def total(scores: Tensor) -> float:
    pairs = best_pairs(scores)
    assert len(pairs.rows) == min(scores.shape) == len(pairs.rows.unique()) == len(pairs.columns.unique())
    return scores[pairs.rows, pairs.columns].double().sum().item()


@given(st.integers(1, 6), st.integers(1, 7), st.integers(0, 10**6), st.booleans())
@settings(max_examples=150, deadline=None)
def test_pairs_are_the_best_of_all(n: int, m: int, seed: int, ties: bool) -> None:
    scores = torch.randn(n, m, generator=seeded(seed))
    scores = scores.round() if ties else scores
    wide = scores if n <= m else scores.T
    columns = torch.tensor(list(permutations(range(wide.shape[1]), len(wide))))
    best = wide.double()[torch.arange(len(wide)), columns].sum(1).max().item()
    assert total(scores) == pytest.approx(best, abs=1e-6)


def test_pairs_of_a_larger_table_have_prices_that_prove_them() -> None:
    """No cheaper exchange along any short cycle: a planted permutation under noise is found again."""
    order = torch.randperm(200, generator=seeded(5))
    scores = torch.rand(200, 300, generator=seeded(6)) * 0.9
    scores[torch.arange(200), order] += 1.0
    assert best_pairs(scores).columns.equal(order)
    pairs = best_pairs(torch.rand(60, 60, generator=seeded(8)))
    again = torch.rand(60, 60, generator=seeded(8))[:, pairs.columns]
    swapped = again.diagonal()[:, None] + again.diagonal() - again - again.T
    assert (swapped > -1e-6).all()


def test_the_interval_covers_as_often_as_it_says() -> None:
    draws = torch.rand(200, 40, generator=seeded(9))
    intervals = [interval(row, seeded(i), resamples=200) for i, row in enumerate(draws)]
    covered = sum(low <= 0.5 <= high for low, high in intervals)
    assert 174 <= covered <= 199  # .95 of 200, by three standard deviations and the bootstrap's own slight optimism
