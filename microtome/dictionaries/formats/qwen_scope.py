"""Qwen Scope: layerN.sae.pt in a repository whose name says the L0."""

# ruff: noqa: N806  (weights are named as papers and files name them)

import re
from collections.abc import Sequence
from pathlib import Path

from microtome.core.component import Dictionary
from microtome.core.errors import Refusal
from microtome.dictionaries.activation_functions import TopK
from microtome.dictionaries.formats.format import Format, Published, Source, lacks_tensors
from microtome.dictionaries.formats.plain import Plain, numbers, plain, refuse_transcoder, refuse_units
from microtome.dictionaries.formats.sites import kind_and_layer
from microtome.dictionaries.formats.tensor_files import write_pickle

NAME = re.compile(r"layer(\d+)\.sae\.pt")


class QwenScope(Format):
    """TopK autoencoders of resid_post that take no bias from the input; W_enc is (n, d) and W_dec (d, n)."""

    name, owner = "qwen_scope", "Qwen Scope"

    def why_not(self, source: Source) -> str | None:
        if not NAME.fullmatch(source.path.name) or not source.path.is_file():
            return "it is a file named like layer8.sae.pt"
        return lacks_tensors(source.tensors(), "W_enc", "W_dec", "b_enc", "b_dec")

    def load(self, source: Source) -> Published:
        W_enc, b_enc, W_dec, b_dec = numbers(source.tensors(), "W_enc", "b_enc", "W_dec", "b_dec")
        layer = NAME.fullmatch(source.path.name)
        assert layer is not None
        found = next(
            (m for part in reversed(source.path.absolute().parts) if (m := re.search(r"L0_(\d+)", part))), None
        )
        if found is None:
            raise Refusal(
                f"{source.path} does not hold its k, and no folder above it says it; keep it in a folder named like "
                "its repository, such as SAE-Res-Qwen3-1.7B-Base-W32K-L0_50"
            )
        here = source.place(f"resid_post.{layer[1]}")
        what = Plain(here, here, W_enc, b_enc, W_dec.T.contiguous(), b_dec, TopK(int(found[1])))
        return Published([what.dictionary()], False, {"l0": float(found[1])})

    def write_one(self, dictionary: Dictionary, folder: Path) -> None:
        what = plain(dictionary)
        refuse_transcoder(what, "Qwen Scope")
        refuse_units(what, "Qwen Scope")
        kind, layer = kind_and_layer(what.reads)
        if not isinstance(what.activation, TopK):
            raise Refusal(f"Qwen Scope has TopK alone, and no {type(what.activation).__name__}; --to saelens has it")
        if kind != "resid_post":
            raise Refusal(
                f"Qwen Scope reads resid_post alone, and this reads {what.reads}; --to saelens names any site"
            )
        free = what.subtracting(False)
        tensors = {"W_enc": free.W_enc, "b_enc": free.b_enc, "W_dec": free.W_dec.T, "b_dec": free.b_dec}
        write_pickle(tensors, folder / f"SAE-Res-W{what.width}-L0_{what.activation.k}" / f"layer{layer}.sae.pt")

    def write(self, dictionaries: Sequence[Dictionary], folder: Path) -> None:
        for dictionary in dictionaries:
            self.write_one(dictionary, folder)
