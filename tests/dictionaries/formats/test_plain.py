"""Units folded into the weights change nothing that a dictionary says or makes."""

import pytest
import torch

from microtome.core.errors import Refusal
from microtome.dictionaries.activation_functions import JumpReLU, TopK
from microtome.dictionaries.formats.plain import Plain, folded, plain, thresholds
from microtome.dictionaries.matching_pursuit import MatchingPursuit
from microtome.dictionaries.normalisation import LayerNorm, Unchanged, Whitening
from tests.dictionaries.formats import examples
from tests.dictionaries.formats.examples import SAE, Site, assert_same


@pytest.mark.parametrize("activation", ["relu", "topk", "abstopk", "batchtopk", "jumprelu", "gated"])
@pytest.mark.parametrize("units", ["none", "unit_mean_square", "whitening", "layer_norm", "unit_norm"])
def test_folding_keeps_codes_and_reconstruction_of_an_autoencoder(activation: str, units: str) -> None:
    made = examples.sae(activation, units)
    flat = folded(made)
    assert_same(made, flat, 1e-5 if units == "whitening" else 1e-6)
    assert isinstance(
        flat.normalisation, type(made.normalisation) if units in ("layer_norm", "unit_norm") else Unchanged
    )


@pytest.mark.parametrize("skip", [False, True])
def test_folding_keeps_a_transcoder(skip: bool) -> None:
    made = examples.transcoder("jumprelu", skip=skip, d_out=examples.OUT)
    flat = folded(made)
    assert_same(made, flat)
    assert isinstance(flat.units_in, Unchanged) and isinstance(flat.units_out, Unchanged)


def test_folding_keeps_dictionaries_of_several_sites() -> None:
    for made in (examples.cross_layer("jumprelu"), examples.cross_layer("topk"), examples.crosscoder()):
        assert_same(made, folded(made), 1e-5)


def test_folding_leaves_the_original_alone() -> None:
    made = examples.sae("jumprelu")
    before = {name: x.clone() for name, x in made.state_dict().items()}
    flat = folded(made)
    flat.W_enc.data.zero_()
    flat.activation.thresholds.data.zero_()
    assert all(torch.equal(before[name], x) for name, x in made.state_dict().items())


def test_matching_pursuit_folds_only_where_there_is_nothing_to_fold() -> None:
    site = Site("resid_post.0")
    assert folded(MatchingPursuit(site, 6, 9, 2)) is not None
    with pytest.raises(Refusal, match="reads and writes the same unit rows"):
        folded(MatchingPursuit(site, 6, 9, 2, Whitening.of(examples.rows())))


def test_the_bias_moves_from_one_convention_to_the_other_and_back() -> None:
    made = examples.sae("topk", "none")
    what = plain(made)
    free = what.subtracting(False)
    x = examples.rows()
    expected = (x - what.b_dec) @ what.W_enc.T + what.b_enc
    torch.testing.assert_close(x @ free.W_enc.T + free.b_enc, expected, atol=1e-5, rtol=1e-5)
    assert_same(made, free.dictionary())


def test_only_activations_with_thresholds_have_thresholds() -> None:
    made = JumpReLU(4, 0.25)
    assert torch.equal(thresholds(made, 4, "X"), made.thresholds)
    with pytest.raises(Refusal, match=r"X holds a threshold for each latent, and TopK has none"):
        thresholds(TopK(2), 4, "X")


def test_weights_that_do_not_belong_together_are_refused() -> None:
    site = Site("resid_post.0")
    what = Plain(site, site, torch.ones(4, 3), torch.ones(4), torch.ones(4, 2), torch.ones(2), TopK(1))
    with pytest.raises(Refusal, match=r"W_dec has the shape \(4, 2\)"):
        what.dictionary()


def test_units_of_a_token_are_kept() -> None:
    assert isinstance(plain(SAE(Site("resid_post.0"), 6, 9, TopK(2), LayerNorm(6))).units, LayerNorm)
