"""Dictionaries as folders: what `save` writes, `load` reads back with the same numbers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from microtome.core.component import Dictionary
from microtome.core.errors import Refusal
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
from microtome.dictionaries.constraints import Constraint, Free, UnitRows
from microtome.dictionaries.cross_layer import CrossLayerTranscoder
from microtome.dictionaries.crosscoder import Crosscoder
from microtome.dictionaries.matching_pursuit import MatchingPursuit
from microtome.dictionaries.normalisation import (
    LayerNorm,
    Normalisation,
    Unchanged,
    UnitMeanSquare,
    UnitNorm,
    Whitening,
)
from microtome.dictionaries.sae import SAE
from microtome.dictionaries.transcoder import Transcoder
from microtome.store.artefact import load_module, save_module

ACTIVATIONS: dict[str, type[Activation]] = {
    c.__name__: c for c in (TopK, ReLU, AbsTopK, BatchTopK, JumpReLU, Gated)
}  # fmt: skip
UNITS: dict[str, type[Normalisation]] = {
    c.__name__: c for c in (Unchanged, UnitMeanSquare, Whitening, LayerNorm, UnitNorm)
}
CONSTRAINTS: dict[str, type[Constraint]] = {c.__name__: c for c in (UnitRows, Free)}


def save_dictionary(dictionary: Dictionary, folder: Path | str) -> None:
    """Write a dictionary to a folder. Raises Refusal for a kind that has no description here."""
    name = type(dictionary).__name__
    if name not in DESCRIBED:
        raise Refusal(f"a {name} cannot be saved; known: {', '.join(DESCRIBED)}")
    sites = {"reads": sites_as_plain(dictionary.reads), "writes": sites_as_plain(dictionary.writes)}
    save_module(dictionary, Path(folder), {"class": name, **sites, **DESCRIBED[name][0](dictionary)})


def load_dictionary(folder: Path | str) -> Any:
    """Read a dictionary from a folder. Raises Refusal where it is none, or of a kind this version does not know."""
    return load_module(Path(folder), build)


def build(about: dict) -> Dictionary:
    """A dictionary as it was described, its weights yet to be filled. Raises Refusal for a class that is not known."""
    name = about["class"]
    if name not in DESCRIBED:
        raise Refusal(f"no dictionary of class {name}; known: {', '.join(DESCRIBED)}")
    reads, writes = (sites_from_plain(about[side]) for side in ("reads", "writes"))
    return DESCRIBED[name][1](about, reads, writes)


def sites_as_plain(sites: tuple[Site, ...]) -> list[dict[str, str]]:
    """Sites by name and axes."""
    return [{"name": site.name, "axes": site.axes} for site in sites]


def sites_from_plain(plain: list[dict[str, str]]) -> list[Site]:
    """The sites that `sites_as_plain` wrote."""
    return [Site(p["name"], p["axes"]) for p in plain]


def activation_as_plain(activation: nn.Module) -> dict:
    """An activation by its class and settings."""
    assert isinstance(activation, Activation)
    return {"class": type(activation).__name__, **activation.settings()}


def activation_from_plain(plain: dict) -> Activation:
    """The activation that `activation_as_plain` wrote. Raises Refusal for a class that is not known."""
    settings = dict(plain)
    return named(ACTIVATIONS, settings.pop("class"), "activation")(**settings)


def units_as_plain(units: nn.Module) -> str:
    """The class of the input's units; their numbers stand among the weights."""
    return type(units).__name__


def units_from_plain(name: str, width: int) -> Normalisation:
    """Units of this class, yet to be filled. Raises Refusal for a class that is not known."""
    return named(UNITS, name, "normalisation")(width)


def named(known: dict[str, Any], name: str, what: str) -> Any:
    """One of those known. Raises Refusal for any other."""
    if name not in known:
        raise Refusal(f"no {what} {name}; known: {', '.join(known)}")
    return known[name]


