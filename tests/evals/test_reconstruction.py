"""Explained variance and recovered cross-entropy are what their formulas say, on the whole text at once."""

import pytest
import torch
from torch import Tensor

from microtome.core.component import Dictionary
from microtome.core.errors import Refusal
from microtome.core.linear import Coordinates, Linear
from microtome.core.site import Site
from microtome.dictionaries.activation_functions import TopK
from microtome.dictionaries.sae import SAE
from microtome.dictionaries.transcoder import Transcoder
from microtome.evals.reconstruction import Variance, recovered, variance
from microtome.models.hooked import HookedModel
from tests import toys
from tests.toys import WIDTH

RESID = Site("resid_post.0")
IDS = torch.randint(toys.VOCAB, (20, 9), generator=torch.Generator().manual_seed(0))


def rows(network: HookedModel) -> Tensor:
    return network.run(toys.Tokens.of(IDS), read=[RESID])[RESID][:, 1:].flatten(0, 1)


def always(value: Tensor) -> Dictionary:
    """A dictionary that gives the same, whatever it reads."""
    return Linear(RESID, RESID, torch.zeros(1, WIDTH), offset=value).requires_grad_(False)


def sae() -> SAE:
    return SAE(RESID, WIDTH, 24, TopK(3), generator=torch.Generator().manual_seed(0)).requires_grad_(False)


def test_the_mean_explains_nothing_and_the_identity_everything(network: HookedModel) -> None:
    mean = rows(network).mean(0)
    assert variance(network, always(mean), IDS).explained == pytest.approx(0.0, abs=1e-6)
    assert variance(network, Coordinates(RESID, WIDTH), IDS).explained == 1.0


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_explained_variance_equals_brute_force_whatever_the_batches(network: HookedModel, batch: int) -> None:
    x = rows(network).double()
    dictionary = sae()
    codes = dictionary.encode(x.float())
    found = variance(network, dictionary, IDS, batch=batch)
    expected = 1 - (x - dictionary.decode(codes)).pow(2).sum() / (x - x.mean(0)).pow(2).sum()
    assert found.explained == pytest.approx(expected.item(), abs=1e-6)
    assert found.l0 == pytest.approx(codes.l0().item()) and found.rows == 20 * 8
    assert found.never_fired == (codes.dense() == 0).all(0).float().mean().item()
    torch.testing.assert_close(found.mean, x.mean(0).float())


def test_rows_may_be_added_in_pieces(network: HookedModel) -> None:
    x, dictionary = rows(network), sae()
    again = dictionary.decode(dictionary.encode(x))
    whole, pieces = Variance(dictionary), Variance(dictionary)
    whole.add(x, again)
    for part in zip(x.split(13), again.split(13), strict=True):
        pieces.add(*part)
    assert pieces.explained == pytest.approx(whole.explained, abs=1e-9) and pieces.rows == whole.rows == len(x)


def test_a_dictionary_that_reads_one_site_and_writes_another_is_measured_on_what_it_writes(
    network: HookedModel,
) -> None:
    two = network.module.layers[0].mlp[2]
    neurons = Coordinates(
        Site("mlp_act.0", "batch pos neuron"), toys.NEURONS, Site("mlp_out.0"), two.weight.T, two.bias
    )
    assert variance(network, neurons, IDS).explained == pytest.approx(1.0, abs=1e-6)


def test_what_goes_past_the_codes_counts_as_made(network: HookedModel) -> None:
    """A linear path past silent codes, which is all that this transcoder has, explains what a linear map explains."""
    linear = Transcoder(RESID, RESID, WIDTH, WIDTH, 8, TopK(1), skip=True).requires_grad_(False)
    linear.W_dec.zero_()
    linear.W_skip.copy_(torch.eye(WIDTH))
    assert variance(network, linear, IDS).explained == pytest.approx(1.0, abs=1e-6)


def test_the_identity_recovers_everything_and_the_mean_nothing(network: HookedModel) -> None:
    mean = rows(network).mean(0)
    found = recovered(network, [Coordinates(RESID, WIDTH), always(mean), sae()], mean, IDS)
    assert found.shares[:2] == pytest.approx([1.0, 0.0], abs=1e-5)
    assert found.clean == pytest.approx(found.spliced[0], abs=1e-6)


def test_recovered_cross_entropy_equals_brute_force_whatever_the_batches(network: HookedModel) -> None:
    x, dictionary = network.run(toys.Tokens.of(IDS), read=[RESID])[RESID], sae()
    inner, unembed = network.module.layers[1], network.module.unembed

    def loss(left: Tensor) -> float:
        left = torch.cat((x[:, :1], left[:, 1:]), 1)
        logits = unembed(inner(left))[:, :-1]
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), IDS[:, 1:].flatten()).item()

    mean = rows(network).mean(0)
    for batch in (3, 16):
        found = recovered(network, [dictionary], mean, IDS, batch=batch)
        expected = [loss(x), loss(mean.expand_as(x)), loss(dictionary.decode(dictionary.encode(x)))]
        assert [found.clean, found.ablated, *found.spliced] == pytest.approx(expected, abs=1e-5)


def test_a_dictionary_that_writes_nothing_cannot_be_measured(network: HookedModel) -> None:
    with pytest.raises(Refusal, match="writes nothing"):
        variance(network, Linear(RESID, None, torch.ones(1, WIDTH)), IDS)
