"""A grid of processes, (data, latent): one axis divides the rows of a batch, the other a dictionary's latents.

Rank r stands at (r // latent, r % latent): neighbours, which share a machine, exchange candidates at every step.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from microtome.core.errors import Refusal
from microtome.dictionaries.parallel.group import Group

PATIENCE = 45.0  # seconds after which a process that does not answer counts as dead
GATHERING = timedelta(minutes=10)  # until all have started, or written their part of a checkpoint


@dataclass(frozen=True, eq=False)
class Mesh:
    """The groups this process belongs to: `data` holds the same latents, `latent` sees the same rows."""

    grid: Any  # torch's DeviceMesh; None where this process is alone
    data: Group
    latent: Group
    everyone: Group


def open_mesh(latent: int | None = None, *, data: int = 1, device: str = "cpu", patience: float = PATIENCE) -> Mesh:
    """The mesh of the processes that were started together (`torchrun --nproc-per-node 4 script.py`).

    `latent` defaults to all that `data` leaves. `patience`, in seconds, is how long a process waits for another in a
    step before it gives up. Raises Refusal where the axes do not multiply to the number of processes.
    """
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=GATHERING)
    world = dist.get_world_size()
    latent = world // max(data, 1) if latent is None else latent
    if data < 1 or latent < 1 or data * latent != world:
        raise Refusal(f"data {data} times latent {latent} are not the {world} processes there are; choose others")
    ranks = torch.arange(world).view(data, latent)
    wait = timedelta(seconds=patience)
    by_data, by_latent = own_group(ranks.T, wait), own_group(ranks, wait)
    grid = DeviceMesh.from_group([by_data, by_latent], device, ranks.int(), mesh_dim_names=("data", "latent"))
    return Mesh(grid, seen(by_data), seen(by_latent), seen(own_group(ranks.view(1, -1), wait)))


def own_group(rows: torch.Tensor, wait: timedelta) -> dist.ProcessGroup:
    """Makes a group of each row, as all processes must, and gives the one this process is in."""
    made = [dist.new_group(row, timeout=wait) for row in rows.tolist()]
    return next(group for group in made if isinstance(group, dist.ProcessGroup))


def seen(group: dist.ProcessGroup) -> Group:
    """A group as this process sees it."""
    return Group(group, dist.get_world_size(group), dist.get_rank(group))
