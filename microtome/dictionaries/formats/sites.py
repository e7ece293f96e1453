"""What others call a place in a network, as this package's site names, and back."""

import re
from typing import Literal

from microtome.core.hook_names import canonical
from microtome.core.site import Site

Side = Literal["in", "out"]  # of a module: what it is given, or what it returns
LAYER = re.compile(r"^(?:(?:model|transformer|gpt_neox|language_model)\.)*(?:layers|h|blocks|block)\.(\d+)(?:\.(.+))?$")
INSIDE: dict[str, tuple[str, str]] = {  # a part of a layer: the site it is given, the site it returns
    "": ("resid_pre", "resid_post"),
    "mlp": ("mlp_in", "mlp_out"),
    **dict.fromkeys(("attn", "self_attn", "attention"), ("attn_in", "attn_out")),
}
ENDINGS: dict[str, Side] = {".output": "out", ".input": "in", ".out": "out", ".in": "in"}
OUT_PROJECTIONS = ("self_attn.o_proj", "attn.c_proj", "attention.dense")  # they are given the heads, side by side
EMBEDDINGS = ("embed_tokens", "wte", "embed_in")
PATHS = {  # of the sites that are what a module returns
    "resid_post": "layers.{}", "mlp_out": "layers.{}.mlp", "attn_out": "layers.{}.self_attn",
}  # fmt: skip


def site_of(name: str, side: Side = "out") -> Site:
    """The site that a TransformerLens hook, a module's path or one of our own names means.

    A module's path means what the module returns, or with side `in` what it is given. A path that no site is known for
    stays a path.
    """
    return Site(translated(canonical(name.strip()), side))


def translated(name: str, side: Side) -> str:
    layered = LAYER.match(name)
    if layered is None:
        return "embed" if name.rpartition(".")[2] in EMBEDDINGS and side == "out" else name
    layer, rest = layered[1], layered[2] or ""
    for ending, named in ENDINGS.items():
        if f".{rest}".endswith(ending):
            rest, side = f".{rest}".removesuffix(ending).lstrip("."), named
            break
    if rest in INSIDE:
        return f"{INSIDE[rest][side == 'out']}.{layer}"
    if side == "in" and rest in OUT_PROJECTIONS:
        return f"z.{layer}"
    path = name[: layered.end(1)] + f".{rest}"
    return path if side == "out" else f"{path}.in"


def kind_and_layer(site: Site) -> tuple[str, int | None]:
    """`resid_post.8` is resid_post and 8; a name without a layer is itself and None."""
    layer = site.layer
    return (site.name, None) if layer is None else (site.name.removesuffix(f".{layer}"), layer)


def module_path(site: Site) -> str:
    """`mlp_out.3` is `layers.3.mlp`; a site that is not what one module returns keeps its name."""
    kind, layer = kind_and_layer(site)
    if site.name == "embed":
        return "embed_tokens"
    return PATHS[kind].format(layer) if kind in PATHS and layer is not None else site.name
