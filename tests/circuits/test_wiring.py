"""The weights that differentiation finds are those by which heads read and write, in every family."""

import pytest
import torch

from microtome.circuits.wiring import wiring
from microtome.core.errors import Refusal
from tests.circuits.pairs_of_tokens import JOINED
from tests.models import zoo


@pytest.mark.parametrize("name", [*JOINED, "vit"])
def test_projections_and_shares_are_what_the_network_makes(name: str) -> None:
    model, inputs = zoo.model(name), zoo.batch(name)
    wired = wiring(model, inputs)
    with torch.no_grad():
        trace = model.run(inputs, read=dict.fromkeys(s for layer in wired.layers for s in layer))
    for i, sites in enumerate(wired.layers):
        step = trace[sites.attn_in][:, 1] - trace[sites.attn_in][:, 0]
        for site, weight in zip((sites.q, sites.k, sites.v), wired.reading(i), strict=True):
            found = torch.einsum("hed,bd->bhe", weight, step)
            torch.testing.assert_close(found, trace[site][:, 1] - trace[site][:, 0], rtol=1e-4, atol=1e-5)
        scale = wired.scale(i, trace)
        shares = torch.einsum("bshe,hed->bshd", trace[sites.z], wired.writing(i))
        shares = shares if scale is None else shares * scale[:, :, None]
        rest = trace[sites.attn_out] - shares.sum(2)  # the bias, the same everywhere
        torch.testing.assert_close(rest, rest[:1, :1].expand_as(rest), rtol=1e-4, atol=1e-5)


def test_weights_are_found_anew_where_they_are_not_kept() -> None:
    model, inputs = zoo.model("gemma2"), zoo.batch("gemma2")
    kept, anew = wiring(model, inputs), wiring(model, inputs, keep=False)
    assert kept.writing(0) is kept.writing(0) and anew.writing(0) is not anew.writing(0)
    assert torch.equal(kept.writing(0), anew.writing(0))


@pytest.mark.parametrize("name", ["bert", "opt/post-norm"])
def test_a_stream_that_is_normed_between_its_parts_is_refused(name: str) -> None:
    with pytest.raises(Refusal, match="resid_mid.0 is not the sum of what is written into the stream"):
        wiring(zoo.model(name), zoo.batch(name))
