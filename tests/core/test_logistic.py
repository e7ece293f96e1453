"""A regression's weights are where its loss is least, by either way of looking for them."""

from collections.abc import Callable

import pytest
import torch

from microtome.core.errors import NotFinite
from microtome.core.logistic import least_loss, newton, quasi_newton

STRETCHED = torch.tensor([1.0, 3.0, 0.3], dtype=torch.float64)


@pytest.mark.parametrize("search", [newton, quasi_newton])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_a_regression_is_where_its_gradient_vanishes(
    search: Callable, decay: float, generator: torch.Generator
) -> None:
    x = torch.randn(200, 3, generator=generator, dtype=torch.float64) * STRETCHED
    said = x @ torch.tensor([[1.0, 0.0], [-0.3, 0.5], [2.0, 1.0]]).double()
    wanted = (said + torch.randn(200, 2, generator=generator) > 0).double()
    share = torch.rand(200, generator=generator, dtype=torch.float64)
    share /= share.sum()
    weight, bias = search(x, wanted, share, decay, 400)
    miss = share[:, None] * (torch.sigmoid(x @ weight + bias) - wanted)
    assert (x.T @ miss + decay * weight).abs().max() < 1e-4 and miss.sum(0).abs().max() < 1e-4


def test_what_is_not_finite_is_refused() -> None:
    x = torch.tensor([[1.0], [torch.inf], [2.0]])
    with pytest.raises(NotFinite, match="1 of 3 rows are not finite"):
        least_loss(x, torch.tensor([[0.0], [1.0], [1.0]]), torch.full((3,), 1 / 3), decay=0.1, steps=5)
