"""After erasure no linear probe finds the labels, and what carries none of them stays."""

import pytest
import torch

from microtome.core.edit import masked
from microtome.core.errors import Refusal
from microtome.core.inputs import Tokens
from microtome.directions.contrast import Contrast, logistic_direction
from microtome.directions.erasure import erase, erased_concept
from tests.directions.planted import contrast
from tests.models import zoo


def examples(generator: torch.Generator, d: int = 12):
    given, _ = contrast(generator, signal=3.0, d=d, n=400, falls=0.5, size=1.0)
    x = torch.cat((given.positive, given.negative))
    return x, torch.arange(800) < 400


def test_labels_and_what_is_left_are_uncorrelated(generator: torch.Generator) -> None:
    x, has = examples(generator)
    concept = erased_concept(zoo.model("gpt2").site("resid_post.0"), x, has[:, None].float())
    left = erase(concept, x)
    z = has.float() - has.float().mean()
    assert float((z @ (left - left.mean(0))).detach().abs().max() / len(x)) < 1e-5
    torch.testing.assert_close(erase(concept, left), left, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(left.mean(0), x.mean(0), rtol=1e-4, atol=1e-4)


def test_it_moves_less_than_any_other_such_projection(generator: torch.Generator) -> None:
    """The orthogonal projection that takes the mean difference away erases as well, and moves more."""
    x, has = examples(generator)
    concept = erased_concept(zoo.model("gpt2").site("resid_post.0"), x, has[:, None].float())
    away = (x[has].mean(0) - x[~has].mean(0))[None]
    away = away / away.norm()
    other = (x - x.mean(0)) @ away.T @ away
    assert (erase(concept, x) - x).square().sum() < other.square().sum()


def test_a_probe_is_at_chance_afterwards(generator: torch.Generator) -> None:
    """The eraser and the probe are found on one half, and judged on the other."""
    given, _ = contrast(generator, signal=3.0, d=12, n=8000, falls=0.5, size=1.0)
    x, has = torch.cat((given.positive, given.negative)), torch.arange(16_000) < 8000
    mine = torch.rand(16_000, generator=generator) < 0.5
    concept = erased_concept(zoo.model("gpt2").site("resid_post.0"), x[mine], has[mine, None].float()).requires_grad_(
        False
    )
    right = []
    for rows in (x, erase(concept, x)):
        learned = Contrast.of(rows[mine], has[mine])
        said = (rows[~mine] - learned.middle) @ logistic_direction(learned) > 0
        right.append(float((said == has[~mine]).float().mean()))
    assert right[0] > 0.8
    assert abs(right[1] - 0.5) <= 0.02


def test_ablating_its_components_in_a_network_is_the_erasure(generator: torch.Generator) -> None:
    model = zoo.model("gpt2")
    site, ids = model.site("resid_post.0"), Tokens.of(torch.arange(6)[None])
    width = model.run(ids, read=[site])[site].shape[-1]
    x, has = examples(generator, width)
    concept = erased_concept(site, x, torch.stack((has.float(), torch.rand(len(x), generator=generator)), 1))
    before = model.run(ids, read=[site])[site]
    found = model.run(ids, read=[site], edit=[masked(concept, torch.zeros(len(concept)))])[site]
    assert len(concept) == 2
    torch.testing.assert_close(found, erase(concept, before), rtol=1e-4, atol=1e-4)


def test_labels_of_one_kind_are_refused(generator: torch.Generator) -> None:
    x, _ = examples(generator)
    with pytest.raises(Refusal, match="all 800 labels are the same"):
        erased_concept(zoo.model("gpt2").site("resid_post.0"), x, torch.ones(800, 1))
