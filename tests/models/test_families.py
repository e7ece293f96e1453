"""One name is one tensor, in every family."""

import pytest
import torch
from torch import nn

from microtome.core.edit import function
from microtome.core.errors import SiteWithdrawn
from microtome.core.gradients import gradients
from microtome.core.measure import Measure
from microtome.models.families import LAYOUTS
from microtome.models.layout import ORDER
from microtome.models.load import load
from microtome.models.verification import GRADIENT
from microtome.models.verify import verify
from tests.models.zoo import NAMES, batch, model, module


@pytest.mark.parametrize("name", NAMES)
def test_every_identity_holds_to_rounding(name: str) -> None:
    found = verify(model(name))
    assert found.ok, found
    assert found.worst < 1e-5, max(found, key=lambda c: c.error or 0.0)
    assert max(c.error for c in found if c.identity == GRADIENT) < 1e-2


def test_every_family_of_the_table_is_in_the_zoo() -> None:
    assert {name.partition("/")[0] for name in NAMES} == set(LAYOUTS)


@pytest.mark.parametrize("name", NAMES)
def test_a_site_is_offered_or_refused_with_its_reason(name: str) -> None:
    m = model(name)
    offered = {s.name for s in m.sites()}
    assert offered == set(m.run(batch(name), read=m.sites()))
    for site in (f"{role}.{layer}" for role in ORDER for layer in (0, 1)):
        if site in offered:
            continue
        with pytest.raises(SiteWithdrawn, match=f"'{site}' is not offered on this model") as refusal:
            m.site(site)
        assert len(str(refusal.value)) > 80


def test_a_pattern_of_refused_sites_says_why() -> None:
    with pytest.raises(SiteWithdrawn, match="attention and MLP both read resid_pre"):
        model("phi").sites("resid_mid.*")


SHAPES = {
    "embed": (3, 6, 32), "resid_pre.0": (3, 6, 32), "q.0": (3, 6, 4, 12), "k.0": (3, 6, 2, 12), "v.0": (3, 6, 2, 12),
    "q_raw.0": (3, 6, 4, 12), "k_raw.0": (3, 6, 2, 12), "scores.0": (3, 4, 6, 6), "pattern.0": (3, 4, 6, 6), "z.0": (3, 6, 4, 12),
    "attn_out.0": (3, 6, 32), "mlp_pre.0": (3, 6, 48), "mlp_up.0": (3, 6, 48), "mlp_act.0": (3, 6, 48), "logits": (3, 6, 96),
}  # fmt: skip


def test_shapes_with_grouped_keys_and_wide_heads() -> None:
    trace = model("llama").run(batch("llama"), read=list(SHAPES))
    assert {name: tuple(x.shape) for name, x in trace.items()} == SHAPES


@pytest.mark.parametrize("name", ["bloom", "gpt2", "llama", "olmo2", "opt", "phi3", "gpt_neox", "bert"])
@pytest.mark.parametrize("frozen", [True, False])
def test_gradients_at_every_site_are_finite_differences(name: str, frozen: bool) -> None:
    m, rows = model(name, torch.float64), batch(name)
    for parameter in m.module.parameters():
        parameter.requires_grad_(not frozen)
    generator = torch.Generator().manual_seed(3)
    plain = m.run(rows, read=[s for s in m.sites() if not s.name.startswith("scores")])
    weights = torch.randn(plain["logits"].shape, generator=generator, dtype=torch.float64)
    logits = m.site("logits")
    measure = Measure(lambda t: (t[logits] * weights).flatten(1).sum(1), (logits,), "weighted logits")
    for site in (s for s in plain.sites if s.name != "logits"):
        way = torch.randn(plain[site].shape, generator=generator, dtype=torch.float64)
        step = 1e-3 * plain[site].detach().abs().mean()
        slopes = gradients(m, rows, measure, [site])[site]
        up, down = (
            measure(m.run(rows, read=[logits], edit=[function(site, lambda x, by=sign * step * way: x + by)])).sum()
            for sign in (1, -1)
        )
        found = (up - down) / (2 * step)
        # Norms that compute in float32, and kinks, keep this from being an identity; a lost path is wrong by its share.
        assert (found - (slopes * way).sum()).abs() < 5e-2 * slopes.norm() + 1e-6, site


def test_a_bare_model_has_its_sites_and_no_logits() -> None:
    bare = load(module("llama").model)
    whole = model("llama").run(batch("llama"), read=["resid_post.1"])
    assert torch.equal(bare.run(batch("llama"), read=["resid_post.1"])["resid_post.1"], whole["resid_post.1"])
    assert bare.verify().ok
    with pytest.raises(SiteWithdrawn, match="without the head"):
        bare.site("logits")


def test_a_family_that_is_not_in_the_table_has_module_paths() -> None:
    torch.manual_seed(0)
    plain = load(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)))
    x = torch.randn(5, 3)
    assert torch.equal(plain.run(x, read=["1"])["1"], plain.module[1](plain.module[0](x)))
    assert torch.equal(plain.run(x, read=["2.in"])["2.in"], plain.run(x, read=["1"])["1"])
