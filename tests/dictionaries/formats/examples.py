"""Small dictionaries of every kind, with numbers everywhere: no bias is zero, no row has length one."""

import torch
from torch import Tensor

from microtome.core.component import Dictionary
from microtome.core.site import Site
from microtome.dictionaries.activation_functions import (
    AbsTopK,
    Activation,
    BatchTopK,
    Gated,
    JumpReLU,
    ReLU,
    TopK,
)
from microtome.dictionaries.constraints import Free
from microtome.dictionaries.cross_layer import CrossLayerTranscoder
from microtome.dictionaries.crosscoder import Crosscoder
from microtome.dictionaries.normalisation import LayerNorm, Normalisation, UnitMeanSquare, UnitNorm, Whitening
from microtome.dictionaries.sae import SAE
from microtome.dictionaries.transcoder import Transcoder

D, OUT, N, K = 6, 5, 14, 3


def rows(d: int = D, n: int = 40) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(n, d, generator=generator) @ torch.randn(d, d, generator=generator) + torch.linspace(-2, 2, d)


def shaken(dictionary: Dictionary) -> Dictionary:
    """Every parameter moved, so that nothing is by chance zero, unit or tied."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in dictionary.named_parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.4)
            if "threshold" in name:
                parameter.abs_()
        for name, buffer in dictionary.named_buffers():
            if name.endswith("threshold"):
                buffer.fill_(0.3)
    return dictionary.requires_grad_(False)


def activations() -> dict[str, Activation]:
    return {
        "relu": ReLU(), "topk": TopK(K), "abstopk": AbsTopK(K), "batchtopk": BatchTopK(K), "jumprelu": JumpReLU(N),
        "gated": Gated(N),
    }  # fmt: skip


def units(name: str) -> Normalisation | None:
    return {
        "none": lambda: None, "unit_mean_square": lambda: UnitMeanSquare.of(rows()), "whitening": lambda:
        Whitening.of(rows()), "layer_norm": lambda: LayerNorm(D), "unit_norm": lambda: UnitNorm(D),
    }[name]()  # fmt: skip


def sae(activation: str, normalisation: str = "unit_mean_square", site: str = "resid_post.3") -> SAE:
    return shaken(SAE(Site(site), D, N, activations()[activation], units(normalisation), Free()))


def transcoder(activation: str, *, skip: bool = False, layer: int = 2, d_out: int = D) -> Transcoder:
    ins, outs = UnitMeanSquare.of(rows()), UnitMeanSquare.of(rows(d_out) * 3)
    return shaken(
        Transcoder(
            Site(f"mlp_in.{layer}"), Site(f"mlp_out.{layer}"), D, d_out, N, activations()[activation], ins, outs,
            Free(), skip=skip,
        )
    )  # fmt: skip


def cross_layer(activation: str = "jumprelu", layers: int = 3) -> CrossLayerTranscoder:
    ins = [UnitMeanSquare.of(rows() * (i + 1)) for i in range(layers)]
    outs = [UnitMeanSquare.of(rows() / (i + 1)) for i in range(layers)]
    reads, writes = ([Site(f"{kind}.{i}") for i in range(layers)] for kind in ("mlp_in", "mlp_out"))
    return shaken(CrossLayerTranscoder(reads, writes, D, N, lambda: activations()[activation], ins, outs, Free()))


def crosscoder(activation: str = "batchtopk") -> Crosscoder:
    sites = [Site("resid_post.0"), Site("resid_post.1")]
    return shaken(
        Crosscoder(sites, D, N, activations()[activation], [UnitMeanSquare.of(rows()), Whitening.of(rows())], Free())
    )


def inputs(dictionary: Dictionary) -> Tensor:
    x = rows()
    return x if len(dictionary.reads) == 1 else torch.stack([x * (1 + i) for i in range(len(dictionary.reads))])


def assert_same(one: Dictionary, other: Dictionary, tolerance: float = 1e-6) -> None:
    """Same sites, same codes, same reconstruction, relative to their size."""
    assert one.reads == other.reads and one.writes == other.writes
    x = inputs(one).double()
    one, other = one.double(), other.double()
    for a, b in (
        (one.encode(x).dense(), other.encode(x).dense()),
        (one.reconstruct(x), other.reconstruct(x)),
        (one.directions().write, other.directions().write),
    ):
        assert (a - b).norm() <= tolerance * a.norm()