def describe_sae(sae: Any) -> dict:
    return {
        "d_in": sae.W_dec.shape[1], "width": len(sae), "activation": activation_as_plain(sae.activation),
        "normalisation": units_as_plain(sae.normalisation), "constraint": type(sae.constraint).__name__,
    }  # fmt: skip


def build_sae(about: dict, reads: list[Site], writes: list[Site]) -> Dictionary:
    units = units_from_plain(about["normalisation"], about["d_in"])
    activation = activation_from_plain(about["activation"])
    return SAE(reads[0], about["d_in"], about["width"], activation, units, constraint_of(about))


def constraint_of(about: dict) -> Constraint:
    """The decoder's constraint."""
    return named(CONSTRAINTS, about["constraint"], "constraint")()


def describe_transcoder(made: Any) -> dict:
    return {
        "d_in": made.W_enc.shape[1], "d_out": made.W_dec.shape[1], "width": len(made),
        "activation": activation_as_plain(made.activation), "units_in": units_as_plain(made.units_in),
        "units_out": units_as_plain(made.units_out), "constraint": type(made.constraint).__name__,
        "skip": made.W_skip is not None,
    }  # fmt: skip


def build_transcoder(about: dict, reads: list[Site], writes: list[Site]) -> Dictionary:
    d_in, d_out = about["d_in"], about["d_out"]
    units = units_from_plain(about["units_in"], d_in), units_from_plain(about["units_out"], d_out)
    activation = activation_from_plain(about["activation"])
    return Transcoder(
        reads[0], writes[0], d_in, d_out, about["width"], activation, *units, constraint_of(about), skip=about["skip"]
    )


def describe_crosscoder(made: Any) -> dict:
    return {
        "d_in": made.W_dec.shape[1] // len(made.reads), "width": len(made),
        "activation": activation_as_plain(made.activation), "units": [units_as_plain(u) for u in made.units],
        "constraint": type(made.constraint).__name__,
    }  # fmt: skip


def build_crosscoder(about: dict, reads: list[Site], writes: list[Site]) -> Dictionary:
    units = [units_from_plain(u, about["d_in"]) for u in about["units"]]
    activation = activation_from_plain(about["activation"])
    return Crosscoder(reads, about["d_in"], about["width"], activation, units, constraint_of(about))


def describe_cross_layer(made: Any) -> dict:
    return {
        "d": made.d, "width": made.each, "activation": activation_as_plain(made.activations[0]),
        "units_in": [units_as_plain(u) for u in made.units_in],
        "units_out": [units_as_plain(u) for u in made.units_out], "constraint": type(made.constraint).__name__,
    }  # fmt: skip


def build_cross_layer(about: dict, reads: list[Site], writes: list[Site]) -> Dictionary:
    ins, outs = ([units_from_plain(u, about["d"]) for u in about[side]] for side in ("units_in", "units_out"))
    return CrossLayerTranscoder(
        reads, writes, about["d"], about["width"], lambda: activation_from_plain(about["activation"]), ins, outs,
        constraint_of(about),
    )  # fmt: skip


def describe_matching_pursuit(made: Any) -> dict:
    d_in = made.W_dec.shape[1]
    return {"d_in": d_in, "width": len(made), "k": made.k, "normalisation": units_as_plain(made.normalisation)}


def build_matching_pursuit(about: dict, reads: list[Site], writes: list[Site]) -> Dictionary:
    units = units_from_plain(about["normalisation"], about["d_in"])
    return MatchingPursuit(reads[0], about["d_in"], about["width"], about["k"], units)


DESCRIBED: dict[str, tuple[Callable[[Any], dict], Callable[[dict, list[Site], list[Site]], Dictionary]]] = {
    "SAE": (describe_sae, build_sae),
    "Transcoder": (describe_transcoder, build_transcoder),
    "Crosscoder": (describe_crosscoder, build_crosscoder),
    "CrossLayerTranscoder": (describe_cross_layer, build_cross_layer),
    "MatchingPursuit": (describe_matching_pursuit, build_matching_pursuit),
}
