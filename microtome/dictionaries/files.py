"""Dictionaries as folders: what `save` writes, `load` reads back with the same numbers."""

from pathlib import Path

from microtome.core.errors import Refusal
from microtome.core.site import Site
from microtome.dictionaries.activation_functions import Activation, ReLU, TopK
from microtome.dictionaries.sae import SAE
from microtome.store.artefact import load_module, save_module

ACTIVATIONS: dict[str, type[Activation]] = {"TopK": TopK, "ReLU": ReLU}


def save_dictionary(sae: SAE, folder: Path) -> None:
    """Write a dictionary to a folder."""
    site = sae.reads[0]
    about = {
        "class": "SAE", "site": site.name, "axes": site.axes, "width": len(sae.W_dec), "d_in": sae.W_dec.shape[1],
        "activation": {"class": type(sae.activation).__name__, **sae.activation.settings()},
    }  # fmt: skip
    save_module(sae, folder, about)


def load_dictionary(folder: Path) -> SAE:
    """Read a dictionary from a folder. Raises Refusal where it is none, or of a kind this version does not know."""
    return load_module(folder, build)


def build(about: dict) -> SAE:
    settings = dict(about["activation"])
    kind = settings.pop("class")
    if about["class"] != "SAE" or kind not in ACTIVATIONS:
        raise Refusal(
            f"no dictionary of class {about['class']} with activation {kind}; known: SAE with {', '.join(ACTIVATIONS)}"
        )
    return SAE(Site(about["site"], about["axes"]), about["d_in"], about["width"], ACTIVATIONS[kind](**settings))
