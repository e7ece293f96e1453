"""circuit-tracer: a transcoder for each layer, or one cross-layer transcoder, in a folder with a config.yaml.

https://github.com/safety-research/circuit-tracer
"""

# ruff: noqa: N806  (weights are named as papers and files name them)

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from microtome.core.component import Dictionary
from microtome.core.errors import Refusal
from microtome.core.hook_names import hook_name
from microtome.core.site import Site
from microtome.dictionaries.activation_functions import Activation, ReLU, TopK
from microtome.dictionaries.constraints import Free
from microtome.dictionaries.cross_layer import CrossLayerTranscoder
from microtome.dictionaries.formats.format import Format, Published, Source
from microtome.dictionaries.formats.plain import (
    Plain,
    folded,
    jump_relu,
    numbers,
    plain,
    thresholds,
)
from microtome.dictionaries.formats.sites import site_of
from microtome.dictionaries.formats.tensor_files import write_safetensors, write_yaml

CONFIG, THRESHOLD = "config.yaml", "activation_function.threshold"
LAYER, ENCODER = re.compile(r"layer_(\d+)\.safetensors"), re.compile(r"W_enc_(\d+)\.safetensors")
READS, WRITES = "mlp.hook_in", "hook_mlp_out"  # where the description does not say


def layers(folder: Path, pattern: re.Pattern[str]) -> dict[int, str]:
    """Files of a folder by the layer in their names, in order."""
    found = {int(m[1]): path.name for path in folder.glob("*") if (m := pattern.fullmatch(path.name))}
    return dict(sorted(found.items()))


def ends(about: dict[str, Any], layer: int) -> tuple[Site, Site]:
    """The sites that a layer reads and writes."""
    named = about.get("feature_input_hook", READS), about.get("feature_output_hook", WRITES)
    reads, writes = (site_of(f"blocks.{layer}.{name}") for name in named)
    return reads, writes


def described(source: Source) -> dict[str, Any]:
    return source.yaml(CONFIG) if (source.path / CONFIG).is_file() else {}


class CircuitTracer(Format):
    """A set of transcoders: layer_0.safetensors and on, with W_enc (n, d); no bias is taken from the input."""

    name, owner = "circuit_tracer", "circuit-tracer's transcoder sets"

    def why_not(self, source: Source) -> str | None:
        if not source.path.is_dir():
            return "it is a folder with layer_0.safetensors"
        return None if layers(source.path, LAYER) else "there is no layer_0.safetensors"

    def load(self, source: Source) -> Published:
        about = described(source)
        made = [transcoder(source.tensors(file), about, layer) for layer, file in layers(source.path, LAYER).items()]
        notes = [] if about else [f"there is no config.yaml; it was taken to read {READS} and write {WRITES}"]
        return Published(made, None, {}, notes)

    def write_one(self, dictionary: Dictionary, folder: Path) -> None:
        self.write([dictionary], folder)

    def write(self, dictionaries: Sequence[Dictionary], folder: Path) -> None:
        """One file for each layer. Raises Refusal unless all read the same kind of site and write the same."""
        whats = [plain(d) for d in dictionaries]
        kinds = {(kind(w.reads), kind(w.writes)) for w in whats}
        if len(kinds) > 1 or any(w.reads.layer is None or w.is_autoencoder for w in whats):
            sites = ", ".join(f"{w.reads} to {w.writes}" for w in whats)
            raise Refusal(
                f"circuit-tracer's sets hold transcoders that read one kind of site and write another, a layer each; "
                f"these are {sites}; --to saelens holds them apart"
            )
        for what in whats:
            write_safetensors(written(what), folder / f"layer_{what.reads.layer}.safetensors")
        files = [f"layer_{layer}.safetensors" for layer in sorted(w.reads.layer or 0 for w in whats)]
        write_yaml(
            description("transcoder_set", whats[0].reads, whats[0].writes) | {"transcoders": files}, folder / CONFIG
        )


def transcoder(found: dict[str, Tensor], about: dict[str, Any], layer: int) -> Dictionary:
    W_enc, b_enc, W_dec, b_dec = numbers(found, "W_enc", "b_enc", "W_dec", "b_dec")
    if W_enc.shape[0] != len(b_enc):
        W_enc = W_enc.T.contiguous()
    if W_dec.shape[0] != len(b_enc):  # one published set has its decoder the other way round
        W_dec = W_dec.T.contiguous()
    reads, writes = ends(about, layer)
    skip = numbers(found, "W_skip")[0] if "W_skip" in found else None
    return Plain(reads, writes, W_enc, b_enc, W_dec, b_dec, activation(found, about), W_skip=skip).dictionary()


def activation(found: dict[str, Tensor], about: dict[str, Any]) -> Activation:
    if THRESHOLD in found:
        return jump_relu(numbers(found, THRESHOLD)[0].flatten())
    k = found["k"].item() if "k" in found else about.get("k")
    return TopK(int(k)) if k is not None else ReLU()


