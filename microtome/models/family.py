"""A model's family: the sites of its layout at the full paths of this model, one of each for every layer."""

from collections.abc import Iterator
from typing import Any

from torch import nn

from microtome.core.site import Site
from microtome.models.adapter import Equation, Family, OutOf, Sited
from microtome.models.families import LAYOUTS
from microtome.models.layout import AXES, ORDER, STREAM, Block, Layout


def family_of(module: nn.Module) -> Family:
    """The canonical sites of a transformers model, or a family without any: then module paths still work."""
    config = getattr(module, "config", None)
    kind = getattr(config, "model_type", type(module).__name__)
    if kind not in LAYOUTS:
        sited = {"logits": Sited(Site("logits", "batch pos vocab"), OutOf("", "logits"))} if config is not None else {}
        return Family(kind, sited)
    row = LAYOUTS[kind]
    found = Found(module, row if isinstance(row, Layout) else row(config))
    sites = {s.site.name: s for s in found.sites()}
    return Family(kind, sites, dict(found.lacking()), tuple(found.equations()))


class Found:
    """A layout on one model: full paths, and one of each site for every layer."""

    def __init__(self, module: nn.Module, layout: Layout) -> None:
        self.module, self.layout = module, layout
        self.config: Any = module.config
        # A bare model, without a head, stands one level higher.
        base = getattr(module, "base_model", None) is module
        self.prefix = f"{module.base_model_prefix}." if base else ""
        self.headed = not base and self.has(layout.unembed[-1])

    def has(self, path: str) -> bool:
        """Whether the model has a module at this path."""
        return path in dict(self.module.named_modules())

    def path(self, path: str) -> str:
        """A path of the layout as it is in this model."""
        return path.removeprefix(self.prefix)

    def blocks(self) -> Iterator[Block]:
        """The layers, each with the sizes of its heads and its MLP."""
        c = self.config
        heads, inner = c.num_attention_heads, getattr(c, "intermediate_size", None) or 0
        kv_heads = getattr(c, "num_key_value_heads", None) or heads
        head_dim = getattr(c, "head_dim", None) or c.hidden_size // heads
        layers = self.path(self.layout.layers)
        for i, _ in enumerate(self.module.get_submodule(layers).children()):
            yield Block(f"{layers}.{i}", heads, kv_heads, head_dim, inner)

    def sites(self) -> Iterator[Sited]:
        """Every site, in the order in which a forward pass meets it."""
        layout = self.layout
        yield Sited(Site("embed", STREAM), OutOf(self.path(layout.embed)))
        for i, block in enumerate(self.blocks()):
            for name in (n for n in ORDER if n in layout.sites):
                yield Sited(Site(f"{name}.{i}", AXES[name]), layout.sites[name](block))
        if layout.final_norm is not None and self.has(self.path(layout.final_norm)):
            yield Sited(Site("final_norm", STREAM), OutOf(self.path(layout.final_norm)))
        if self.headed or self.prefix == "":
            yield Sited(Site("logits", layout.logits_axes if self.headed else "batch label"), OutOf("", "logits"))

    def lacking(self) -> Iterator[tuple[str, str]]:
        """Names that are refused, each with the reason."""
        for name, reason in self.layout.lacking.items():
            if name in ORDER:
                yield from ((f"{name}.{i}", reason) for i, _ in enumerate(self.blocks()))
            else:
                yield name, reason
        if self.prefix:
            yield "logits", "this is the bare model, without the head that makes logits"

    def equations(self) -> Iterator[Equation]:
        """What must hold, in full names."""
        blocks = list(self.blocks())
        for i, block in enumerate(blocks):
            for e in self.layout.equations:
                yield Equation(f"{e.target}.{i}", tuple(f"{s}.{i}" for s in e.sources), tuple(map(block.at, e.through)))
            if i:
                yield Equation(f"resid_pre.{i}", (f"resid_post.{i - 1}",))
        if self.headed:
            yield from self.ends(len(blocks) - 1)

    def ends(self, last: int) -> Iterator[Equation]:
        """What must hold between the last layer and the logits."""
        layout = self.layout
        cap = getattr(self.config, "final_logit_softcapping", None)
        read = f"resid_post.{last}" if layout.final_norm is None else "final_norm"
        yield Equation("logits", (read,), layout.unembed, cap, layout.reads_position)
        if layout.final_norm is not None and layout.final_norm.startswith(layout.layers.rpartition(".")[0]):
            yield Equation("final_norm", (f"resid_post.{last}",), (layout.final_norm,))
