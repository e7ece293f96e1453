"""What survives of the network, document by document, adds up to what survives on the whole text."""

import pytest
import torch

from microtome.core.linear import Coordinates
from microtome.evals import faithfulness
from microtome.evals.faithfulness import CLEAN, DIVERGENCE, LOSS, RIGHT, Faithfulness, by_way
from microtome.evals.reconstruction import recovered, variance
from microtome.models.hooked import HookedModel
from tests.evals.examined import RESID, ids, sae, text
from tests.toys import WIDTH


def measured(network: HookedModel, batch: int) -> list[torch.Tensor]:
    mean = variance(network, sae(), ids()).mean
    parts = list(Faithfulness([sae(), Coordinates(RESID, WIDTH)], mean).measuring(network, ids(), batch=batch))
    return [by_way(parts, way, torch.from_numpy(text().document).long(), 6) for way in (0, 1)]


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_shares_are_those_of_the_whole_text(network: HookedModel, batch: int) -> None:
    own, identity = measured(network, batch)
    whole = recovered(network, [sae(), Coordinates(RESID, WIDTH)], variance(network, sae(), ids()).mean, ids())
    found = [float(faithfulness.share(LOSS)(s.sum(0))) for s in (own, identity)]
    assert found == pytest.approx(whole.shares, abs=1e-4) and found[1] == pytest.approx(1, abs=1e-6)


def test_the_network_itself_diverges_from_itself_by_nothing(network: HookedModel) -> None:
    own, identity = (s.sum(0) for s in measured(network, 7))
    assert float(faithfulness.mean(DIVERGENCE)(identity)) == pytest.approx(0, abs=1e-9)
    assert float(faithfulness.mean(DIVERGENCE)(own)) > 0 and float(faithfulness.share(DIVERGENCE)(own)) < 1
    assert float(faithfulness.mean(RIGHT)(identity)) == float(faithfulness.mean(RIGHT, CLEAN)(own))
    assert float(faithfulness.mean(faithfulness.AGREE)(identity)) == 1
