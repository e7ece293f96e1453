"""A model by its name: a folder, a hub name, `specimen`, or a module that is already there."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from microtome.core.errors import Refusal
from microtome.core.site import Site
from microtome.models.adapter import Family, Into, OutOf, Sited
from microtome.models.family import family_of
from microtome.models.hooked import HookedModel

SPECIMEN = Path(__file__).parent / "specimen"
HUB_SECONDS = 3  # how long an unreachable hub may keep us
Named = Mapping[str, tuple[str, str, str]]  # site name -> (module path, "in" or "out", axes)


def load(
    model: str | Path | nn.Module,
    *,
    sites: Named | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    verify: bool = True,
) -> HookedModel:
    """A network with named sites.

    `model` is a folder in Hugging Face's format, a hub name, "specimen" (ships with the package) or any module. `sites`
    names places of your own: {"hidden": ("encoder.2", "out", "batch d")}. Named models are verified, which takes a few
    forward passes over eight tokens: sites that do not hold what their names say are withdrawn. A module is left to
    you: `model.verify()`. Only safetensors weights are read, and no code from a model's folder is run. Raises Refusal
    where there is no such folder and no hub to ask.
    """
    if isinstance(model, nn.Module):
        return HookedModel(model, with_own(family_of(model), sites), name=type(model).__name__)
    module, tokenizer = from_pretrained(SPECIMEN if str(model) == "specimen" else model, dtype)
    hooked = HookedModel(module.to(device), with_own(family_of(module), sites), tokenizer, str(model))
    if verify and hooked.family.equations:
        hooked.verify()
    return hooked


def with_own(family: Family, sites: Named | None) -> Family:
    """A family and, beside or in place of its sites, those that the user names."""
    own = {
        n: Sited(Site(n, axes), (Into if side == "in" else OutOf)(path))
        for n, (path, side, axes) in (sites or {}).items()
    }
    return Family(family.name, {**family.sited, **own}, family.lacking, family.equations)


def from_pretrained(name: str | Path, dtype: torch.dtype) -> tuple[nn.Module, Any]:
    """The module in evaluation mode, its weights frozen, and its tokenizer, None where there is none."""
    folder = located(name)
    with quiet():
        return weights_of(folder, name, dtype), tokenizer_of(folder)


def located(name: str | Path) -> Path:
    """The folder that holds a model: itself, or its files out of the hub or the hub's cache."""
    if Path(name).is_dir():
        if not (Path(name) / "config.json").is_file():
            raise Refusal(f"the folder {str(name)!r} has no config.json; give a folder in Hugging Face's format")
        return Path(name)
    return from_hub(str(name))


def from_hub(name: str) -> Path:
    """The folder of a hub model's safetensors, settings and tokenizer. Raises Refusal where there is none."""
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", str(HUB_SECONDS))
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    wanted = ["*.json", "*.safetensors", "*.model", "*.txt"]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted, ignore_patterns=["*/*"], etag_timeout=HUB_SECONDS))
    except HFValidationError:
        raise Refusal(
            f"no model {name!r}: there is no such folder, and it cannot be a hub name; "
            "give a folder, or a name like 'gpt2'"
        ) from None
    except (OSError, ValueError) as error:
        raise Refusal(
            f"no model {name!r}: there is no such folder, and the hub did not give it ({brief(error)})"
        ) from None


def weights_of(folder: Path, name: str | Path, dtype: torch.dtype) -> nn.Module:
    """The module of a folder, frozen. Raises Refusal for weights that are not in safetensors form."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageClassification, AutoModelForMaskedLM

    if not any(folder.glob("*.safetensors")):
        others = ", ".join(
            sorted(p.name for pattern in ("*.bin", "*.pt", "*.ckpt", "*.h5") for p in folder.glob(pattern))
        )
        raise Refusal(
            f"{str(name)!r} has no weights in safetensors form ({others or 'no weights at all'}); "
            "pickled ones can run code, so convert them first"
        )
    autos = {"MaskedLM": AutoModelForMaskedLM, "ImageClassification": AutoModelForImageClassification}
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        kinds = "".join(config.architectures or [])
        auto = next((auto for kind, auto in autos.items() if kind in kinds), AutoModelForCausalLM)
        module = auto.from_pretrained(folder, config=config, dtype=dtype, use_safetensors=True, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise Refusal(f"could not load {str(name)!r}: {brief(error)}") from None
    return module.eval().requires_grad_(False)


def tokenizer_of(folder: Path) -> Any:
    """The tokenizer of a folder; None where there is none that can be read."""
    from transformers import AutoTokenizer

    if not any((folder / file).is_file() for file in ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")):
        return None
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError):
        return None


@contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars and warnings of transformers, for the length of the block."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def brief(error: Exception) -> str:
    """The first line of an error, without its full stop."""
    return str(error).strip().split("\n")[0].rstrip(".")[:200]
