"""A training state that many processes hold in parts, on disk: safetensors that any number of processes can read.

    state.json                          numbers, the tensors' names and whole shapes, and which of them were divided
    shard-RRRRR-model-...safetensors    what rank R - 1 held, through torch.distributed.checkpoint

A tensor is divided along its first axis over the mesh's `latent` axis, or whole on every rank, and then written once.
The folder appears when all of it is written; one that is there is whole.
"""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard

from microtome.core.errors import Refusal
from microtome.store.checkpoint import restored
from microtome.store.whole import reading

SCHEMA = "microtome/divided-state/1"
REMEDY = "delete its folder and go on from an earlier one"


def save_divided(state: dict, folder: Path, grid: DeviceMesh, divided: Callable[[str], bool]) -> None:
    """Write this process's part; all processes call it. `divided` says by its name whether a tensor is held in parts.

    Names are paths into the state, `engine/moments/W_enc/0`.
    """
    tensors: dict[str, Tensor] = {}
    skeleton = by_path(state, "", tensors)
    placed = {name: placed_on(x, divided(name), grid) for name, x in tensors.items()}
    partial = folder.with_name(f".{folder.name}.partial")
    if dist.get_rank() == 0:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    dist.barrier()
    save(placed, storage_writer=HuggingFaceStorageWriter(str(partial), save_distributed=True))
    if dist.get_rank() == 0:
        about = {name: {"shape": list(x.shape), "divided": divided(name)} for name, x in placed.items()}
        (partial / "state.json").write_text(json.dumps({"schema": SCHEMA, "tensors": about, "state": skeleton}))
        shutil.rmtree(folder, ignore_errors=True)
        partial.replace(folder)
    dist.barrier()


def load_divided(folder: Path, grid: DeviceMesh | None = None) -> dict:
    """What this process of the mesh holds of a state, whatever mesh it was saved on; all of it without a mesh.

    Raises Refusal for a folder that is none, is damaged, or has rows that do not divide over the mesh.
    """
    about = described(folder)
    sizes = sizes_in(folder)
    if {name: each["shape"] for name, each in about["tensors"].items()} != {n: list(x.size) for n, x in sizes.items()}:
        raise Refusal(f"{folder} lacks parts of what its state.json names; {REMEDY}")
    room = {
        name: room_for(x.size, x.properties.dtype, about["tensors"][name]["divided"], grid) for name, x in sizes.items()
    }
    try:
        read_into(room, folder, alone=grid is None)
    except CheckpointException as error:
        raise Refusal(f"{folder} is damaged; {REMEDY}") from error
    return restored(about["state"], {n: x.to_local() if isinstance(x, DTensor) else x for n, x in room.items()})


def read_into(room: dict[str, Tensor], folder: Path, alone: bool) -> None:
    """Fill these tensors from a folder, each process its part, or one process `alone` all of it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # which is what was asked for
        load(room, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=alone)


def described(folder: Path) -> dict:
    """What state.json says. Raises Refusal for another schema, and a file that cannot be read."""
    path = folder / "state.json"
    with reading(path, REMEDY):
        about = json.loads(path.read_text())
    if about.get("schema") != SCHEMA:
        raise Refusal(f"{path} has schema {about.get('schema')!r}; this version reads {SCHEMA!r}")
    return about


def sizes_in(folder: Path) -> dict[str, Any]:
    """The shape of every tensor in a folder."""
    with reading(folder, REMEDY):
        return dict(HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata)


def by_path(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """JSON with each tensor replaced by its path; `tensors` gets them."""
    if isinstance(value, Tensor):
        tensors[path] = value.detach().contiguous()
        return {"tensor": path}
    if isinstance(value, dict):
        return {"pairs": [[key, by_path(item, f"{path}/{key}".lstrip("/"), tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        items = [by_path(item, f"{path}/{i}", tensors) for i, item in enumerate(value)]
        return {"list": items, "tuple": isinstance(value, tuple)}
    return value


def placed_on(x: Tensor, parted: bool, grid: DeviceMesh) -> DTensor:
    """One process's rows of a divided tensor, or all of a tensor that every process has."""
    return DTensor.from_local(x, grid, [Replicate(), Shard(0) if parted else Replicate()], run_check=False)


def room_for(size: torch.Size, dtype: torch.dtype, parted: bool, grid: DeviceMesh | None) -> Tensor:
    """Where this process's part of a tensor of this size goes."""
    if grid is None:
        return torch.empty(size, dtype=dtype)
    ranks = grid.size(1)
    if parted and size[0] % ranks:
        raise Refusal(f"{size[0]} rows do not divide over {ranks} ranks; load them on a divisor of {size[0]}")
    here = (size[0] // ranks, *size[1:]) if parted else tuple(size)
    return placed_on(torch.empty(here, dtype=dtype, device=grid.device_type), parted, grid)
