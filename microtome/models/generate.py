"""What a model says next, while edits hold.

Positions stay absolute: position 3 is the prompt's fourth token with and without a key-value cache, -1 its last one,
however much has been said since, and `slice(-1, None)` that one and all that follow.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from microtome.core.edit import Edit
from microtome.core.errors import Refusal
from microtome.core.inputs import Inputs, Tokens, with_start
from microtome.models.hooked import HookedModel, Visitor


@torch.no_grad()
def generate(
    model: HookedModel,
    inputs: Inputs,
    *,
    tokens: int = 20,
    edit: Sequence[Edit] = (),
    cache: bool = True,
    temperature: float = 0.0,
    stop: int | None = None,
    generator: torch.Generator | None = None,
) -> Tokens:
    """The rows of `inputs`, each followed by up to `tokens` new tokens; padding stays on its side.

    `temperature` 0 takes the likeliest token, otherwise one is drawn with `generator`. A row ends with the token
    `stop`, where one is given. The cache changes the speed, never a number beyond rounding: where an edit looks at
    keys, values, scores or patterns, whose past a cache would hide, it is left out. Raises Refusal where the inputs
    are not tokens, and SiteNeverFired where an edit never met a position.
    """
    if not isinstance(inputs, Tokens):
        raise Refusal(f"generate continues rows of tokens, not {type(inputs).__name__}")
    if tokens < 1 or temperature < 0:
        raise Refusal(
            f"tokens={tokens}, temperature={temperature}: generate at least one token, at a temperature of 0 or more"
        )
    said = Said(model, inputs, edit, cache and not any(looks_back(model, e) for e in edit))
    for _ in range(tokens):
        said.add(choose(said.logits(), temperature, generator), stop)
        if not said.going.any():
            break
    said.visitor.refuse_untouched()
    return said.as_given()


def choose(
    logits: Float[Tensor, "batch vocab"], temperature: float, generator: torch.Generator | None
) -> Int[Tensor, "batch"]:
    """The likeliest token of each row, or one drawn at a temperature above 0."""
    if temperature == 0:
        return logits.argmax(-1)
    return torch.multinomial((logits.float() / temperature).softmax(-1), 1, generator=generator)[:, 0]


def looks_back(model: HookedModel, edit: Edit) -> bool:
    """Whether the edit is at a place which, under a cache, also holds what was there before."""
    sited = [model.locate(s.name) for s in (edit.site, *edit.needs)]
    return any(s.place.looks_back or "key" in s.site.axes.split() for s in sited)


@dataclass
class Said:
    """The text so far, padded to the left, so that every row's next token stands in the same column."""

    model: HookedModel
    given: Tokens
    edit: Sequence[Edit]
    cached: bool
    past: Any = None
    going: Bool[Tensor, "batch"] = field(init=False)

    def __post_init__(self) -> None:
        rows = [ids[mask].tolist() for ids, mask in zip(self.given.ids, self.given.mask, strict=True)]
        self.so_far = Tokens.of(rows, left=True).to(self.given.ids.device)
        self.anchor = self.so_far.lengths
        self.going = torch.ones_like(self.anchor, dtype=torch.bool)
        self.visitor = Visitor(self.model, [], self.edit, [], stops=False)
        self.seen = 0  # columns that the cache holds

    def logits(self) -> Float[Tensor, "batch vocab"]:
        """Of the next token: one pass over the columns that are not in the cache."""
        before = self.so_far.mask[:, : self.seen].sum(1)
        chunk = with_start(
            Tokens(self.so_far.ids[:, self.seen :], self.so_far.mask[:, self.seen :]), before, self.anchor
        )
        out = self.visitor.forward(chunk, self._cached_call(chunk) if self.cached else chunk.call)
        self.visitor.refuse_unseen()
        if self.cached:
            self.seen = self.so_far.ids.shape[1]
        return out.logits[:, -1]

    def _cached_call(self, chunk: Tokens) -> Any:
        if self.past is None:
            from transformers import DynamicCache

            config: Any = self.model.module.config
            self.past = DynamicCache(config=config)
        mask = None if self.so_far.mask.all() else self.so_far.mask.long()
        positions = {} if mask is None else {"position_ids": chunk.positions.clamp(min=0)}

        def call(module: nn.Module) -> object:
            return module(
                input_ids=chunk.ids, attention_mask=mask, past_key_values=self.past, use_cache=True, **positions
            )

        return call

    def add(self, ids: Int[Tensor, "batch"], stop: int | None) -> None:
        """One more column; rows that have ended get padding."""
        ids = torch.where(self.going, ids, 0)
        self.so_far = Tokens(
            torch.cat((self.so_far.ids, ids[:, None]), 1), torch.cat((self.so_far.mask, self.going[:, None]), 1)
        )
        if stop is not None:
            self.going = self.going & (ids != stop)

    def as_given(self) -> Tokens:
        """The tokens so far, padded on the side on which the prompts were."""
        left = bool((~self.given.mask[:, 0]).any())
        rows = [ids[mask].tolist() for ids, mask in zip(self.so_far.ids, self.so_far.mask, strict=True)]
        return Tokens.of(rows, left=left).to(self.given.ids.device)
