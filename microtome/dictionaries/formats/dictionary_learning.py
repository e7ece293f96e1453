"""dictionary_learning: config.json beside ae.pt, a pickle; the class that is named there says what the tensors mean.

https://github.com/saprmarks/dictionary_learning
"""

# ruff: noqa: N806  (weights are named as papers and files name them)

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from microtome.core.component import Dictionary
from microtome.core.errors import Refusal
from microtome.core.site import Site
from microtome.dictionaries.activation_functions import Activation, BatchTopK, Gated, JumpReLU, ReLU, TopK
from microtome.dictionaries.formats.format import Format, Published, Source, write_json
from microtome.dictionaries.formats.plain import (
    Plain,
    batch_top_k,
    gated,
    jump_relu,
    magnitude_bias,
    numbers,
    plain,
    refuse_transcoder,
    refuse_units,
)
from microtome.dictionaries.formats.sites import kind_and_layer
from microtome.dictionaries.formats.tensor_files import write_pickle

CONFIG, WEIGHTS = "config.json", "ae.pt"
KINDS = {
    "resid_post": "resid_post", "resid_pre": "resid_pre", "resid_mid": "resid_mid", "attention_out": "attn_out",
    "attn_out": "attn_out", "mlp_out": "mlp_out", "mlp_in": "mlp_in",
}  # fmt: skip


class Numbers(NamedTuple):
    """Weights as (n, d) and biases, and whether the decoder's bias is taken from the input."""

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor
    activation: Activation
    subtracts: bool


class DictionaryLearning(Format):
    """ae.pt and config.json."""

    name, owner = "dictionary_learning", "dictionary_learning"

    def why_not(self, source: Source) -> str | None:
        lacking = source.lacks(CONFIG, WEIGHTS)
        if lacking is None and "dict_class" not in trainer(source):
            return "its config.json names no trainer with a dict_class"
        return lacking

    def load(self, source: Source) -> Published:
        about = trainer(source)
        kind = about["dict_class"]
        if kind not in READ:
            raise Refusal(f"{source.path} is a {kind} of dictionary_learning; this version reads {', '.join(READ)}")
        found = source.tensors(WEIGHTS)
        if "ae" in found:
            raise Refusal(
                f"{source.path / WEIGHTS} is a backup made in the middle of a training, its activations still scaled; "
                "finish the training, or take a file of its folder checkpoints/"
            )
        read = READ[kind](found, about)
        here = source.place(named(about))
        what = Plain(here, here, *read)
        claims = {"d_in": about.get("activation_dim"), "width": about.get("dict_size")}
        given = {name: value for name, value in claims.items() if value is not None}
        return Published([what.dictionary()], read.subtracts, given)

    def write_one(self, dictionary: Dictionary, folder: Path) -> None:
        what = plain(dictionary)
        refuse_transcoder(what, "dictionary_learning")
        refuse_units(what, "dictionary_learning")
        kind, tensors, settings = written(what)
        kind_of_site, layer = kind_and_layer(what.reads)
        about = {
            "trainer_class": "Microtome", "dict_class": kind, "activation_dim": what.W_enc.shape[1],
            "dict_size": what.width, "layer": layer,
            "submodule_name": what.reads.name if layer is None else f"{kind_of_site}_layer_{layer}", **settings,
        }  # fmt: skip
        write_pickle(tensors, folder / WEIGHTS)
        write_json({"trainer": about, "buffer": {"io": "out", "d_submodule": what.W_enc.shape[1]}}, folder / CONFIG)


def trainer(source: Source) -> dict[str, Any]:
    found = source.json(CONFIG).get("trainer")
    return found if isinstance(found, dict) else {}


def named(about: dict[str, Any]) -> str | None:
    """The site that a training was at: `resid_post_layer_8`, or a module's path."""
    name = str(about.get("submodule_name") or "")
    layered = re.fullmatch(r"(\w+)_layer_(\d+)", name)
    if layered and layered[1] in KINDS:
        return f"{KINDS[layered[1]]}.{layered[2]}"
    return Site(name).name if "." in name or name == "embed" else None


# ---------------------------------------------------------------- a class each: what its tensors mean


def plain_autoencoder(found: dict[str, Tensor], about: dict[str, Any]) -> Numbers:
    """Its rows are made unit when the library loads it, and the encoder as much longer."""
    W_enc, b_enc, W_dec, b_dec = numbers(found, "encoder.weight", "encoder.bias", "decoder.weight", "bias")
    lengths = W_dec.norm(dim=0)
    if not torch.allclose(lengths, torch.ones_like(lengths)):
        W_enc, b_enc, W_dec = W_enc * lengths[:, None], b_enc * lengths, W_dec / lengths
    return Numbers(W_enc, b_enc, W_dec.T.contiguous(), b_dec, ReLU(), True)


