"""Named tensors in one file, written whole."""

from collections.abc import Mapping
from pathlib import Path

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