def written(what: Plain) -> dict[str, Tensor]:
    tensors = {"W_enc": what.W_enc, "W_dec": what.W_dec, "b_enc": what.b_enc, "b_dec": what.b_dec}
    if what.W_skip is not None:
        tensors["W_skip"] = what.W_skip
    match what.activation:
        case ReLU():
            return tensors
        case TopK(k=k):
            return tensors | {"k": torch.tensor(k)}
        case other:
            return tensors | {THRESHOLD: thresholds(other, what.width, "circuit-tracer")}


def kind(site: Site) -> str:
    return site.name.rpartition(".")[0]


def description(model_kind: str, reads: Site, writes: Site) -> dict[str, Any]:
    hooks = [hook_name(site.name).split(".", 2)[-1] for site in (reads, writes)]
    about = {"model_name": "unnamed", "model_kind": model_kind, "scan": "unnamed"}
    return about | {"feature_input_hook": hooks[0], "feature_output_hook": hooks[1]}


class CircuitTracerCLT(Format):
    """A cross-layer transcoder: W_enc_0.safetensors and W_dec_0.safetensors, and on; W_dec is (n, layers left, d)."""

    name, owner = "circuit_tracer_clt", "circuit-tracer's cross-layer transcoders"

    def why_not(self, source: Source) -> str | None:
        if not source.path.is_dir():
            return "it is a folder with W_enc_0.safetensors and W_dec_0.safetensors"
        return None if layers(source.path, ENCODER) else "there is no W_enc_0.safetensors"

    def load(self, source: Source) -> Published:
        about, files = described(source), layers(source.path, ENCODER)
        if list(files) != list(range(len(files))):
            raise Refusal(f"{source.path} holds encoders of the layers {list(files)}, and some between are missing")
        read = [source.tensors(file) | source.tensors(f"W_dec_{layer}.safetensors") for layer, file in files.items()]
        if any(name.startswith("W_skip") for found in read for name in found):
            raise Refusal(f"{source.path} has skip connections, which no cross-layer transcoder here has")
        sites = [ends(about, layer) for layer in files]
        n, d = read[0]["W_enc_0"].shape
        jumps = iter([own_activation(found, layer) for layer, found in enumerate(read)])
        made = CrossLayerTranscoder(
            [s[0] for s in sites], [s[1] for s in sites], d, n, lambda: next(jumps), constraint=Free()
        )
        for layer, found in enumerate(read):
            fill_layer(made, layer, found)
        return Published([made.requires_grad_(False)])  # type: ignore[list-item]

    def write_one(self, dictionary: Dictionary, folder: Path) -> None:
        if not isinstance(dictionary, CrossLayerTranscoder):
            raise Refusal(
                f"circuit-tracer's cross-layer format holds no {type(dictionary).__name__}; --to circuit_tracer or "
                "saelens holds transcoders"
            )
        made = folded(dictionary)
        assert isinstance(made, CrossLayerTranscoder)
        for layer, used in enumerate(made.activations):
            encoder = {
                f"W_enc_{layer}": made.W_enc[layer], f"b_enc_{layer}": made.b_enc[layer],
                f"b_dec_{layer}": made.b_dec[layer],
            }  # fmt: skip
            if not isinstance(used, ReLU):
                assert isinstance(used, Activation)
                encoder[f"threshold_{layer}"] = thresholds(used, made.each, "circuit-tracer")
            write_safetensors(encoder, folder / f"W_enc_{layer}.safetensors")
            rows = made.W_dec[layer].view(made.each, -1, made.d)
            write_safetensors({f"W_dec_{layer}": rows}, folder / f"W_dec_{layer}.safetensors")
        write_yaml(description("cross_layer_transcoder", made.reads[0], made.writes[0]), folder / CONFIG)


def own_activation(found: dict[str, Tensor], layer: int) -> Activation:
    name = f"threshold_{layer}"
    return jump_relu(numbers(found, name)[0].flatten()) if name in found else ReLU()


@torch.no_grad()
def fill_layer(made: CrossLayerTranscoder, layer: int, found: dict[str, Tensor]) -> None:
    names = [f"{name}_{layer}" for name in ("W_enc", "b_enc", "b_dec", "W_dec")]
    W_enc, b_enc, b_dec, W_dec = numbers(found, *names)
    wanted = (made.each, len(made.reads) - layer, made.d)
    if tuple(W_dec.shape) != wanted or W_enc.shape != made.W_enc[layer].shape:
        raise Refusal(
            f"layer {layer} of this cross-layer transcoder has an encoder {tuple(W_enc.shape)} and a decoder "
            f"{tuple(W_dec.shape)}; {tuple(made.W_enc[layer].shape)} and {wanted} belong to {len(made.reads)} layers"
        )
    made.W_enc[layer], made.b_enc[layer], made.b_dec[layer] = W_enc, b_enc, b_dec
    made.W_dec[layer].copy_(W_dec.flatten(1))
