"""A small random model of every family: two layers, grouped keys and head widths that are not d / heads where it has them."""

from functools import cache
from typing import Any

import torch
import transformers
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageClassification, AutoModelForMaskedLM

from microtome.core.inputs import Arrays, Inputs, Tokens
from microtome.models.hooked import HookedModel
from microtome.models.load import load

transformers.logging.set_verbosity_error()

COMMON: dict[str, Any] = dict(
    vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2,
)  # fmt: skip
GPT2: dict[str, Any] = dict(
    vocab_size=96, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=2
)
OPT: dict[str, Any] = dict(COMMON, ffn_dim=48, word_embed_proj_dim=32)
GROUPED = dict(COMMON, num_key_value_heads=2)
WIDE = dict(GROUPED, head_dim=12)
GEMMA = dict(WIDE, sliding_window=4, query_pre_attn_scalar=12)

CONFIGS: dict[str, dict[str, Any]] = {
    "bert": COMMON,
    "bloom": dict(vocab_size=96, hidden_size=32, n_layer=2, n_head=4),
    "gemma2": GEMMA,
    "gemma3_text": GEMMA,
    "gpt2": GPT2,
    "gpt_neo": dict(COMMON, num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]], window_size=3),
    "gpt_neox": COMMON,
    "gpt_neox/sequential": dict(COMMON, use_parallel_residual=False),
    "gptj": dict(GPT2, rotary_dim=4),
    "llama": WIDE,
    "mistral": dict(WIDE, sliding_window=4),
    "mixtral": dict(WIDE, num_local_experts=4, num_experts_per_tok=2),
    "olmo": GROUPED,
    "olmo2": GROUPED,
    "opt": OPT,
    "opt/post-norm": dict(OPT, word_embed_proj_dim=16, do_layer_norm_before=False),
    "phi": COMMON,
    "phi3": GROUPED,
    "qwen2": GROUPED,
    "qwen3": WIDE,
    "starcoder2": GROUPED,
    "vit": dict(COMMON, image_size=8, patch_size=4, num_labels=5),
}
NAMES = sorted(CONFIGS)
SAYING = [name for name in NAMES if name not in ("bert", "vit")]
AUTOS = {"bert": AutoModelForMaskedLM, "vit": AutoModelForImageClassification}
RAGGED = [[5, 6, 7, 8, 9, 10, 11], [12, 13, 14], [15, 16, 17, 18, 19]]


def module(name: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    return made(name, dtype)


def model(name: str, dtype: torch.dtype = torch.float32) -> HookedModel:
    return hooked(name, dtype)


@cache
def made(name: str, dtype: torch.dtype) -> nn.Module:
    """A random model whose every parameter counts: biases and norms too are moved off their starting values."""
    kind = name.partition("/")[0]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        fresh = AUTOS.get(kind, AutoModelForCausalLM).from_config(AutoConfig.for_model(kind, **CONFIGS[name]))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.copy_(parameter.mean() + 0.1 * torch.randn(parameter.shape, generator=generator))
    return fresh.to(dtype).eval()


@cache
def hooked(name: str, dtype: torch.dtype) -> HookedModel:
    return load(made(name, dtype))


def batch(name: str, *, ragged: bool = False, left: bool = False) -> Inputs:
    if name == "vit":
        return Arrays((torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)),))
    return Tokens.of(RAGGED if ragged else [row[:3] + [20, 21, 22] for row in RAGGED], left=left)


class Convolutions(nn.Sequential):
    """A small network for pictures."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 16, 5)
        )
