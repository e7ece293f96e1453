"""Named tensors in one file, written whole."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from microtome.store.whole import whole


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write safetensors beside their place and move them there: a reader sees the old file or the new."""
    with whole(path) as partial:
        save_file({name: x.detach().contiguous().cpu() for name, x in tensors.items()}, partial)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, on the processor."""
    return load_file(path)


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of a file's tensors, from its head alone."""
    with safe_open(path, "pt") as held:
        return {name: tuple(held.get_slice(name).get_shape()) for name in held.keys()}  # noqa: SIM118
