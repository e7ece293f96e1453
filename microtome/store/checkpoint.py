"""A training state on disk: nested dictionaries of tensors and numbers, as safetensors with a JSON skeleton."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from microtome.store.whole import reading, whole


def save_state(state: dict, path: Path) -> None:
    """Write atomically: after a stop at any moment there is a whole state, the old one or the new."""
    tensors: dict[str, Tensor] = {}
    skeleton = json.dumps(flattened(state, tensors))
    with whole(path) as partial:
        save_file(tensors or {"empty": torch.zeros(1)}, partial, metadata={"skeleton": skeleton})


def load_state(path: Path) -> dict:
    """Read what `save_state` wrote. Raises Refusal where the file is missing or damaged."""
    with reading(path, "delete it to begin anew"), safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return restored(json.loads((file.metadata() or {})["skeleton"]), tensors)


def flattened(value: Any, tensors: dict[str, Tensor]) -> Any:
    """JSON with each tensor replaced by its number, each dictionary by pairs (keys may be numbers)."""
    if isinstance(value, Tensor):
        tensors[str(len(tensors))] = value.detach().clone().contiguous()
        return {"tensor": str(len(tensors) - 1)}
    if isinstance(value, dict):
        return {"pairs": [[key, flattened(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return {"list": [flattened(item, tensors) for item in value], "tuple": isinstance(value, tuple)}
    return value


def restored(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The value that was taken apart for the file, its tensors put back."""
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    if "pairs" in value:
        return {key: restored(item, tensors) for key, item in value["pairs"]}
    items = [restored(item, tensors) for item in value["list"]]
    return tuple(items) if value["tuple"] else items
