"""Queries, keys, values, scores and patterns, from inside any attention that transformers dispatches by name.

transformers looks attention up by `config._attn_implementation`. While a run asks for one of these sites the name is
ours: the function below shows q, k and v to their visitors and hands on to the model's own kernel; where scores or the
pattern are asked for it computes them as the eager kernel does. No model is rewritten, and nothing stays behind.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from microtome.models.adapter import Place, Remove, Visit

NAME = "microtome"
ROLES = ("q", "k", "v", "scores", "pattern")
EAGER = ("scores", "pattern")  # only the eager kernel has them as tensors

_visits: dict[nn.Module, dict[str, Visit]] = {}
_native: dict[int, str] = {}  # id(config) -> the implementation the model was loaded with


@dataclass(frozen=True)
class Attended(Place):
    """A tensor inside attention: q, k, v as (batch, pos, head, d), scores and pattern as (batch, head, query, key)."""

    path: str
    role: str

    def attach(self, root: nn.Module, visit: Visit) -> Remove:
        module = root.get_submodule(self.path)
        _visits.setdefault(module, {})[self.role] = visit

        def remove() -> None:
            _visits[module].pop(self.role)
            if not _visits[module]:
                del _visits[module]

        return remove


@contextmanager
def attending(root: nn.Module, roles: set[str]) -> Iterator[None]:
    """For the length of the block, attention passes through here: eager if scores or patterns were asked for."""
    configs = {id(m.config): m.config for m in root.modules() if hasattr(getattr(m, "config", None), "_attn_implementation")}
    before = {key: config._attn_implementation for key, config in configs.items()}
    eager = bool(roles & set(EAGER))
    for key, config in configs.items():
        _native[key] = "eager" if eager else before[key] or "eager"
        AttentionMaskInterface.register(NAME, ALL_MASK_ATTENTION_FUNCTIONS[_native[key]])
        config._attn_implementation_internal = NAME
    try:
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation_internal = before[key]
            _native.pop(key, None)


def attend(module: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, **settings: Any) -> tuple:
    """The attention function that transformers calls: q (batch, head, pos, d), k and v with their own number of heads."""
    visits = _visits.get(module, {})
    q, k, v = (shown(x, visits.get(role)) for role, x in (("q", q), ("k", k), ("v", v)))
    native = _native[id(module.config)]
    if native == "eager":
        return eager(module, q, k, v, mask, visits, **settings)
    return ALL_ATTENTION_FUNCTIONS[native](module, q, k, v, mask, **settings)


def shown(x: Tensor, visit: Visit | None) -> Tensor:
    return x if visit is None else visit(x.transpose(1, 2)).transpose(1, 2)


def eager(
    module: nn.Module,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    visits: dict[str, Callable],
    scaling: float | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """softmax(softcap(q k^T scale) + mask) v, in the order of operations of transformers' eager kernels."""
    groups = q.shape[1] // k.shape[1]
    if groups > 1:
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = torch.matmul(q, k.transpose(2, 3))
    scores = scores * (q.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if mask is not None:
        scores = scores + mask[:, :, :, : k.shape[-2]]
    scores = visits.get("scores", unchanged)(scores)
    pattern = torch.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype)
    pattern = visits.get("pattern", unchanged)(pattern)
    return torch.matmul(pattern, v).transpose(1, 2).contiguous(), pattern


def unchanged(x: Tensor) -> Tensor:
    return x


AttentionInterface.register(NAME, attend)
