"""Queries, keys, values, scores and patterns, from inside any attention that transformers dispatches by name.

transformers looks attention up by `config._attn_implementation`. While a run asks for one of these sites the name is
ours: the function below shows q, k and v to their visitors and hands on to the model's own kernel; where scores or the
pattern are asked for it computes them as the eager kernel does. No model is rewritten, and nothing stays behind.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from microtome.core.errors import Refusal
from microtome.models.adapter import Place, Remove, Visit

PREFIX = "microtome_"  # then the name of the kernel that does the work
EAGER = ("scores", "pattern")  # only the eager kernel has them as tensors
FOREIGN = ("s_aux", "position_bias")  # settings of kernels whose scores hold more than q, k and the mask

_visits: dict[nn.Module, dict[str, Visit]] = {}


@dataclass(frozen=True)
class Attended(Place):
    """A tensor inside attention: q, k, v as (batch, pos, head, d), scores and pattern as (batch, head, query, key)."""

    path: str
    role: str

    def attach(self, root: nn.Module, visit: Visit) -> Remove:
        module = root.get_submodule(self.path)
        before = _visits.get(module, {})
        _visits[module] = {**before, self.role: visit}

        def remove() -> None:
            left = {**_visits.pop(module), self.role: before.get(self.role)}
            kept = {role: visit for role, visit in left.items() if visit is not None}
            if kept:
                _visits[module] = kept

        return remove


@contextmanager
def attending(root: nn.Module, roles: set[str]) -> Iterator[None]:
    """For the length of the block, attention passes through here: eager if scores or patterns were asked for."""
    before = {config: config._attn_implementation for config in attention_configs(root)}
    eager = bool(roles & set(EAGER))
    try:
        for config, name in before.items():
            native = (name or "eager").removeprefix(PREFIX)
            config._attn_implementation_internal = registered("eager" if eager else native)
        yield
    finally:
        for config, name in before.items():
            config._attn_implementation_internal = name


def attention_configs(root: nn.Module) -> "list[Any]":
    """The settings that attention modules below `root` look their kernel up in, each once."""
    configs = {id(m.config): m.config for m in root.modules() if "config" in m.__dict__}
    return [Identified(c) for c in configs.values() if hasattr(c, "_attn_implementation")]


@cache
def registered(native: str) -> str:
    """The name under which transformers finds our function over this kernel, with this kernel's masks."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    name = PREFIX + native
    kernel = eager if native == "eager" else ALL_ATTENTION_FUNCTIONS[native]
    AttentionInterface.register(name, partial(attend, kernel))
    if native in ALL_MASK_ATTENTION_FUNCTIONS:
        AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[native])
    return name
