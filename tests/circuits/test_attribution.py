"""First-order effects are derivatives of patching; along the way they sum to the effect itself."""

import pytest
import torch

from microtome.circuits.attribution import (
    attributed_components,
    attribution_patching,
    integrated_gradients,
    summed,
)
from microtome.core.edit import fill, patch
from microtome.core.errors import Refusal
from microtome.core.linear import Coordinates
from tests.circuits.pairs_of_tokens import MEASURE, pairs
from tests.models import zoo

SITES = ["resid_pre.0", "q.1", "v.0", "z.0", "pattern.1", "mlp_out.0"]


@pytest.mark.parametrize("left", [False, True])
def test_along_the_way_it_sums_to_what_patching_the_site_does(left: bool) -> None:
    model, (clean, corrupt) = zoo.model("gpt2"), pairs("gpt2", left=left)
    sites = [model.site(name) for name in SITES]
    found = integrated_gradients(model, clean, corrupt, MEASURE, sites, steps=32)
    source, before = model.run(corrupt, read=sites), MEASURE(model.run(clean))
    for site in sites:
        moved = MEASURE(model.run(clean, edit=[patch(site, source)])) - before
        torch.testing.assert_close(summed(found, site), moved, rtol=5e-3, atol=5e-4)


@pytest.mark.parametrize("name", ["gpt2", "gptj"])
def test_to_first_order_it_is_the_derivative_of_going_there(name: str) -> None:
    model, (clean, corrupt) = zoo.model(name, torch.float64), pairs(name)
    site, step = model.site("z.0"), 1e-3  # rotations work in single precision
    found = attribution_patching(model, clean, corrupt, MEASURE, [site])
    now, then = (model.run(inputs, read=[site])[site] for inputs in (clean, corrupt))
    up, down = (MEASURE(model.run(clean, edit=[fill(site, torch.lerp(now, then, s))])) for s in (step, -step))
    torch.testing.assert_close(summed(found, site), (up - down) / (2 * step), rtol=1e-3, atol=1e-5)
    by_head = summed(found, site, "head")
    assert by_head.shape == (3, 4)
    torch.testing.assert_close(by_head.sum(1), summed(found, site))


def test_components_that_are_the_axes_of_a_site_are_attributed_as_the_site_is() -> None:
    model, (clean, corrupt) = zoo.model("gpt2"), pairs("gpt2")
    site = model.site("resid_post.0")
    found = attributed_components(model, clean, corrupt, MEASURE, Coordinates(site, 32))
    torch.testing.assert_close(found, attribution_patching(model, clean, corrupt, MEASURE, [site])[site])


def test_runs_that_are_padded_otherwise_are_refused() -> None:
    model = zoo.model("gpt2")
    with pytest.raises(Refusal, match="so pad both alike"):
        attribution_patching(model, pairs("gpt2")[0], pairs("gpt2", left=True)[1], MEASURE, model.sites("z.0"))
