"""Units go there and back; what is read and written through them is what is read and written at the site."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from microtome.core.errors import Refusal
from microtome.core.site import Site
from microtome.dictionaries.activation_functions import ReLU, TopK
from microtome.dictionaries.coder import fixed
from microtome.dictionaries.normalisation import (
    Fixed,
    LayerNorm,
    Normalisation,
    OfToken,
    Unchanged,
    UnitMeanSquare,
    UnitNorm,
    Whitening,
)
from microtome.dictionaries.sae import SAE

D = 6


def sample() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(400, D, generator=generator) @ torch.randn(D, D, generator=generator) + 3


UNITS: dict[str, Callable[[], Normalisation]] = {
    "unchanged": lambda: Unchanged(D),
    "unit mean square": lambda: UnitMeanSquare.of(sample()),
    "whitening": lambda: Whitening.of(sample()),
    "layer norm": lambda: LayerNorm(D),
    "unit norm": lambda: UnitNorm(D),
}


@pytest.fixture(params=UNITS)
def units(request: pytest.FixtureRequest) -> Normalisation:
    return UNITS[request.param]()


def test_units_go_there_and_back(units: Normalisation) -> None:
    x = sample()
    back = units.undo(units(x))
    if isinstance(units, OfToken):
        back = units.scale(x) * back + units.offset(x)
    torch.testing.assert_close(back, x, rtol=1e-4, atol=1e-3)


def test_reading_and_writing_are_those_of_the_site(units: Normalisation) -> None:
    directions, x = torch.randn(3, D), sample()
    one, two = x[:1], x[1:2]
    torch.testing.assert_close(units.undo(directions) - units.undo(0 * directions), units.writing(directions))
    if isinstance(units, Fixed):
        moved = (units(one) - units(two)) @ directions.T
        torch.testing.assert_close(moved, (one - two) @ units.reading(directions).T, rtol=1e-3, atol=1e-4)


def test_whitened_activations_have_the_identity_as_covariance() -> None:
    torch.testing.assert_close(torch.cov(Whitening.of(sample())(sample()).T), torch.eye(D), rtol=1e-3, atol=1e-3)


def test_layer_norm_and_unit_norm_are_their_formulas() -> None:
    x = sample()
    torch.testing.assert_close(LayerNorm(D)(x), (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 1e-5))
    torch.testing.assert_close(UnitNorm(D)(x).norm(dim=1), torch.full((len(x),), D**0.5))


def test_in_units_of_a_token_the_reconstruction_is_that_of_the_normalised_token() -> None:
    for units in (LayerNorm(D), UnitNorm(D)):
        sae, x = SAE(Site("resid_post.0"), D, 12, TopK(3), units), sample()
        with torch.no_grad():
            sae.b_dec.normal_()
            normal = units(x)
            pre = (normal - sae.b_dec) @ sae.W_enc.T + sae.b_enc
            best = pre.topk(3)
            inside = torch.zeros_like(pre).scatter(1, best.indices, best.values.relu()) @ sae.W_dec + sae.b_dec
            expected = inside * units.scale(x) + units.offset(x)
            torch.testing.assert_close(sae.reconstruct(x), expected, rtol=1e-4, atol=1e-4)


def test_a_constant_sample_cannot_be_whitened_and_units_of_a_token_do_not_fit_between_two_sites() -> None:
    with pytest.raises(Refusal, match="the activations are constant, so they cannot be whitened"):
        Whitening.of(torch.ones(50, D))
    with pytest.raises(Refusal, match="LayerNorm depends on the token"):
        fixed(LayerNorm(D), D)
    assert isinstance(fixed(None, D), Unchanged) and ReLU().settings() == {}
