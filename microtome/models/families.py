"""Which module of which family holds which site.

One name is one tensor definition in every family: `attn_out` and `mlp_out` are what is added to the residual stream.
Where a family norms before adding, what the module itself returns is `attn_out_raw` and `mlp_out_raw`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import nn

from microtome.core.site import Site
from microtome.models.adapter import Family, Heads, Into, OutOf, Place, Sited
from microtome.models.attention import Attended

HEADS, PATTERN, STREAM = "batch pos head d", "batch head query key", "batch pos d"


@dataclass(frozen=True)
class Layout:
    """Module paths of a family of transformers; within a layer, relative to the layer. None: the family has no such module."""

    embed: str = "model.embed_tokens"
    layers: str = "model.layers"
    final_norm: str = "model.norm"
    attention: str = "self_attn"
    attn_norm: str | None = "input_layernorm"
    out_projection: str = "self_attn.o_proj"
    mlp: str | None = "mlp"
    mlp_norm: str | None = "post_attention_layernorm"
    mlp_down: str | None = "mlp.down_proj"
    attn_added: str | None = None  # the norm whose output is added, where a family norms before adding
    mlp_added: str | None = None
    parallel: bool = False  # attention and MLP read the same residual stream
    lacking: dict[str, str] = field(default_factory=dict)


LLAMA = Layout()
LAYOUTS = {
    "llama": LLAMA,
    "starcoder2": Layout(mlp_down="mlp.c_proj"),
    "gpt2": Layout(
        embed="transformer.wte", layers="transformer.h", final_norm="transformer.ln_f", attention="attn",
        attn_norm="ln_1", out_projection="attn.c_proj", mlp_norm="ln_2", mlp_down="mlp.c_proj",
    ),
}  # fmt: skip


def family_of(module: nn.Module) -> Family:
    """The canonical sites of a transformers model, or a family without any: then module paths still work."""
    config = getattr(module, "config", None)
    kind = getattr(config, "model_type", type(module).__name__)
    if kind not in LAYOUTS:
        sited = {"logits": Sited(Site("logits", "batch pos vocab"), OutOf("", "logits"))} if config is not None else {}
        return Family(kind, sited)
    layout = LAYOUTS[kind]
    heads = config.num_attention_heads
    count = len(module.get_submodule(layout.layers))
    sites = list(whole_model(layout, count, heads))
    return Family(kind, {s.site.name: s for s in sites}, dict(layout.lacking))


def whole_model(layout: Layout, layers: int, heads: int) -> Iterator[Sited]:
    """Every site, in the order in which a forward pass meets it."""
    yield Sited(Site("embed", STREAM), OutOf(layout.embed))
    for i in range(layers):
        for name, axes, place in layer_sites(layout, f"{layout.layers}.{i}", heads):
            yield Sited(Site(f"{name}.{i}", axes), place)
    yield Sited(Site("final_norm", STREAM), OutOf(layout.final_norm))
    yield Sited(Site("logits", "batch pos vocab"), OutOf("", "logits"))


def layer_sites(layout: Layout, layer: str, heads: int) -> Iterator[tuple[str, str, Place]]:
    attention = f"{layer}.{layout.attention}"
    yield "resid_pre", STREAM, Into(layer)
    yield "attn_in", STREAM, Into(attention)
    for role in ("q", "k", "v"):
        yield role, HEADS, Attended(attention, role)
    for role in ("scores", "pattern"):
        yield role, PATTERN, Attended(attention, role)
    yield "z", HEADS, Heads(Into(f"{layer}.{layout.out_projection}"), heads)
    yield "attn_out", STREAM, OutOf(attention)
    yield "resid_mid", STREAM, Into(f"{layer}.{layout.mlp_norm}")
    yield "mlp_in", STREAM, OutOf(f"{layer}.{layout.mlp_norm}")
    yield "mlp_act", STREAM, Into(f"{layer}.{layout.mlp_down}")
    yield "mlp_out", STREAM, OutOf(f"{layer}.{layout.mlp}")
    yield "resid_post", STREAM, OutOf(layer)
