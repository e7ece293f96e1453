"""What fired is what the codes of the whole text say, at position 0 excepted, whatever the batches."""

import pytest
import torch

from microtome.core.component import Dictionary
from microtome.core.linear import Coordinates
from microtome.evals.firings import Firings
from microtome.models.hooked import HookedModel
from microtome.store.survey import surveying
from tests import toys
from tests.evals.examined import RESID, ids, sae


def fired(network: HookedModel, dictionary: Dictionary, batch: int = 7) -> Firings:
    found = Firings(dictionary)
    for _ in surveying(network, [found], ids(), batch=batch):
        pass
    return found


def dense(network: HookedModel, dictionary: Dictionary) -> torch.Tensor:
    x = network.run(toys.Tokens.of(ids()), read=[RESID])[RESID]
    return dictionary.encode(x).dense()[:, 1:].flatten(0, 1)


@pytest.mark.parametrize("batch", [1, 7, 100])
@pytest.mark.parametrize("make", [sae, lambda: Coordinates(RESID, toys.WIDTH)])
def test_firings_are_the_dense_codes(network: HookedModel, make, batch: int) -> None:
    dictionary = make()
    found, wanted = fired(network, dictionary, batch), dense(network, dictionary)
    assert found.tokens == len(wanted)
    torch.testing.assert_close(found.dense(list(range(len(dictionary)))), wanted)
    assert found.fired.tolist() == (wanted != 0).sum(0).tolist()


def test_columns_hold_both_signs_apart_and_the_strongest_first(network: HookedModel) -> None:
    dictionary = Coordinates(RESID, toys.WIDTH)
    columns, wanted = fired(network, dictionary).columns, dense(network, dictionary)
    for component in range(toys.WIDTH):
        for column, sign in ((2 * component, 1), (2 * component + 1, -1)):
            rows, sizes = columns.of(column)
            assert sorted(rows.tolist()) == (sign * wanted[:, component] > 0).nonzero()[:, 0].tolist()
            torch.testing.assert_close(sizes, (sign * wanted[:, component])[rows])
            assert (sizes.diff() <= 0).all()
