"""A planted direction is found; what has no direction is refused."""

import pytest
import torch

from microtome.core.errors import NotFinite, Refusal
from microtome.directions.contrast import FINDERS, Contrast, covariance, mean_difference, principal, whitened
from tests.directions.planted import contrast


@pytest.mark.parametrize("name", FINDERS)
def test_every_finder_gives_a_unit_vector_towards_the_positive(name: str, generator: torch.Generator) -> None:
    given, truth = contrast(generator, signal=8.0, d=20, n=300, falls=0.0, size=1.0)
    found = FINDERS[name](given)
    assert float(found.norm()) == pytest.approx(1, abs=1e-5)
    assert float(found @ truth) > 0.95
    assert float(FINDERS[name](Contrast(given.negative, given.positive)) @ found) == pytest.approx(-1, abs=1e-4)


def test_at_signal_two_in_uneven_noise_the_whitened_one_is_near_the_truth() -> None:
    cosines = []
    for seed in range(5):
        given, truth = contrast(torch.Generator().manual_seed(seed))
        cosines.append([float(find(given) @ truth) for find in (mean_difference, whitened)])
    plain, better = torch.tensor(cosines).mean(0).tolist()
    assert plain >= 0.85
    assert better >= 0.95
    assert min(c[1] - c[0] for c in cosines) > 0


def test_without_noise_whitening_changes_nothing(generator: torch.Generator) -> None:
    given, _ = contrast(generator, size=1e-4)
    assert float(whitened(given) @ mean_difference(given)) == pytest.approx(1, abs=1e-5)


def test_the_principal_axis_holds_the_mean_difference_where_a_centred_one_cannot(generator: torch.Generator) -> None:
    given, truth = contrast(generator, signal=6.0, d=40, falls=0.0, size=0.5)
    pairs = given.positive - given.negative
    centred = torch.linalg.svd(pairs - pairs.mean(0)).Vh[0]
    assert float(principal(given) @ truth) > 0.98
    assert abs(float(centred @ truth)) < 0.5


def test_shrinkage_gives_the_covariance_where_there_is_enough_to_see(generator: torch.Generator) -> None:
    spread = torch.tensor([3.0, 1.0, 0.5])
    x = torch.randn(200_000, 3, generator=generator) * spread
    torch.testing.assert_close(covariance(x).float(), torch.diag(spread**2), rtol=0.02, atol=0.02)
    few = covariance(torch.randn(3, 8, generator=generator))
    assert torch.linalg.eigvalsh(few)[0] > 0


@pytest.mark.parametrize(
    ("positive", "negative", "said"),
    [
        (torch.ones(1, 3), torch.zeros(4, 3), "1 positive examples and 4 negative ones"),
        (torch.ones(4, 3), torch.zeros(0, 3), "give at least 2 of each"),
        (torch.ones(4, 3), torch.zeros(4, 2), "3 wide and negative ones 2"),
    ],
)
def test_what_is_no_contrast_is_refused(positive: torch.Tensor, negative: torch.Tensor, said: str) -> None:
    with pytest.raises(Refusal, match=said):
        Contrast(positive, negative)


def test_numbers_must_be_finite_and_means_apart() -> None:
    with pytest.raises(NotFinite):
        Contrast(torch.full((2, 3), torch.nan), torch.zeros(2, 3))
    same = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    with pytest.raises(Refusal, match="same mean"):
        mean_difference(Contrast(same, same))
