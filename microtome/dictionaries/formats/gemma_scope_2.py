"""Gemma Scope 2: params.safetensors and config.json in a folder that says kind, layer, width and sparsity."""

# ruff: noqa: N806  (weights are named as papers and files name them)

import re
from pathlib import Path
from typing import Any

from microtome.core.component import Dictionary
from microtome.core.errors import Refusal
from microtome.dictionaries.formats.format import Format, Published, Source, write_json
from microtome.dictionaries.formats.plain import Plain, jump_relu, numbers, plain, refuse_units, thresholds
from microtome.dictionaries.formats.sites import kind_and_layer, site_of
from microtome.dictionaries.formats.tensor_files import write_safetensors

CONFIG, WEIGHTS = "config.json", "params.safetensors"
POINTS = {  # a site, as the description names it; Gemma 3 norms what it adds to the stream
    "resid_post": "model.layers.{}.output",
    "z": "model.layers.{}.self_attn.o_proj.input",
    "attn_out": "model.layers.{}.post_attention_layernorm.output",
    "mlp_out": "model.layers.{}.post_feedforward_layernorm.output",
    "mlp_in": "model.layers.{}.pre_feedforward_layernorm.output",
}
FOLDERS = {"resid_post": "resid_post", "attn_out": "z", "mlp_out": "mlp_out"}  # the site of a folder's kind
KINDS = {"resid_post": "resid_post", "z": "attn_out", "attn_out": "attn_out", "mlp_out": "mlp_out"}


class GemmaScope2(Format):
    """JumpReLU autoencoders and transcoders that take no bias from the input; keys are lower case."""

    name, owner = "gemma_scope_2", "Gemma Scope 2"

    def why_not(self, source: Source) -> str | None:
        return source.lacks(WEIGHTS)

    def load(self, source: Source) -> Published:
        about = source.json(CONFIG) if (source.path / CONFIG).is_file() else {}
        found = source.tensors(WEIGHTS)
        W_enc, b_enc, W_dec, b_dec, threshold = numbers(found, "w_enc", "b_enc", "w_dec", "b_dec", "threshold")
        if W_dec.ndim != 2:
            raise Refusal(
                f"{source.path / WEIGHTS} has a w_dec of the shape {tuple(W_dec.shape)}: it writes at several layers, "
                "and this version reads cross-layer transcoders in circuit-tracer's format alone"
            )
        reads, writes = points(about, source.path)
        here = source.place(reads)
        there = site_of(writes) if writes is not None and writes != reads else here
        skip = "affine_skip_connection" in found
        what = Plain(
            here, there, W_enc.T.contiguous(), b_enc, W_dec, b_dec, jump_relu(threshold),
            W_skip=numbers(found, "affine_skip_connection")[0].T.contiguous() if skip else None,
        )  # fmt: skip
        notes = ["it reads the heads of a place side by side, as one vector"] if here.name.startswith("z.") else []
        if not about:
            notes.append("there is no config.json, so its site was taken from the folder's name")
        return Published([what.dictionary()], False if what.is_autoencoder else None, {}, notes)

    def write_one(self, dictionary: Dictionary, folder: Path) -> None:
        what = plain(dictionary)
        refuse_units(what, "Gemma Scope 2")
        free = what.subtracting(False)
        tensors = {
            "w_enc": free.W_enc.T, "w_dec": free.W_dec, "b_enc": free.b_enc, "b_dec": free.b_dec,
            "threshold": thresholds(what.activation, what.width, "Gemma Scope 2"),
        }  # fmt: skip
        skip = {} if what.W_skip is None else {"affine_skip_connection": what.W_skip.T}
        about = {
            "architecture": "jump_relu", "hf_hook_point_in": point(what.reads.name),
            "hf_hook_point_out": point(what.writes.name), "affine_connection": what.W_skip is not None,
        }  # fmt: skip
        into = folder / path_of(what)
        write_safetensors(tensors | skip, into / WEIGHTS)
        write_json(about, into / CONFIG)


def points(about: dict[str, Any], folder: Path) -> tuple[str | None, str | None]:
    """The sites read and written, from the description or else from the folder's name."""
    given = about.get("hf_hook_point_in"), about.get("hf_hook_point_out")
    if given[0]:
        return meant(given[0]), meant(given[1] or given[0])
    layer = re.search(r"layer_(\d+)", folder.name)
    kind = folder.absolute().parent.name.removesuffix("_all")
    if layer is None:
        return None, None
    if kind == "transcoder":
        return f"mlp_in.{layer[1]}", f"mlp_out.{layer[1]}"
    if kind not in FOLDERS:
        return None, None
    site = f"{FOLDERS[kind]}.{layer[1]}"
    return site, site


def meant(name: str) -> str:
    """The site of a hook point. In Gemma 3 the norms after attention and MLP give what is added to the stream."""
    number = re.search(r"layers\.(\d+)", name)
    if number:
        for site, path in POINTS.items():
            if name == path.format(number[1]):
                return f"{site}.{number[1]}"
    return site_of(name).name


def point(site: str) -> str:
    kind, _, layer = site.rpartition(".")
    return POINTS[kind].format(layer) if kind in POINTS and layer.isdigit() else site


def path_of(what: Plain) -> Path:
    kind, layer = kind_and_layer(what.reads)
    if layer is None:
        return Path()
    known = "transcoder" if not what.is_autoencoder else KINDS.get(kind, kind)
    affine = "_affine" if what.W_skip is not None else ""
    return Path(known) / f"layer_{layer}_width_{what.width}{affine}"
