"""OpenAI's autoencoders for GPT-2: one pickle a layer, in a folder named by where in the layer it reads.

https://github.com/openai/sparse_autoencoder; Gao et al. 2024 (arXiv 2406.04093).
"""

# ruff: noqa: N806  (weights are named as papers and files name them)

from pathlib import Path
from typing import Any

import torch

from microtome.core.component import Dictionary
from microtome.core.errors import Refusal
from microtome.dictionaries.activation_functions import Activation, ReLU, TopK
from microtome.dictionaries.formats.format import Format, Published, Source, lacks_tensors
from microtome.dictionaries.formats.plain import Plain, numbers, plain, refuse_transcoder
from microtome.dictionaries.formats.sites import kind_and_layer
from microtome.dictionaries.formats.tensor_files import PICKLES, write_pickle
from microtome.dictionaries.normalisation import LayerNorm, Unchanged

LOCATIONS = {
    "resid_delta_attn": "attn_out", "resid_delta_mlp": "mlp_out", "resid_post_attn": "resid_mid",
    "resid_post_mlp": "resid_post", "mlp_post_act": "mlp_act",
}  # fmt: skip


class OpenAI(Format):
    """A state dict with the activation's name. Where that is TopK, tokens are layer-normed: one implies the other."""

    name, owner = "openai", "OpenAI's sparse_autoencoder"

    def why_not(self, source: Source) -> str | None:
        if source.path.suffix not in PICKLES or not source.path.is_file():
            return "it is one file that ends in .pt"
        return lacks_tensors(source.tensors(), "pre_bias", "latent_bias", "encoder.weight", "decoder.weight")

    def load(self, source: Source) -> Published:
        found = source.tensors()
        here = source.place(named(source.path))
        W_enc, b_enc, W_dec, b_dec = numbers(found, "encoder.weight", "latent_bias", "decoder.weight", "pre_bias")
        activation = activation_of(found)
        units = LayerNorm(len(b_dec)) if isinstance(activation, TopK) else Unchanged(len(b_dec))
        what = Plain(here, here, W_enc, b_enc, W_dec.T.contiguous(), b_dec, activation, True, units=units)
        frequency = found.get("latents_activation_frequency")
        claims = {} if not isinstance(activation, TopK) else {"l0": float(activation.k)}
        notes = [] if frequency is None or bool((frequency > 0).any()) else ["its firing statistics were never counted"]
        return Published([what.dictionary()], True, claims, notes)

    def write_one(self, dictionary: Dictionary, folder: Path) -> None:
        what = plain(dictionary)
        refuse_transcoder(what, "OpenAI's format")
        state, n = written_activation(what), what.width
        counted = {
            "stats_last_nonzero": torch.zeros(n, dtype=torch.long), "latents_activation_frequency": torch.ones(n),
            "latents_mean_square": torch.zeros(n),
        }  # fmt: skip
        linear = {
            "pre_bias": what.b_dec, "latent_bias": what.b_enc, "encoder.weight": what.W_enc,
            "decoder.weight": what.W_dec.T,
        }  # fmt: skip
        write_pickle(linear | counted | state, folder / path_of(what))


def activation_of(found: dict[str, Any]) -> Activation:
    name, state = found.get("activation", "ReLU"), found.get("activation_state_dict") or {}
    if name == "ReLU":
        return ReLU()
    if name == "TopK" and state.get("postact_fn", "ReLU") == "ReLU":
        return TopK(int(state["k"]))
    raise Refusal(f"this autoencoder's activation is {name} with {dict(state)}; ReLU, and TopK with it, are read")


def written_activation(what: Plain) -> dict[str, Any]:
    """Raises Refusal for every pair of activation and units but ReLU as it is, and TopK with layer norm."""
    match what.activation, what.units:
        case ReLU(), None | Unchanged():
            return {"activation": "ReLU", "activation_state_dict": {}}
        case TopK(k=k), LayerNorm():
            return {"activation": "TopK", "activation_state_dict": {"k": k, "postact_fn": "ReLU"}}
        case activation, units:
            raise Refusal(
                "OpenAI's format has TopK of layer-normed tokens, and ReLU of tokens as they are; this is "
                f"{type(activation).__name__} with {type(units or Unchanged(1)).__name__}; fit it with LayerNorm(d) "
                "and TopK, or choose another format"
            )


def named(path: Path) -> str | None:
    """`.../resid_post_mlp_v5_32k/autoencoders/8.pt` is resid_post.8."""
    if not path.stem.isdigit():
        return None
    for part in reversed(path.absolute().parts):
        for location, kind in LOCATIONS.items():
            if part.startswith(location):
                return f"{kind}.{path.stem}"
    return None


def path_of(what: Plain) -> Path:
    kind, layer = kind_and_layer(what.reads)
    location = next((name for name, known in LOCATIONS.items() if known == kind), None)
    if location is None or layer is None:
        return Path("autoencoder.pt")
    return Path(location) / "autoencoders" / f"{layer}.pt"