def new_autoencoder(found: dict[str, Tensor], about: dict[str, Any]) -> Numbers:
    W_enc, b_enc, W_dec, b_dec = numbers(found, "encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias")
    return Numbers(W_enc, b_enc, W_dec.T.contiguous(), b_dec, ReLU(), False)


def gated_autoencoder(found: dict[str, Tensor], about: dict[str, Any]) -> Numbers:
    W_enc, W_dec, b_dec = numbers(found, "encoder.weight", "decoder.weight", "decoder_bias")
    r, b_mag, b_gate = numbers(found, "r_mag", "mag_bias", "gate_bias")
    return Numbers(W_enc, b_gate, W_dec.T.contiguous(), b_dec, gated(r, b_mag, b_gate), True)


def top_k(found: dict[str, Tensor], about: dict[str, Any]) -> Numbers:
    W_enc, b_enc, W_dec, b_dec = numbers(found, "encoder.weight", "encoder.bias", "decoder.weight", "b_dec")
    return Numbers(W_enc, b_enc, W_dec.T.contiguous(), b_dec, TopK(k_of(found, about)), True)


def batch_top_k_sae(found: dict[str, Tensor], about: dict[str, Any]) -> Numbers:
    read = top_k(found, about)
    return read._replace(activation=batch_top_k(k_of(found, about), numbers(found, "threshold")[0].item()))


def matryoshka(found: dict[str, Tensor], about: dict[str, Any]) -> Numbers:
    W_enc, b_enc, W_dec, b_dec = numbers(found, "W_enc", "b_enc", "W_dec", "b_dec")
    activation = batch_top_k(k_of(found, about), numbers(found, "threshold")[0].item())
    return Numbers(W_enc.T.contiguous(), b_enc, W_dec, b_dec, activation, True)


def jump_relu_autoencoder(found: dict[str, Tensor], about: dict[str, Any]) -> Numbers:
    W_enc, b_enc, W_dec, b_dec = numbers(found, "W_enc", "b_enc", "W_dec", "b_dec")
    return Numbers(W_enc.T.contiguous(), b_enc, W_dec, b_dec, jump_relu(numbers(found, "threshold")[0]), False)


def k_of(found: dict[str, Tensor], about: dict[str, Any]) -> int:
    return int(numbers(found, "k")[0].item()) if "k" in found else int(about["k"])


READ: dict[str, Callable[[dict[str, Tensor], dict[str, Any]], Numbers]] = {
    "AutoEncoder": plain_autoencoder, "AutoEncoderNew": new_autoencoder, "GatedAutoEncoder": gated_autoencoder,
    "AutoEncoderTopK": top_k, "BatchTopKSAE": batch_top_k_sae, "MatryoshkaBatchTopKSAE": matryoshka,
    "JumpReluAutoEncoder": jump_relu_autoencoder,
}  # fmt: skip


def written(what: Plain) -> tuple[str, dict[str, Tensor], dict[str, Any]]:
    """(class, tensors, settings). ReLU over rows that are not unit is the class that leaves them as they are."""
    linear = {"encoder.weight": what.W_enc, "encoder.bias": what.b_enc, "decoder.weight": what.W_dec.T}
    match what.activation:
        case Gated() as gate:
            tensors = {
                "encoder.weight": what.W_enc, "decoder.weight": what.W_dec.T, "decoder_bias": what.b_dec,
                "r_mag": gate.r.detach(), "gate_bias": what.b_enc, "mag_bias": magnitude_bias(gate, what.b_enc),
            }  # fmt: skip
            return "GatedAutoEncoder", tensors, {}
        case TopK(k=k):
            unset = {"k": torch.tensor(k), "threshold": torch.tensor(-1.0)}
            return "AutoEncoderTopK", linear | unset | {"b_dec": what.b_dec}, {"k": k}
        case BatchTopK(k=k) as batch:
            kept = {"k": torch.tensor(k), "threshold": batch.threshold.float()}
            return "BatchTopKSAE", linear | kept | {"b_dec": what.b_dec}, {"k": k}
        case JumpReLU() as jump:
            free = what.subtracting(False)
            tensors = {
                "W_enc": free.W_enc.T, "b_enc": free.b_enc, "W_dec": free.W_dec, "b_dec": free.b_dec,
                "threshold": jump.thresholds.detach(),
            }  # fmt: skip
            return "JumpReluAutoEncoder", tensors, {}
        case ReLU() if torch.allclose(what.W_dec.norm(dim=1), torch.ones(what.width)):
            return "AutoEncoder", linear | {"bias": what.b_dec}, {}
        case ReLU():
            free = what.subtracting(False)
            return "AutoEncoderNew", linear | {"encoder.bias": free.b_enc, "decoder.bias": what.b_dec}, {}
        case other:
            raise Refusal(f"dictionary_learning has no place for {type(other).__name__}; --to saelens may have one")
