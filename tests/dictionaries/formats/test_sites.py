"""Names of places in a network, translated from those that others use, and back."""

import pytest

from microtome.core.hook_names import ALIASES, canonical, hook_name
from microtome.core.site import Site
from microtome.dictionaries.formats.sites import module_path, site_of

MEANT = {
    ("blocks.8.hook_resid_post", "out"): "resid_post.8", ("blocks.1.mlp.hook_in", "out"): "mlp_in.1",
    ("blocks.1.hook_mlp_out", "out"): "mlp_out.1", ("blocks.0.attn.hook_z", "out"): "z.0", ("hook_embed", "out"): "embed",
    ("model.layers.10", "out"): "resid_post.10", ("model.layers.10", "in"): "resid_pre.10",
    ("model.layers.10.output", "out"): "resid_post.10", ("layers.3.mlp", "out"): "mlp_out.3",
    ("layers.3.mlp", "in"): "mlp_in.3", ("h.4.attn", "out"): "attn_out.4", ("embed_tokens", "out"): "embed",
    ("model.layers.2.self_attn.o_proj.input", "out"): "z.2", ("resid_post.8", "out"): "resid_post.8",
    ("layers.3.mlp.down", "out"): "layers.3.mlp.down", ("layers.3.mlp.down", "in"): "layers.3.mlp.down.in",
}  # fmt: skip


@pytest.mark.parametrize(("name", "side"), MEANT)
def test_what_others_call_a_place(name: str, side: str) -> None:
    assert site_of(name, side).name == MEANT[name, side]


def test_hooks_are_translated_back() -> None:
    for site in ("resid_post.8", "mlp_in.1", "mlp_out.1", "z.0", "embed", "attn_out.4", "resid_mid.0", "q.1"):
        assert canonical(hook_name(site), known=(site,)) == site
    assert hook_name("mixed4c") == "mixed4c" and hook_name("layers.3.mlp") == "layers.3.mlp"
    assert len(ALIASES) == len(set(ALIASES))


def test_module_paths_are_translated_back() -> None:
    for site in ("resid_post.8", "mlp_out.1", "attn_out.4", "embed", "resid_mid.0"):
        assert site_of(module_path(Site(site))).name == site
