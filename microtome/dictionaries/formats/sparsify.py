"""EleutherAI's sparsify: cfg.json beside sae.safetensors, in a folder named by the module whose output it reads.

https://github.com/EleutherAI/sparsify
"""

# ruff: noqa: N806  (weights are named as papers and files name them)

from collections.abc import Sequence
from pathlib import Path

from microtome.core.component import Dictionary
from microtome.core.errors import Refusal
from microtome.dictionaries.activation_functions import TopK
from microtome.dictionaries.formats.format import Format, Published, Source, write_json
from microtome.dictionaries.formats.plain import Plain, numbers, plain, refuse_units
from microtome.dictionaries.formats.sites import kind_and_layer, module_path, site_of
from microtome.dictionaries.formats.tensor_files import write_safetensors

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"


class Sparsify(Format):
    """TopK autoencoders and transcoders, whose sites are a module's output (and a transcoder's its input)."""

    name, owner = "sparsify", "EleutherAI's sparsify"

    def why_not(self, source: Source) -> str | None:
        return source.lacks(CONFIG, WEIGHTS)

    def load(self, source: Source) -> Published:
        config, found = source.json(CONFIG), source.tensors(WEIGHTS)
        if config.get("activation", "topk") != "topk" or config.get("signed"):
            kind = "signed topk" if config.get("signed") else config["activation"]
            raise Refusal(f"{source.path} has the activation {kind!r}, which this version cannot read; it reads topk")
        if "k" not in config:
            raise Refusal(f"{source.path / CONFIG} has no 'k', so it is no description of sparsify")
        transcodes = bool(config.get("transcode"))
        module = hookpoint(source.path)
        here = source.place(module if not transcodes or module is None else site_of(module, "in").name)
        there = site_of(module) if transcodes and module is not None else here
        W_enc, b_enc, W_dec, b_dec = numbers(found, "encoder.weight", "encoder.bias", "W_dec", "b_dec")
        skip = numbers(found, "W_skip")[0] if "W_skip" in found else None
        what = Plain(here, there, W_enc, b_enc, W_dec, b_dec, TopK(int(config["k"])), not transcodes, skip)
        claims = {"width": config.get("num_latents") or len(W_enc), "d_in": config.get("d_in", W_enc.shape[1])}
        return Published([what.dictionary()], None if transcodes else True, claims)

    def write_one(self, dictionary: Dictionary, folder: Path) -> None:
        what = plain(dictionary)
        if not isinstance(what.activation, TopK):
            raise Refusal(
                f"sparsify has TopK alone, and no {type(what.activation).__name__}; --to saelens or gemma_scope has "
                "other activations"
            )
        refuse_units(what, "sparsify")
        n, d = what.W_enc.shape
        config = {
            "activation": "topk", "expansion_factor": max(1, n // d), "normalize_decoder": False, "num_latents": n,
            "k": what.activation.k, "multi_topk": False, "skip_connection": what.W_skip is not None,
            "transcode": not what.is_autoencoder, "d_in": d,
        }  # fmt: skip
        tensors = {
            "encoder.weight": what.W_enc, "encoder.bias": what.b_enc, "W_dec": what.W_dec, "b_dec": what.b_dec,
        }  # fmt: skip
        skip = {} if what.W_skip is None else {"W_skip": what.W_skip}
        into = folder / written_hookpoint(what)
        write_safetensors(tensors | skip, into / WEIGHTS)
        write_json(config, into / CONFIG)

    def write(self, dictionaries: Sequence[Dictionary], folder: Path) -> None:
        for dictionary in dictionaries:
            self.write_one(dictionary, folder)


def hookpoint(folder: Path) -> str | None:
    """The module that a folder is named by: `layers.10`, or `layers.10/seed0` where several seeds lie side by side."""
    names = [part for part in folder.absolute().parts[-2:] if not part.startswith("seed")]
    return names[-1] if names and ("." in names[-1] or names[-1].startswith("embed")) else None


def written_hookpoint(what: Plain) -> str:
    """Raises Refusal for a transcoder whose two sites are not the two sides of one module."""
    path = module_path(what.writes)
    if not what.is_autoencoder and site_of(path, "in") != what.reads:
        raise Refusal(
            f"sparsify's transcoders read what a module is given and write what it returns; {what.reads} and "
            f"{what.writes} of layer {kind_and_layer(what.writes)[1]} are not that; --to saelens names both"
        )
    return path
