"""Planted constants are found again, points never seen are predicted, intervals hold what they should."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.core.errors import Refusal
from microtome.studies.joint_law import Frame, JointLaw, Points, fit_law, refit

WIDTHS, ACTIVE = (256, 512, 1024, 2048, 4096), (8, 16, 32, 64)
PLANTED = JointLaw(a=1.2, b_k=-0.05, b_n=-0.12, g=-0.03, z=-2.5, e=-0.2)


def grid(law: JointLaw, noise: float = 0.0, seed: int = 0, widths: tuple[int, ...] = WIDTHS) -> Points:
    places = torch.cartesian_prod(torch.tensor(widths), torch.tensor(ACTIVE)).double()
    n, k = places.unbind(1)
    normal = torch.randn(len(n), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Points(n, k, law.loss(n, k) * (noise * normal).exp())


def without(points: Points, left_out: torch.Tensor) -> Points:
    return Points(*(part[~left_out] for part in points))


def test_constants_without_noise_are_found_exactly() -> None:
    found = fit_law(grid(PLANTED))
    torch.testing.assert_close(torch.tensor(found), torch.tensor(PLANTED), atol=1e-4, rtol=1e-3)


@given(st.floats(-0.3, -0.05), st.floats(-0.6, -0.2), st.floats(-0.05, 0.0), st.floats(0.1, 0.6), st.floats(-0.5, -0.1))
@settings(max_examples=15, deadline=None)
def test_any_law_of_the_kind_is_predicted_where_it_was_not_seen(
    b_k: float, b_n: float, g: float, share: float, e: float
) -> None:
    """`share`: how much of the loss at the smallest dictionary is irreducible."""
    start = JointLaw(0.0, b_k, b_n, g, 0.0, e)
    n, k = torch.tensor([256.0]).double(), torch.tensor([8.0]).double()
    a = (torch.tensor(0.5 * (1 - share)) / start.reducible(n, k)).log().item()
    z = (torch.tensor(0.5 * share) / start.irreducible(k)).log().item()
    points = grid(start._replace(a=a, z=z))
    left_out = (points.n == 4096) | ((points.n == 1024) & (points.k == 16))
    errors = fit_law(without(points, left_out)).errors(points)
    assert errors[left_out].abs().max() < 0.005 and errors[~left_out].abs().max() < 1e-3


def test_a_little_noise_moves_predictions_a_little() -> None:
    truth = grid(PLANTED)
    left_out = (truth.n == 4096) & (truth.k >= 32)
    for seed in range(5):
        found = fit_law(without(grid(PLANTED, noise=0.003, seed=seed), left_out))
        assert found.errors(truth)[left_out].abs().max() < 0.02
        assert found.slope_n(16) < 0 and found.slope_k(1024) < 0


def test_one_wild_point_hardly_matters() -> None:
    points = grid(PLANTED)
    points.loss[7] *= 1.5
    errors = fit_law(points).errors(grid(PLANTED))
    assert errors.abs().max() < 0.02


def test_refitting_spreads_as_the_noise_does() -> None:
    generator = torch.Generator().manual_seed(0)
    slopes, held = [], 0
    for seed in range(6):
        points = grid(PLANTED, noise=0.01, seed=seed)
        law = fit_law(points)
        again = torch.tensor([one.loss(points.n, points.k).log()[10] for one in refit(points, law, generator, 40)])
        low, high = again.double().quantile(torch.tensor([0.025, 0.975]).double()).tolist()
        truth = PLANTED.loss(points.n, points.k).log()[10].item()
        held += low <= truth <= high
        slopes.append(again.std().item())
    assert held >= 4 and 0.001 < sum(slopes) / 6 < 0.01


def test_constants_about_the_centre_and_about_zero_are_one_law() -> None:
    points = grid(PLANTED)
    frame = Frame(points)
    growing, staying = frame.parts(frame.theta(PLANTED)[None])
    torch.testing.assert_close(growing[0], PLANTED.reducible(points.n, points.k))
    torch.testing.assert_close(staying[0], PLANTED.irreducible(points.k))
    assert frame.law(frame.theta(PLANTED)) == pytest.approx(PLANTED)


def test_slopes_are_those_of_the_reducible_part() -> None:
    n, k, h = torch.tensor([1000.0]).double(), torch.tensor([20.0]).double(), 1e-5
    by_n = (PLANTED.reducible(n * (1 + h), k) / PLANTED.reducible(n, k)).log().item() / h
    by_k = (PLANTED.reducible(n, k * (1 + h)) / PLANTED.reducible(n, k)).log().item() / h
    assert PLANTED.slope_n(20) == pytest.approx(by_n, rel=1e-3)
    assert PLANTED.slope_k(1000) == pytest.approx(by_k, rel=1e-3)


def test_too_few_points_and_losses_without_a_logarithm_are_refused() -> None:
    with pytest.raises(Refusal, match="8 points at 2 widths and 4 values of k do not determine"):
        fit_law(grid(PLANTED, widths=(256, 512)))
    points = grid(PLANTED)
    points.loss[0] = 0.0
    with pytest.raises(Refusal, match="not a finite number above zero"):
        fit_law(points)
