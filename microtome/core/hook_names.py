"""TransformerLens's names for sites, so that published work can be followed literally."""

import re
from collections.abc import Container

# The first of them that the family has. Its `hook_q` and `hook_k` are what the projections give, `hook_rot_q` what
# attention multiplies; its `hook_normalized` is before the norm's gain, which no module shows, so it is no site here.
ALIASES = {
    "hook_embed": ("embed",), "unembed.hook_in": ("final_norm",), "unembed.hook_out": ("logits",),
    "hook_resid_pre": ("resid_pre",), "hook_resid_mid": ("resid_mid",),
    "hook_resid_post": ("resid_post",), "hook_attn_out": ("attn_out",), "hook_mlp_out": ("mlp_out",),
    "attn.hook_in": ("attn_in",), "mlp.hook_in": ("mlp_in",), "mlp.hook_out": ("mlp_out_raw", "mlp_out"),
    "attn.hook_q": ("q_raw", "q"), "attn.hook_k": ("k_raw", "k"), "attn.hook_rot_q": ("q",), "attn.hook_rot_k": ("k",),
    "attn.hook_v": ("v",), "attn.hook_z": ("z",), "attn.hook_attn_scores": ("scores",),
    "attn.hook_pattern": ("pattern",),
    "mlp.hook_pre": ("mlp_pre",), "mlp.hook_pre_linear": ("mlp_up",), "mlp.hook_post": ("mlp_act",),
}  # fmt: skip


def canonical(name: str, known: Container[str] = ()) -> str:
    """`blocks.3.attn.hook_z` is `z.3`; names without an alias stay as they are."""
    parts = name.split(".", 2)
    layered = len(parts) == 3 and parts[0] == "blocks" and parts[1].isdigit()
    names = ALIASES.get(parts[2] if layered else name)
    if names is None:
        return name
    full = [f"{n}.{parts[1]}" if layered else n for n in names]
    return next((n for n in full if n in known), full[-1])


def hook_name(site: str) -> str:
    """`z.3` is `blocks.3.attn.hook_z`; sites without such a name stay as they are."""
    found = re.fullmatch(r"(\w+?)(?:\.(\d+))?", site)
    if found is None:
        return site
    kind, layer = found[1], found[2]
    alone = [hook for hook, names in ALIASES.items() if names == (kind,)]
    shared = [hook for hook, names in ALIASES.items() if kind in names]
    hook = next(iter(alone + shared), None)
    if hook is None:
        return site
    return hook if layer is None else f"blocks.{layer}.{hook}"
