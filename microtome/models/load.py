"""A model by its name: a folder, a hub name, `specimen`, or a module that is already there."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from microtome.core.errors import Refusal
from microtome.core.site import Site
from microtome.models.adapter import Family, Into, OutOf, Sited
from microtome.models.families import family_of
from microtome.models.hooked import HookedModel

SPECIMEN = Path(__file__).parent / "specimen"
Named = Mapping[str, tuple[str, str, str]]  # site name -> (module path, "in" or "out", axes)


def load(
    model: str | Path | nn.Module, *, sites: Named | None = None, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> HookedModel:
    """A network with named sites.

    `model` is a folder in Hugging Face's format, a hub name, "specimen" (ships with the package) or any module. `sites`
    names places of your own: {"hidden": ("encoder.2", "out", "batch d")}. Only safetensors weights are read, and no code
    from a model's folder is run. Raises Refusal where there is no such folder and no hub to ask.
    """
    if isinstance(model, nn.Module):
        return HookedModel(model, with_own(family_of(model), sites), name=type(model).__name__)
    module, tokenizer = from_pretrained(SPECIMEN if str(model) == "specimen" else model, dtype)
    return HookedModel(module.to(device), with_own(family_of(module), sites), tokenizer, str(model))


def with_own(family: Family, sites: Named | None) -> Family:
    own = {n: Sited(Site(n, axes), (Into if side == "in" else OutOf)(path)) for n, (path, side, axes) in (sites or {}).items()}
    return Family(family.name, {**family.sited, **own}, family.lacking)


def from_pretrained(name: str | Path, dtype: torch.dtype) -> tuple[nn.Module, object | None]:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageClassification, AutoModelForMaskedLM, AutoTokenizer

    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise Refusal(f"no model {str(name)!r}: it is no folder with a config.json, and no hub could give it ({brief(error)})") from None
    kinds = "".join(config.architectures or [])
    auto = AutoModelForMaskedLM if "MaskedLM" in kinds else AutoModelForImageClassification if "ImageClassification" in kinds else AutoModelForCausalLM
    try:
        module = auto.from_pretrained(name, dtype=dtype, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise Refusal(f"could not load {str(name)!r}: {brief(error)}") from None
    return module.requires_grad_(False), tokenizer_of(name, AutoTokenizer)


def tokenizer_of(name: str | Path, auto: type) -> object | None:
    try:
        return auto.from_pretrained(name)
    except (OSError, ValueError, KeyError):
        return None


def brief(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")[:200]
