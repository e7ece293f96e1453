"""A forward pass over the last columns only: what earlier tokens were to attention is known from a run without edits.

In a network that looks back and never ahead, an edit at one position leaves all before it as they were. Their keys and
values are taken once, from the model's own cache, and shared by all copies of the batch.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from microtome.core.edit import Edit
from microtome.core.inputs import Inputs, Tokens, with_start
from microtome.core.measure import LOGITS
from microtome.core.site import Site
from microtome.core.trace import Trace
from microtome.models.hooked import HookedModel
from microtome.models.resuming import resume
from microtome.models.verify import TOLERANCES


class Shared(DynamicLayer):
    """Keys and values of one layer in a known run, put before those of each copy; nothing is ever added to them."""

    def __init__(self, known: Any, copies: int, column: int) -> None:
        super().__init__()
        self.lazy_initialization(known.keys, known.values)
        self.keys, self.values, self.copies = known.keys[..., :column, :], known.values[..., :column, :], copies

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Keys and values of this layer, those of the remembered columns first."""
        return self._before(self.keys, key_states), self._before(self.values, value_states)

    def _before(self, known: Any, new: Tensor) -> Tensor:
        return torch.cat((known.repeat(self.copies, 1, 1, 1), new), -2)


@dataclass(frozen=True, eq=False)
class Remembered:
    """See `core.model.Memory`."""

    model: HookedModel
    inputs: Tokens
    layers: list[Any]

    def resume(
        self,
        copies: int,
        layer: int,
        stream: Tensor | None,
        column: int,
        *,
        read: Iterable[Site],
        edit: Sequence[Edit] = (),
    ) -> Trace:
        past = Cache(layers=[Shared(known, copies, column) for known in self.layers])
        chunk = self.since(column).repeat(copies)
        mask = None if self.inputs.mask.all() else self.inputs.mask.repeat(copies, 1)
        call = partial(cached_call, chunk, past, mask)
        return resume(self.model, chunk, layer, stream, read=list(read), edit=edit, call=call)

    def since(self, column: int) -> Tokens:
        """The columns from here on, which still know their positions."""
        ids, mask = self.inputs.ids[:, column:], self.inputs.mask[:, column:]
        return with_start(Tokens(ids, mask), self.inputs.mask[:, :column].sum(1), self.inputs.lengths)


def cached_call(chunk: Tokens, past: Cache, mask: Bool[Tensor, "batch pos"] | None, module: nn.Module) -> object:
    """The module on these columns, after those that are known. `mask` is that of all columns, where any is padding."""
    padded: dict[str, Tensor] = {}
    if mask is not None:
        padded = {"attention_mask": mask.long(), "position_ids": chunk.positions.clamp(min=0)}
    return module(input_ids=chunk.ids, past_key_values=past, use_cache=True, **padded)


@torch.no_grad()
def remember(model: HookedModel, inputs: Inputs) -> Remembered | None:
    """See `core.model.Resumable.remember`. Whether a model's cache can be trusted is tried once, on a first batch."""
    if not isinstance(inputs, Tokens) or inputs.start is not None or not caches(model.module):
        return None
    if model.remembers is False or inputs.ids.shape[1] < 2:
        return None
    found = Remembered(model, inputs, known_layers(model, inputs))
    if model.remembers is None:
        model.remembers = holds(found)
    return found if model.remembers else None


def caches(module: nn.Module) -> bool:
    """Whether a module takes a key-value cache."""
    return hasattr(module, "config") and "past_key_values" in signature(module.forward).parameters


def known_layers(model: HookedModel, inputs: Tokens) -> list[Any]:
    """The cache that a plain pass over these inputs leaves."""
    past = DynamicCache()  # without the model's settings it keeps every position, also where a window slides
    with model.lock:
        cached_call(inputs, past, None if inputs.mask.all() else inputs.mask, model.module)
    return past.layers


def holds(found: Remembered) -> bool:
    """Whether the last columns alone end where a whole pass does."""
    column = found.inputs.ids.shape[1] // 2
    whole = found.model.resume(found.inputs, read=[LOGITS])[LOGITS][:, column:]
    last = found.resume(1, -1, None, column, read=[LOGITS])[LOGITS]
    real = found.inputs.mask[:, column:]
    off = (last - whole)[real].abs().max()
    return bool(off <= TOLERANCES.get(whole.dtype, 0.0) * whole[real].abs().max())
