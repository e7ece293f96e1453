"""Small random dictionaries for any model: what a graph takes, without a fit."""

import torch
from torch import Tensor

from microtome.core.inputs import Tokens
from microtome.dictionaries.activation_functions import ReLU
from microtome.dictionaries.cross_layer import CrossLayerTranscoder
from microtome.dictionaries.sae import SAE
from microtome.dictionaries.transcoder import Transcoder
from microtome.models.hooked import HookedModel

WIDTH = 20
PROMPT = [5, 6, 7, 8, 9, 10, 11]


def prompt() -> Tokens:
    return Tokens.of([PROMPT])


def drawn() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def jolted(dictionary: torch.nn.Module, seed: int) -> None:
    """Every parameter counts: biases and skip connections too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in dictionary.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    dictionary.requires_grad_(False)


def width_of(model: HookedModel) -> int:
    return model.run(prompt(), read=["mlp_in.0"])["mlp_in.0"].shape[-1]


def layers_of(model: HookedModel) -> list[int]:
    return [s.layer or 0 for s in model.sites("mlp_out.*")]


def transcoders(model: HookedModel, *, skip: bool = False) -> list[Transcoder]:
    d = width_of(model)
    made = [
        Transcoder(
            model.site(f"mlp_in.{l}"), model.site(f"mlp_out.{l}"), d, d, WIDTH, ReLU(), skip=skip, generator=drawn()
        )
        for l in layers_of(model)
    ]
    for seed, dictionary in enumerate(made):
        jolted(dictionary, seed)
    return made


def cross_layer(model: HookedModel) -> CrossLayerTranscoder:
    reads, writes = ([model.site(f"{name}.{l}") for l in layers_of(model)] for name in ("mlp_in", "mlp_out"))
    made = CrossLayerTranscoder(reads, writes, width_of(model), WIDTH, ReLU, generator=drawn())
    jolted(made, 0)
    return made


def autoencoders(model: HookedModel, name: str = "resid_post") -> list[SAE]:
    made = [SAE(model.site(f"{name}.{l}"), width_of(model), WIDTH, ReLU(), generator=drawn()) for l in layers_of(model)]
    for seed, dictionary in enumerate(made):
        jolted(dictionary, seed)
    return made


def relative(found: Tensor, wanted: Tensor) -> float:
    """The largest difference over the largest that was wanted."""
    found, wanted = found.detach(), wanted.detach()
    return float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-12))
