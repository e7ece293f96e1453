"""Checkpoints of a fit by many processes: from the last of them any number of processes goes on.

CHECKPOINTS/step-00001200/      one folder each (see `store/divided.py`), the newest few kept
"""

import re
import shutil
from pathlib import Path

import torch.distributed as dist

from microtome.core.errors import Refusal
from microtome.core.fit import fit
from microtome.dictionaries.parallel.mesh import Mesh
from microtome.dictionaries.parallel.shard import divided
from microtome.store.divided import load_divided, save_divided

KEPT = 2


def save_checkpoint(run: fit, folder: Path, mesh: Mesh, *, also: dict | None = None) -> Path:
    """Write where a fit is; every rank calls it after the same step. The newest two checkpoints are kept.

    `also` holds plain values and tensors that come back with `resume`: where the batches were, for one. Raises
    RankLost where another rank is gone.
    """
    place = folder / f"step-{run.index:08d}"
    with mesh.everyone.answering():
        save_divided({"fit": run.state_dict(), "also": also or {}}, place, mesh.grid, of_a_latent)
    if dist.get_rank() == 0:
        for old in checkpoints_in(folder)[:-KEPT]:
            shutil.rmtree(old)
    return place


def resume(run: fit, folder: Path, mesh: Mesh) -> dict | None:
    """Go on from the last checkpoint, whatever mesh wrote it; gives what was saved `also`, or None where there is none.

    On the mesh that wrote it the fit goes on bit for bit. Raises Refusal for a checkpoint of other shapes.
    """
    found = checkpoints_in(folder)
    if not found:
        return None
    state = load_divided(found[-1], mesh.grid)
    refuse_other_shapes(run, state["fit"], found[-1])
    run.load_state_dict(state["fit"])
    return state["also"]


def checkpoints_in(folder: Path) -> list[Path]:
    """The whole checkpoints in a folder, the oldest first."""
    return sorted(p for p in folder.glob("step-*") if re.fullmatch(r"step-\d+", p.name) and p.is_dir())


def of_a_latent(name: str) -> bool:
    """Whether a tensor has a row for each latent: a moment of Adam has if its parameter does."""
    return divided(re.sub(r"/[01]$", "", name))


def refuse_other_shapes(run: fit, state: dict, place: Path) -> None:
    """Raises Refusal for a checkpoint of a dictionary of other shapes."""
    mine, theirs = ({n: tuple(x.shape) for n, x in s.items()} for s in (run.learned.state_dict(), state["learned"]))
    for name in mine | theirs:
        if mine.get(name) != theirs.get(name):
            raise Refusal(
                f"{place} holds {name} of shape {theirs.get(name)}, and here it is {mine.get(name)}; "
                "make the dictionary as it was, or begin anew in another folder"
            )
