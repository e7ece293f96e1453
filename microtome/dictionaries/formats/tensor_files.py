"""Files of tensors, in the forms that dictionaries are published in: safetensors, npz, torch's pickles, and YAML."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

from microtome.core.errors import Refusal
from microtome.store.whole import reading, whole

PICKLES = (".pt", ".pth", ".bin")
AGAIN = "fetch or save it again"


def read_safetensors(path: Path) -> dict[str, Tensor]:
    with reading(path, AGAIN):
        return load_file(path)


def read_npz(path: Path) -> dict[str, Tensor]:
    """Raises Refusal for an archive of anything but arrays of numbers."""
    with reading(path, AGAIN), np.load(path, allow_pickle=False) as archive:
        return {name: torch.from_numpy(archive[name]) for name in archive.files}


def read_pickle(path: Path, allowed: bool) -> dict[str, Any]:
    """The dictionary in a file of `torch.save`. Raises Refusal unless pickles were allowed, and where it is no dict."""
    if not allowed:
        raise Refusal(
            f"{path} is a pickle, which is not read unasked; `microtome convert SRC DST --to FORMAT --allow-pickle`, "
            "or allow_pickle=True, reads tensors and plain values from it and nothing that runs"
        )
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise Refusal(f"{path} is missing; {AGAIN}") from None
    except Exception as error:  # torch raises many kinds for a damaged file, and for one that holds code
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise Refusal(f"{path} holds more than tensors and plain values, or is damaged ({first}); {AGAIN}") from None
    if not isinstance(found, dict):
        raise Refusal(f"{path} holds a {type(found).__name__}, where a dictionary is a dict of tensors")
    return found


def read_yaml(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Refusal(f"{path} is missing; {AGAIN}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise Refusal(f"{path} is damaged; {AGAIN}") from None
    return found if isinstance(found, dict) else {}


def write_safetensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as place:
        save_file({name: own(x) for name, x in tensors.items()}, place)


def write_npz(tensors: Mapping[str, Tensor], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as place, place.open("wb") as file:
        arrays: dict[str, Any] = {name: own(x).numpy() for name, x in tensors.items()}
        np.savez(file, **arrays)


def write_pickle(values: Mapping[str, Any], path: Path) -> None:
    """For the formats that are pickles: tensors and plain values alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {name: own(x) if isinstance(x, Tensor) else x for name, x in values.items()}
    with whole(path) as place:
        torch.save(plain, place)


def write_yaml(values: Mapping[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as place:
        place.write_text(yaml.safe_dump(dict(values), sort_keys=False), encoding="utf-8")


def own(x: Tensor) -> Tensor:
    """Numbers alone, in memory that is shared with nothing."""
    return x.detach().cpu().clone(memory_format=torch.contiguous_format)
