"""A wrong table is found out, and the site is withdrawn."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from microtome.core.errors import Refusal, SiteWithdrawn
from microtome.models.adapter import Heads, Into, OutOf, Sited, Stream
from microtome.models.hooked import HookedModel
from microtome.models.load import load
from tests.models.zoo import batch, model, module

# What the name should be, and a place that looks right and is not.
WRONG = {
    "attn_out.0": OutOf("model.layers.0.post_attention_layernorm"),
    "resid_mid.0": Into(
        "model.layers.0.post_attention_layernorm"
    ),  # the norm's input alone: an edit would not go past it
    "mlp_out.1": OutOf("model.layers.0.mlp"),
    "z.0": Heads(Into("model.layers.1.self_attn.o_proj"), 4),
    "v.0": Heads(OutOf("model.layers.0.self_attn.k_proj"), 2),
    "final_norm": Into("model.norm"),
    "mlp_act.0": OutOf("model.layers.0.mlp.up_proj"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_place_is_withdrawn(name: str) -> None:
    right = model("llama").family
    family = replace(right, sited={**right.sited, name: Sited(right.sited[name].site, WRONG[name])})
    m = HookedModel(module("llama"), family)
    found = m.verify()
    assert not found.ok and name in found.withdrawn
    with pytest.raises(SiteWithdrawn, match="does not hold"):
        m.site(name)
    assert len(found.withdrawn) <= 4, found.withdrawn


def test_a_site_that_is_not_met_is_withdrawn() -> None:
    right = model("llama").family
    unmet = Sited(right.sited["embed"].site, OutOf("model.layers.0.mlp.act_fn.nothing"))
    module_ = module("llama")
    module_.model.layers[0].mlp.act_fn.add_module("nothing", nn.Identity())
    try:
        m = HookedModel(module_, replace(right, sited={**right.sited, "embed": unmet}))
        found = m.verify()
    finally:
        del module_.model.layers[0].mlp.act_fn.nothing
    assert found.withdrawn == {"embed": "met exactly once does not hold (met 0 times)"}


def test_rows_are_plain_values() -> None:
    found = model("gpt2").verify(batch("gpt2"))
    rows = json.loads(json.dumps(found.rows()))
    assert set(rows[0]) == {"site", "shape", "identity", "error", "ok", "reason", "sources"}
    assert len(rows) == len(found) and all(row["ok"] for row in rows)
    assert "resid_post.0 = resid_mid.0 + mlp_out.0, pushed" in str(found)
    assert found.lacking["mlp_up.0"].startswith("its MLP is not gated")


def test_a_module_of_unknown_inputs_needs_some() -> None:
    plain = load(nn.Linear(2, 2))
    with pytest.raises(Refusal, match=r"model\.verify\(inputs\)"):
        plain.verify()


def test_the_stream_place_changes_what_the_block_returns() -> None:
    place = model("gpt2").family.sited["resid_mid.0"].place
    assert isinstance(place, Stream) and place.block == "transformer.h.0"


def test_half_precision_has_its_own_tolerance() -> None:
    assert model("llama", torch.bfloat16).verify().ok
