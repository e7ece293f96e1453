"""A redirected component is as active and its edits are as long, in another direction."""

import torch

from microtome.core.edit import clamp
from microtome.core.inputs import Tokens
from microtome.dictionaries.activation_functions import TopK
from microtome.dictionaries.sae import SAE
from microtome.directions.control import redirected
from tests.models import zoo


def test_edits_with_it_are_as_long_at_every_place(generator: torch.Generator) -> None:
    model = zoo.model("llama")
    site, ids = model.site("resid_post.0"), Tokens.of(torch.arange(1, 9)[None])
    width = model.run(ids, read=[site])[site].shape[-1]
    sae = SAE(site, width, 24, TopK(4), generator=generator).requires_grad_(False)
    component = sae[5]
    control = redirected(component, generator)
    before = model.run(ids, read=[site])[site]
    assert abs(float(torch.cosine_similarity(control.direction, component.direction, dim=0))) < 0.9
    torch.testing.assert_close(control.activity(before), component.activity(before))
    moved = [model.run(ids, read=[site], edit=[clamp(c, 3.0)])[site] - before for c in (component, control)]
    torch.testing.assert_close(moved[0].norm(dim=-1), moved[1].norm(dim=-1), rtol=1e-4, atol=1e-5)
    along = torch.nn.functional.cosine_similarity(moved[1][0, 1:], control.direction[None], dim=-1)
    torch.testing.assert_close(along.abs(), torch.ones_like(along), rtol=1e-4, atol=1e-4)


def test_it_rebuilds_what_is_written_with_the_one_direction_exchanged(generator: torch.Generator) -> None:
    site = zoo.model("llama").site("resid_post.0")
    sae = SAE(site, 12, 24, TopK(4), generator=generator).requires_grad_(False)
    control, x = redirected(sae[3], generator), torch.randn(30, 12, generator=generator)
    codes = sae.encode(x)
    apart = sae.decode(codes) - sae.contribution(codes, 3) + control.dictionary.contribution(codes, 3)
    torch.testing.assert_close(control.dictionary.decode(codes), apart, rtol=1e-4, atol=1e-5)
    assert codes.of(3).any()
