"""A GPT-2 of any shape whose weights were drawn and never learned: for timing, where no figure depends on them."""

from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from microtome.models.hooked import HookedModel
from microtome.models.load import load


def random_gpt2(
    layers: int, heads: int, d: int, inner: int, vocab: int, positions: int, *, seed: int = 0
) -> HookedModel:
    """A network of `heads` heads a layer, d wide, with an MLP `inner` wide; it takes no gradient of its weights."""
    config = GPT2Config(
        n_layer=layers, n_head=heads, n_embd=d, n_inner=inner, vocab_size=vocab, n_positions=positions,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module: Any = GPT2LMHeadModel(config)
    return load(module.eval().requires_grad_(False))
