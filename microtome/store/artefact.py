"""Anything fitted, as a folder: its class and arguments in JSON, its numbers in safetensors. Never a pickle."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from safetensors.torch import load_file, save_file
from torch import nn

from microtome.core.errors import Refusal
from microtome.store.whole import reading, whole

SCHEMA = "microtome/artefact/2"
M = TypeVar("M", bound=nn.Module)


def save_module(module: nn.Module, folder: Path, about: dict) -> None:
    """Write a module's numbers, and what is needed to build it again: last, so that a folder which has it is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    with whole(folder / "weights.safetensors") as path:
        save_file({k: v.contiguous() for k, v in module.state_dict().items()}, path)
    with whole(folder / "dictionary.json") as path:
        path.write_text(json.dumps({"schema": SCHEMA, **about}, indent=1))


def load_module(folder: Path, build: Callable[[dict], M]) -> M:
    """Build a module from its description and fill in its numbers. Raises Refusal for a folder that is not one."""
    path = folder / "dictionary.json"
    if not path.exists():
        raise Refusal(f"{folder} holds no dictionary.json, so no dictionary of this package")
    with reading(path, "save the dictionary again"):
        about = json.loads(path.read_text())
    if about.get("schema") != SCHEMA:
        raise Refusal(f"{path} has schema {about.get('schema')!r}; this version reads {SCHEMA!r}")
    with reading(path, "save the dictionary again"):
        module = build(about)
    weights = folder / "weights.safetensors"
    with reading(weights, "save the dictionary again"):
        numbers = load_file(weights)
    wanted = {name: tuple(x.shape) for name, x in module.state_dict().items()}
    if wanted != {name: tuple(x.shape) for name, x in numbers.items()}:
        raise Refusal(f"{weights} does not hold what {path.name} describes; save the dictionary again")
    module.load_state_dict(numbers)
    return module
