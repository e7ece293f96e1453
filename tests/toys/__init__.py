"""A network whose every weight is known: a residual stream, two ReLU layers, tokens that look back at those before."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from microtome.core.inputs import Tokens
from microtome.models.hooked import HookedModel
from microtome.models.load import load

VOCAB, WIDTH, NEURONS, LAYERS = 13, 8, 12, 2
RAGGED = [[3, 1, 4, 1, 5], [9, 2], [6, 5, 3, 5, 8, 9, 7]]
SQUARE = [[3, 1, 4, 1, 5], [9, 2, 6, 5, 3], [5, 8, 9, 7, 9]]


class Layer(nn.Module):
    """x + W_out relu(W_in x + b_in) + b_out"""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(WIDTH, NEURONS), nn.ReLU(), nn.Linear(NEURONS, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(x)


class Residual(nn.Module):
    """Tokens and their positions are embedded; each place adds the mean of the real ones up to it; then the layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(VOCAB, WIDTH), nn.Embedding(16, WIDTH)
        self.layers = nn.ModuleList([Layer() for _ in range(LAYERS)])
        self.unembed = nn.Linear(WIDTH, VOCAB)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        use_cache: bool = False,
    ) -> Tensor:
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        places = mask.cumsum(1) - 1 if position_ids is None else position_ids
        x = (self.embed(input_ids) + self.place(places.clamp(min=0))) * mask[..., None]
        x = x + x.cumsum(1) / mask.cumsum(1).clamp(min=1)[..., None]
        for layer in self.layers:
            x = layer(x)
        return self.unembed(x)


SITES = {
    "embed": ("embed", "out", "batch pos d"),
    **{f"resid_pre.{i}": (f"layers.{i}", "in", "batch pos d") for i in range(LAYERS)},
    **{f"mlp_in.{i}": (f"layers.{i}.mlp.0", "in", "batch pos d") for i in range(LAYERS)},
    **{f"mlp_act.{i}": (f"layers.{i}.mlp.2", "in", "batch pos neuron") for i in range(LAYERS)},
    **{f"mlp_out.{i}": (f"layers.{i}.mlp", "out", "batch pos d") for i in range(LAYERS)},
    **{f"resid_post.{i}": (f"layers.{i}", "out", "batch pos d") for i in range(LAYERS)},
    "logits": ("", "out", "batch pos vocab"),
}


def residual(dtype: torch.dtype = torch.float32) -> HookedModel:
    """The network with random weights, always the same."""
    module = Residual()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)
    return load(module.to(dtype).requires_grad_(False), sites=SITES)


def rows(ragged: bool = False, left: bool = False) -> Tokens:
    return Tokens.of(RAGGED if ragged else SQUARE, left=left)


def singly(given: Sequence[Sequence[int]]) -> list[Tokens]:
    return [Tokens.of([row]) for row in given]
