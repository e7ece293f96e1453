"""Anything that was fitted, as a folder: its class and arguments in JSON, its numbers in safetensors. Never a pickle."""

import json
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import nn

from microtome.core.errors import Refusal

SCHEMA = "microtome/artefact/1"


def save_module(module: nn.Module, folder: Path, about: dict) -> None:
    """Write a module's numbers, and what is needed to build it again."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / ".weights.partial"
    save_file({k: v.contiguous() for k, v in module.state_dict().items()}, partial)
    partial.replace(folder / "weights.safetensors")
    (folder / "dictionary.json").write_text(json.dumps({"schema": SCHEMA, **about}, indent=1))


def load_module(folder: Path, build: Callable[[dict], nn.Module]) -> nn.Module:
    """Build a module from its description and fill in its numbers. Raises Refusal for a folder that is not one."""
    path = folder / "dictionary.json"
    if not path.exists():
        raise Refusal(f"{folder} holds no dictionary.json, so no dictionary of this package")
    about = json.loads(path.read_text())
    if about.get("schema") != SCHEMA:
        raise Refusal(f"{path} has schema {about.get('schema')!r}; this version reads {SCHEMA!r}")
    module = build(about)
    module.load_state_dict(load_file(folder / "weights.safetensors"))
    return module
