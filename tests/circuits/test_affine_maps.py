"""What is found between two sites by putting in a basis is what stands there in the weights."""

import pytest
import torch

from microtome.circuits.affine_maps import affine, affines
from microtome.core.errors import Refusal
from microtome.core.inputs import Tokens
from tests.models.zoo import NAMES, RAGGED, batch, model


@torch.no_grad()
def test_a_projection_is_its_weight_and_bias() -> None:
    m = model("qwen2")
    project = m.module.model.layers[1].self_attn.q_proj  # type: ignore[index, union-attr]
    found = affine(m, Tokens.of(RAGGED), m.site("attn_in.1"), m.site("q_raw.1"))
    torch.testing.assert_close(found.weight.flatten(1), project.weight.T, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.bias.flatten(), project.bias, atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("name", [n for n in NAMES if n != "vit"])
def test_values_and_outputs_are_affine_in_every_family(name: str) -> None:
    m, rows = model(name), batch(name)
    out = "attn_out_raw.1" if "attn_out_raw.1" in m.family.sited else "attn_out.1"
    values = affine(m, rows, m.site("attn_in.1"), m.site("v.1"))
    written = affine(m, rows, m.site("z.1"), m.site(out))
    trace = m.run(rows, read=[m.site(n) for n in ("attn_in.1", "v.1", "z.1", out)])
    found = torch.tensordot(trace["attn_in.1"], values.weight, 1) + values.bias
    torch.testing.assert_close(found, trace["v.1"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        trace["z.1"].flatten(2) @ written.weight + written.bias, trace[out], atol=1e-4, rtol=1e-4
    )


@torch.no_grad()
def test_rotated_queries_are_affine_at_one_position() -> None:
    m, rows = model("llama"), batch("llama")
    found = affines(m, rows, m.site("attn_in.0"), [m.site("q.0"), m.site("k.0")], pos=4)
    trace = m.run(rows, read=[m.site(n) for n in ("attn_in.0", "q.0", "k.0")])
    for one, site in zip(found, ("q.0", "k.0"), strict=True):
        expected = trace[site][:, 4]
        torch.testing.assert_close(
            torch.tensordot(trace["attn_in.0"][:, 4], one.weight, 1), expected, atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize(("name", "before", "after"), [
    ("qwen3", "attn_in.0", "q.0"), ("llama", "resid_pre.0", "attn_in.0"), ("gemma2", "final_norm", "logits"),
])  # fmt: skip
def test_what_bends_is_refused(name: str, before: str, after: str) -> None:
    m = model(name)
    with pytest.raises(Refusal, match=rf"between {before} and {after} is not affine"):
        affine(m, batch(name), m.site(before), m.site(after), pos=0, size=10.0)
