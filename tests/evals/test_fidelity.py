"""What is summed window by window gives the figures that brute force gives on the whole."""

import pytest
import torch

from microtome.core.component import Dictionary
from microtome.core.linear import Coordinates, Linear
from microtome.evals import fidelity
from microtome.evals.fidelity import Fidelity
from microtome.evals.reconstruction import variance
from microtome.models.hooked import HookedModel
from microtome.store.survey import surveying
from tests import toys
from tests.evals.examined import RESID, ids, sae, text
from tests.toys import WIDTH


def summed(network: HookedModel, dictionary: Dictionary, batch: int = 5) -> torch.Tensor:
    found = Fidelity(dictionary)
    for _ in surveying(network, [found], ids(), batch=batch):
        pass
    return found.sums(torch.from_numpy(text().document).long(), 6)


def rows(network: HookedModel) -> torch.Tensor:
    return network.run(toys.Tokens.of(ids()), read=[RESID])[RESID][:, 1:].flatten(0, 1).double()


def always(value: torch.Tensor) -> Dictionary:
    return Linear(RESID, RESID, torch.zeros(1, WIDTH), offset=value).requires_grad_(False)


@pytest.mark.parametrize("batch", [1, 5, 50])
def test_explained_variance_and_l0_are_those_of_one_pass_over_all(network: HookedModel, batch: int) -> None:
    sums, whole = summed(network, sae(), batch), variance(network, sae(), ids())
    assert sums.shape[0] == 6
    assert float(fidelity.explained(sums.sum(0))) == pytest.approx(whole.explained, abs=1e-7)
    assert float(fidelity.l0(sums.sum(0))) == pytest.approx(whole.l0)
    torch.testing.assert_close(fidelity.mean_of(sums), whole.mean)


def test_the_mean_explains_nothing_even_where_it_is_large(network: HookedModel) -> None:
    mean = rows(network).mean(0).float()
    assert float(fidelity.explained(summed(network, always(mean)).sum(0))) == pytest.approx(0, abs=1e-6)
    assert float(fidelity.explained(summed(network, Coordinates(RESID, WIDTH)).sum(0))) == 1.0


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.25])
def test_a_reconstruction_of_the_wrong_size_is_found_out_and_undone(network: HookedModel, factor: float) -> None:
    mean = rows(network).mean(0).float()
    eye = torch.eye(WIDTH)
    sums = summed(network, Linear(RESID, RESID, eye, factor * eye, mean).requires_grad_(False)).sum(0)
    assert float(fidelity.size(sums)) == pytest.approx(factor, abs=1e-5)
    assert float(fidelity.explained(sums)) == pytest.approx(1 - (1 - factor) ** 2, abs=1e-5)
    assert float(fidelity.explained_once_sized(sums)) == pytest.approx(1, abs=1e-5)


def test_no_other_factor_explains_more_than_the_one_that_undoes_shrinkage(network: HookedModel) -> None:
    x = rows(network)
    made = sae().reconstruct(x.float()).double()
    about = made - made.mean(0)
    best = max(
        float(1 - (x - x.mean(0) - c * about).square().sum() / (x - x.mean(0)).square().sum())
        for c in torch.linspace(0, 3, 3001).tolist()
    )
    assert float(fidelity.explained_once_sized(summed(network, sae()).sum(0))) == pytest.approx(best, abs=1e-5)


def test_no_constant_accounts_for_more_than_the_mean(network: HookedModel) -> None:
    sums, x = summed(network, sae()).sum(0), rows(network)
    whole = float(fidelity.mean_explains(sums))
    assert float(fidelity.constant_explains(x.mean(0))(sums)) == pytest.approx(whole, abs=1e-9)
    assert float(fidelity.constant_explains(x.mean(0) * 1.1)(sums)) < whole
    assert float(fidelity.constant_explains(torch.zeros(WIDTH))(sums)) == pytest.approx(0, abs=1e-12)
