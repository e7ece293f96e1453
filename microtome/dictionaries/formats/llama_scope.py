"""Llama Scope: hyperparams.json and checkpoints/final.safetensors.  He et al. 2024, arXiv 2410.20526.

Activations are scaled to a mean norm of sqrt(d) before they are read, and what is written is scaled back; the one
threshold holds in those units, as in the library that trained them.
"""

# ruff: noqa: N806  (weights are named as papers and files name them)

from math import sqrt
from pathlib import Path

import torch

from microtome.core.component import Dictionary
from microtome.core.errors import Refusal
from microtome.core.hook_names import hook_name
from microtome.dictionaries.activation_functions import BatchTopK, JumpReLU, ReLU
from microtome.dictionaries.formats.format import Format, Published, Source, write_json
from microtome.dictionaries.formats.plain import Plain, jump_relu, numbers, plain, refuse_skip, refuse_units, thresholds
from microtome.dictionaries.formats.sites import site_of
from microtome.dictionaries.formats.tensor_files import write_safetensors
from microtome.dictionaries.normalisation import UnitMeanSquare

CONFIG, WEIGHTS = "hyperparams.json", "checkpoints/final.safetensors"


class LlamaScope(Format):
    """JumpReLU with one threshold for all latents; takes no bias from the input."""

    name, owner = "llama_scope", "Llama Scope"

    def why_not(self, source: Source) -> str | None:
        return source.lacks(CONFIG, WEIGHTS)

    def load(self, source: Source) -> Published:
        about, found = source.json(CONFIG), source.tensors(WEIGHTS)
        if about.get("act_fn", "jumprelu") not in ("jumprelu", "relu") or about.get("use_glu_encoder"):
            raise Refusal(
                f"{source.path} has the activation {about.get('act_fn')!r} (gated linear encoder: "
                f"{bool(about.get('use_glu_encoder'))}); JumpReLU is what this version reads of Llama Scope"
            )
        W_enc, b_enc, W_dec, b_dec = numbers(found, "encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias")
        reads = about.get("hook_point_in")
        here = source.place(reads)
        writes = about.get("hook_point_out") or reads
        there = site_of(writes) if writes and writes != reads else here
        norms = about.get("dataset_average_activation_norm") or {}
        threshold = torch.full((len(W_enc),), float(about.get("jump_relu_threshold") or 0.0))
        what = Plain(
            here, there, W_enc, b_enc, W_dec.T.contiguous(), b_dec, jump_relu(threshold),
            units=scaling(W_enc.shape[1], norms.get("in")),
            units_out=scaling(W_dec.shape[0], norms.get("out", norms.get("in"))),
        )  # fmt: skip
        claims = {"d_in": about.get("d_model", W_enc.shape[1]), "width": about.get("d_sae", len(W_enc))}
        return Published([what.dictionary()], False if what.is_autoencoder else None, claims)

    def write_one(self, dictionary: Dictionary, folder: Path) -> None:
        what = plain(dictionary)
        refuse_units(what, "Llama Scope")
        refuse_skip(what, "Llama Scope")
        free = what.subtracting(False)
        tensors = {
            "encoder.weight": free.W_enc, "encoder.bias": free.b_enc, "decoder.weight": free.W_dec.T,
            "decoder.bias": free.b_dec,
        }  # fmt: skip
        about = {
            "d_model": free.W_enc.shape[1], "d_sae": free.width, "act_fn": "jumprelu",
            "jump_relu_threshold": one_threshold(what), "use_decoder_bias": True, "apply_decoder_bias_to_pre_encoder":
            False, "norm_activation": "dataset-wise", "sparsity_include_decoder_norm": False,
            "dataset_average_activation_norm": {
                "in": sqrt(free.W_enc.shape[1]), "out": sqrt(free.W_dec.shape[1])
            },
            "hook_point_in": hook_name(free.reads.name), "hook_point_out": hook_name(free.writes.name),
        }  # fmt: skip
        write_safetensors(tensors, folder / WEIGHTS)
        write_json(about, folder / CONFIG)


def scaling(d: int, mean_norm: float | None) -> UnitMeanSquare:
    """Units in which a vector of this norm has the norm sqrt(d)."""
    units = UnitMeanSquare(d)
    units.scale.fill_(1.0 if mean_norm is None else float(mean_norm) / sqrt(d))
    return units


def one_threshold(what: Plain) -> float:
    """Raises Refusal where latents have thresholds of their own."""
    if not isinstance(what.activation, JumpReLU | BatchTopK | ReLU):
        raise Refusal(
            f"Llama Scope has JumpReLU, and no {type(what.activation).__name__}; --to saelens has other activations"
        )
    found = thresholds(what.activation, what.width, "Llama Scope")
    if bool((found != found[0]).any()):
        raise Refusal(
            f"Llama Scope has one threshold for all latents, and here they reach from {found.min():g} to "
            f"{found.max():g}; --to gemma_scope or saelens has one for each"
        )
    return found[0].item()
