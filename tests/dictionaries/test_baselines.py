"""What a dictionary must beat is as good as it can be made."""

import torch
from torch import Tensor

from microtome.core.component import Dictionary
from microtome.core.linear import Coordinates
from microtome.core.site import Site
from microtome.dictionaries.baselines import Strongest, frozen_encoder, principal_components, random_dictionary
from microtome.evals.reconstruction import Variance

SITE = Site("resid_post.0")


def sample() -> Tensor:
    return torch.randn(500, 6) @ torch.randn(6, 6) + torch.linspace(-3, 3, 6)


def missed(dictionary: Dictionary, x: Tensor) -> float:
    return (x - dictionary.decode(dictionary.encode(x))).double().pow(2).sum().item()


def test_the_gain_of_a_random_dictionary_is_the_one_that_misses_least(generator: torch.Generator) -> None:
    x = sample()
    made = random_dictionary(SITE, x, 60, 5, generator)
    best = missed(made, x)
    for factor in (0.9, 0.97, 1.03, 1.1):
        other = random_dictionary(SITE, x, 60, 5, torch.Generator().manual_seed(0))
        other.W_enc.mul_(factor)
        assert missed(other, x) > best


def test_a_random_dictionary_keeps_k_unit_directions(generator: torch.Generator) -> None:
    made = random_dictionary(SITE, sample(), 60, 5, generator)
    torch.testing.assert_close(made.W_dec.norm(dim=1), torch.ones(60))
    assert made.encode(sample()).l0() <= 5 and not any(p.requires_grad for p in made.parameters())


def test_principal_components_explain_their_share_of_the_eigenvalues() -> None:
    x = sample()
    values = torch.linalg.eigvalsh(torch.cov(x.double().T)).flip(0)
    for rank in (1, 3, 6):
        components = principal_components(SITE, x, rank)
        found = Variance(components)
        found.add(x, components.decode(components.encode(x)))
        assert abs(found.explained - (values[:rank].sum() / values.sum()).item()) < 1e-5
        torch.testing.assert_close(components.read @ components.read.T, torch.eye(rank), atol=1e-5, rtol=0)


def test_the_strongest_are_the_k_largest_in_magnitude_and_the_rest_is_silent() -> None:
    x = sample()
    dictionary = Strongest(Coordinates(SITE, 6), 2)
    again = dictionary.decode(dictionary.encode(x))
    keep = torch.zeros_like(x).scatter(1, x.abs().topk(2, 1).indices, 1.0)
    torch.testing.assert_close(again, x * keep)
    assert len(dictionary) == 6 and dictionary.encode(x).width == 6


def test_a_frozen_encoder_has_the_best_decoder_there_is_for_it(generator: torch.Generator) -> None:
    x = sample()
    made = frozen_encoder(SITE, x, 12, 3, generator, decay=0.0, steps=400)
    codes = made.encode(x).dense().double()
    goal = made.normalisation(x).double()
    best = codes @ torch.linalg.lstsq(codes, goal, driver="gelsd").solution
    torch.testing.assert_close((codes @ made.W_dec.double()), best, atol=1e-3, rtol=1e-3)


def test_a_frozen_encoder_reads_what_the_random_dictionary_reads_and_explains_more() -> None:
    x = sample()
    drawn = random_dictionary(SITE, x, 60, 5, torch.Generator().manual_seed(0))
    frozen = frozen_encoder(SITE, x, 60, 5, torch.Generator().manual_seed(0))
    torch.testing.assert_close(frozen.encode(x).dense(), drawn.encode(x).dense())
    assert missed(frozen, x) < missed(drawn, x) and not any(p.requires_grad for p in frozen.parameters())
