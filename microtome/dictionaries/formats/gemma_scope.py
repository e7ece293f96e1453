"""Gemma Scope: params.npz in folders that say layer, width and L0.  Lieberum et al. 2024, arXiv 2408.05147."""

# ruff: noqa: N806  (weights are named as papers and files name them)

import re
from pathlib import Path

from microtome.core.component import Dictionary
from microtome.core.errors import Refusal
from microtome.dictionaries.formats.format import Format, Published, Source, lacks_tensors
from microtome.dictionaries.formats.plain import (
    Plain,
    jump_relu,
    numbers,
    plain,
    refuse_transcoder,
    refuse_units,
    thresholds,
)
from microtome.dictionaries.formats.sites import kind_and_layer
from microtome.dictionaries.formats.tensor_files import write_npz

FILE = "params.npz"
KINDS = {"res": "resid_post", "mlp": "mlp_out", "att": "z"}  # how a repository's name ends


class GemmaScope(Format):
    """JumpReLU autoencoders that take no bias from the input; encoders are stored (d, n)."""

    name, owner = "gemma_scope", "Gemma Scope"

    def why_not(self, source: Source) -> str | None:
        path = file_of(source.path)
        if path is None:
            return "it is a file that ends in .npz, or a folder with params.npz"
        found = Source(path).tensors()
        return lacks_tensors(found, "W_enc", "W_dec", "b_enc", "b_dec", "threshold")

    def load(self, source: Source) -> Published:
        path = file_of(source.path)
        assert path is not None
        if "transcoder" in str(path.absolute()) and source.site is None:
            raise Refusal(
                f"{path} is a transcoder of Gemma Scope, which reads the normed stream before the norm's gain, and no "
                "module shows that; give the site at which you made its input to read it as an autoencoder there"
            )
        W_enc, b_enc, W_dec, b_dec, threshold = numbers(
            Source(path).tensors(), "W_enc", "b_enc", "W_dec", "b_dec", "threshold"
        )
        here = source.place(named(path))
        what = Plain(here, here, W_enc.T.contiguous(), b_enc, W_dec, b_dec, jump_relu(threshold))
        l0 = re.search(r"average_l0_(\d+)", str(path))
        notes = ["it reads the heads of a place side by side, as one vector"] if here.name.startswith("z.") else []
        if here.name == "embed":
            notes.append("it reads the embedding before it is multiplied by sqrt(d)")
        return Published([what.dictionary()], False, {"l0": float(l0[1])} if l0 else {}, notes)

    def write_one(self, dictionary: Dictionary, folder: Path) -> None:
        what = plain(dictionary)
        refuse_transcoder(what, "Gemma Scope")
        refuse_units(what, "Gemma Scope")
        free = what.subtracting(False)
        write_npz(
            {
                "W_enc": free.W_enc.T, "W_dec": free.W_dec, "b_enc": free.b_enc, "b_dec": free.b_dec,
                "threshold": thresholds(what.activation, what.width, "Gemma Scope"),
            },
            folder / path_of(what),
        )  # fmt: skip


def file_of(path: Path) -> Path | None:
    if path.is_dir():
        return path / FILE if (path / FILE).is_file() else None
    return path if path.suffix == ".npz" else None


def named(path: Path) -> str | None:
    """`gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71/params.npz` is resid_post.20."""
    parts = path.absolute().parts
    layer = next((m[1] for part in reversed(parts) if (m := re.fullmatch(r"layer_(\d+)", part))), None)
    kind = next((KINDS[m[1]] for part in reversed(parts) if (m := re.search(r"scope.*-(res|mlp|att)\b", part))), None)
    if kind == "resid_post" and "embedding" in parts:
        return "embed"
    return f"{kind}.{layer}" if kind and layer else None


def path_of(what: Plain) -> Path:
    kind, layer = kind_and_layer(what.reads)
    repository = next((short for short, known in KINDS.items() if known == kind), None)
    if what.reads.name == "embed":
        return Path("gemma-scope-res/embedding") / f"width_{what.width}" / FILE
    if repository is None or layer is None:
        return Path(FILE)
    return Path(f"gemma-scope-{repository}") / f"layer_{layer}" / f"width_{what.width}" / "canonical" / FILE
