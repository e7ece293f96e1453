"""Queries, keys, values, scores and patterns, from inside any attention that transformers dispatches by name.

transformers looks attention up by `config._attn_implementation`. While a run asks for one of these sites the name is
ours: the function below shows q, k and v to their visitors and hands on to the model's own kernel; where scores or the
pattern are asked for it computes them as the eager kernel does. No model is rewritten, and nothing stays behind.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from microtome.core.errors import Refusal
from microtome.models.adapter import Place, Remove, Visit

PREFIX = "microtome_"  # then the name of the kernel that does the work
EAGER = ("scores", "pattern")  # only the eager kernel has them as tensors
FOREIGN = ("s_aux", "position_bias")  # settings of kernels whose scores hold more than queries, keys and a mask

_visits: dict[nn.Module, dict[str, Visit]] = {}


@dataclass(frozen=True)
class Attended(Place):
    """A tensor inside attention: q, k, v as (batch, pos, head, d), scores and pattern as (batch, head, query, key)."""

    path: str
    role: str

    @property
    def looks_back(self) -> bool:
        return self.role != "q"

    def attach(self, root: nn.Module, visit: Visit) -> Remove:
        module = root.get_submodule(self.path)
        before = _visits.get(module)
        _visits[module] = {**(before or {}), self.role: visit}
        return partial(restore, module, before)


def restore(module: nn.Module, before: dict[str, Visit] | None) -> None:
    """The visitors that a module had before."""
    if before is None:
        del _visits[module]
    else:
        _visits[module] = before


@contextmanager
def kernels(root: nn.Module, chosen: Callable[[str], str]) -> Iterator[None]:
    """For the length of the block, every attention runs on the kernel that is chosen in place of its own, by name."""
    before = [(config, config._attn_implementation) for config in attention_configs(root)]
    try:
        for config, name in before:
            config._attn_implementation_internal = chosen(name or "eager")
        yield
    finally:
        for config, name in before:
            config._attn_implementation_internal = name


def attending(root: nn.Module, roles: set[str]) -> AbstractContextManager[None]:
    """For the length of a block, attention passes through here: eager if scores or patterns were asked for."""
    eager_asked = bool(roles & set(EAGER))
    return kernels(root, lambda name: registered("eager" if eager_asked else name.removeprefix(PREFIX)))


def attention_configs(root: nn.Module) -> list[Any]:
    """The settings in which the modules below `root` look up their kernel, each once."""
    configs = {id(m.__dict__["config"]): m.__dict__["config"] for m in root.modules() if "config" in m.__dict__}
    return [c for c in configs.values() if hasattr(c, "_attn_implementation")]


@cache
def registered(native: str) -> str:
    """The name under which transformers finds `attend` over this kernel, with this kernel's masks."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    name = PREFIX + native
    AttentionInterface.register(name, partial(attend, eager if native == "eager" else ALL_ATTENTION_FUNCTIONS[native]))
    if native in ALL_MASK_ATTENTION_FUNCTIONS:
        AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[native])
    return name


def attend(kernel: Any, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: Any, **settings: Any) -> tuple:
    """What transformers calls for attention: q (batch, head, pos, d), k and v with their own number of heads."""
    visits = _visits.get(module)
    if visits is None:
        return kernel(module, q, k, v, mask, **settings)
    q, k, v = (shown(x, visits.get(role)) for role, x in (("q", q), ("k", k), ("v", v)))
    shows = {role: visits[role] for role in EAGER if role in visits}
    return kernel(module, q, k, v, mask, **settings, **shows)


def shown(x: Tensor, visit: Visit | None) -> Tensor:
    """What goes on once a visitor has seen this, in the kernel's order of axes; to it positions come before heads."""
    if visit is None:
        return x
    by_position = x.transpose(1, 2)
    new = visit(by_position)
    return x if new is by_position and not new.requires_grad else new.transpose(1, 2)


def eager(
    module: nn.Module,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    scores: Visit | None = None,
    pattern: Visit | None = None,
    **settings: Any,
) -> tuple[Tensor, Tensor]:
    """softmax(softcap(q k^T scale) + mask) v, in the order of operations of transformers' eager kernels."""
    foreign = [name for name in FOREIGN if settings.get(name) is not None]
    if foreign:
        raise Refusal(
            f"this attention adds {foreign[0]!r} to its scores, which is not known here; read q, k, v or z instead"
        )
    groups = q.shape[1] // k.shape[1]
    if groups > 1:
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    weights = torch.matmul(q, k.transpose(2, 3)) * (q.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        weights = torch.tanh(weights / softcap) * softcap
    if mask is not None:
        weights = weights + mask
    weights = weights if scores is None else scores(weights)
    weights = torch.softmax(weights, dim=-1, dtype=torch.float32).to(q.dtype)
    weights = weights if pattern is None else pattern(weights)
    return torch.matmul(weights, v).transpose(1, 2).contiguous(), weights
