"""What the processes of tests do together, and the same done by one."""

import os
import time
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from microtome.core.errors import Refusal
from microtome.core.fit import Autograd, fit
from microtome.core.rows import Rows
from microtome.core.site import Site
from microtome.dictionaries.activation_functions import TopK
from microtome.dictionaries.coder import LinearCoder
from microtome.dictionaries.crosscoder import Crosscoder
from microtome.dictionaries.normalisation import LayerNorm, UnitMeanSquare
from microtome.dictionaries.objectives import AuxK, Objective, Reconstruction
from microtome.dictionaries.parallel.checkpoints import resume, save_checkpoint
from microtome.dictionaries.parallel.engine import ShardedEngine
from microtome.dictionaries.parallel.group import RankLost
from microtome.dictionaries.parallel.mesh import Mesh, open_mesh
from microtome.dictionaries.parallel.shard import shard_of
from microtome.dictionaries.parallel.stream import dealt, streamed
from microtome.dictionaries.sae import SAE
from microtome.dictionaries.transcoder import Transcoder

A, B = Site("a"), Site("b")
D, WIDTH, K, ROWS = 8, 40, 4, 30
DEAD = (1, 7, 20, 33, 39)


def batches(count: int = 6, dtype: torch.dtype = torch.float64) -> list[Rows]:
    generator = torch.Generator().manual_seed(5)
    scale = torch.linspace(0.2, 2, D)
    return [
        Rows({name: (3 * torch.randn(ROWS, D, generator=generator) * scale + 1).to(dtype) for name in ("a", "b")})
        for _ in range(count)
    ]


def made(kind: str) -> LinearCoder:
    """A dictionary with biases, some of whose latents are dead from the start."""
    generator = torch.Generator().manual_seed(1)
    units = UnitMeanSquare.of(batches(1, torch.float32)[0][A])
    coder: LinearCoder = {
        "sae": lambda: SAE(A, D, WIDTH, TopK(K), units, generator=generator),
        "units of a token": lambda: SAE(A, D, WIDTH, TopK(K), LayerNorm(D), generator=generator),
        "transcoder": lambda: Transcoder(A, B, D, D, WIDTH, TopK(K), units, skip=True, generator=generator),
        "crosscoder": lambda: Crosscoder([A, B], D, WIDTH, TopK(K), generator=generator),
    }[kind]()
    with torch.no_grad():
        for parameter in (coder.b_enc, coder.b_dec, coder.W_enc):
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        coder.b_enc[list(DEAD)] -= 100.0
    return coder.double()


def objective(latents: int, aux: bool = True, k_aux: int = 3) -> Objective:
    """Latents count as dead after two batches; fewer of them are kept than are dead."""
    return 2.0 * Reconstruction() + AuxK(latents, dead_after=50, k_aux=k_aux) if aux else Reconstruction()


def run_of(coder: LinearCoder, data: list[Rows], mesh: Mesh | None, clip: float | None = None, **how: Any) -> fit:
    engine = partial(ShardedEngine, mesh=mesh) if mesh else Autograd
    return fit(coder, data, objective(len(coder), **how), lr=1e-2, clip=clip, engine=engine)


def told(run: fit, steps: list[Any]) -> dict:
    return {
        "steps": [[s.index, s.rows, s.loss] for s in steps], "parts": [s.parts for s in steps],
        "learned": run.learned.state_dict(), "objective": run.objective.state_dict(),
    }  # fmt: skip


def alone(kind: str, **how: Any) -> dict:
    run = run_of(made(kind), batches(), None, **how)
    return told(run, list(run))


@cache
def mesh_of(latent: int, data: int) -> Mesh:
    return open_mesh(latent, data=data, patience=900.0)


def together(kind: str, latent: int, data: int, **how: Any) -> dict:
    mesh = mesh_of(latent, data)
    run = run_of(shard_of(made(kind), mesh.latent), batches(), mesh, **how)
    return told(run, list(run))


def encoded(latent: int) -> dict:
    """What a divided dictionary makes of rows, outside of any fit."""
    sae, x = made("sae"), batches(1)[0][A]
    shard = shard_of(sae, mesh_of(latent, 1).latent)
    return {"codes": shard.encode(x).dense().detach(), "made": shard.reconstruct(x).detach()}


def refused(latent: int, data: int, mistake: str) -> dict:
    mesh = mesh_of(latent, data)
    try:
        MISTAKES[mistake](mesh)
    except Refusal as sentence:
        return {"said": str(sentence)}
    return {"said": ""}


def sae_of(width: int) -> SAE:
    return SAE(A, D, width, TopK(2))


MISTAKES = {
    "a width that does not divide": lambda mesh: shard_of(sae_of(41), mesh.latent),
    "axes that do not multiply": lambda mesh: open_mesh(3, data=2),
    "a whole dictionary": lambda mesh: run_of(made("sae"), [], mesh),
    "silence of all latents": lambda mesh: fit(
        shard_of(sae_of(40), mesh.latent), [], Reconstruction() + AuxK(40), engine=partial(ShardedEngine, mesh=mesh)
    ),
    "k beyond the width": lambda mesh: shard_of(SAE(A, D, 4, TopK(5)), mesh.latent).encode(torch.zeros(2, D)),
}


def infinite(latent: int, data: int) -> dict:
    """One bad number, in the rows of one rank: all refuse the step, and keep their weights."""
    mesh = mesh_of(latent, data)
    run = run_of(shard_of(made("sae"), mesh.latent), batches(), mesh)
    before: dict[str, Tensor] = {name: x.clone() for name, x in run.learned.state_dict().items()}
    bad = batches(1)[0]
    bad.values["a"][-1, 0] = torch.inf
    try:
        run.step(bad)
    except Refusal as sentence:
        kept = all(torch.equal(x, before[name]) for name, x in run.learned.state_dict().items())
        return {"said": str(sentence), "kept": kept}
    return {"said": "", "kept": False}


# ---------------------------------------------------------------- checkpoints


def stopped(latent: int, data: int, folder: str, steps: int) -> dict:
    """Some steps, and a checkpoint after each."""
    mesh = mesh_of(latent, data)
    run = run_of(shard_of(made("sae"), mesh.latent), batches()[:steps], mesh)
    found = []
    for step in run:
        found.append(step)
        save_checkpoint(run, Path(folder), mesh, also={"seen": run.index, "noise": torch.ones(3)})
    return told(run, found)


def resumed(latent: int, data: int, folder: str) -> dict:
    """The remaining steps, from the last checkpoint, by a fit that begins from other weights."""
    mesh = mesh_of(latent, data)
    other = made("sae")
    with torch.no_grad():
        other.W_dec.mul_(2.0)
        other.b_dec.add_(1.0)
    run = run_of(shard_of(other, mesh.latent), [], mesh)
    also = resume(run, Path(folder), mesh)
    assert also is not None and torch.equal(also["noise"], torch.ones(3))
    run.batches = batches()[also["seen"] :]
    return told(run, list(run))


def resumed_wrongly(latent: int, folder: str) -> dict:
    mesh = mesh_of(latent, 1)
    run = fit(
        shard_of(sae_of(20).double(), mesh.latent), [], Reconstruction(), engine=partial(ShardedEngine, mesh=mesh)
    )
    try:
        resume(run, Path(folder), mesh)
    except Refusal as sentence:
        return {"said": str(sentence)}
    return {"said": ""}


# ---------------------------------------------------------------- one stream


def each_its_own(several_sites: bool) -> dict:
    """Three dictionaries over the ranks, from one stream that rank 0 reads."""
    group = mesh_of(2, 1).everyone
    data: list[Any] = batches() if several_sites else [batch[A] for batch in batches()]
    runs = [run_of(made(kind), [], None) for kind in dealt(["sae", "units of a token", "sae"], group)]
    for batch in streamed(data if group.rank == 0 else None, group):
        for run in runs:
            run.step(batch)
    return {"learned": [run.learned.state_dict() for run in runs]}


def exchanged(latent: int) -> dict:
    """How many numbers a rank brings to the exchange of candidates, and gets, in one step."""
    mesh, seen = mesh_of(latent, 1), []
    plain = dist.all_gather

    def counted(parts: list[Tensor], x: Tensor, group: Any) -> None:
        seen.append((x.numel(), sum(part.numel() for part in parts)))
        plain(parts, x, group=group)

    shard = shard_of(made("sae"), mesh.latent)
    dist.all_gather = counted
    try:
        fit(shard, [], Reconstruction(), engine=partial(ShardedEngine, mesh=mesh)).step(batches(1)[0])
    finally:
        dist.all_gather = plain
    return {"seen": seen, "parameters": sum(p.numel() for p in shard.parameters())}


# ---------------------------------------------------------------- a rank that dies


def dies(folder: str, patience: float, how: str) -> dict:
    """Rank 1 is gone after its third step; the others say what they notice, and how soon."""
    mesh = open_mesh(2, patience=patience)
    run, began = run_of(shard_of(made("sae"), mesh.latent), batches(), mesh), 0.0
    try:
        for step in run:
            save_checkpoint(run, Path(folder), mesh, also={"seen": run.index, "noise": torch.ones(3)})
            began = time.monotonic()
            if step.index == 3 and mesh.everyone.rank == 1:
                os._exit(9) if how == "killed" else time.sleep(600)
    except RankLost as sentence:
        return {"said": str(sentence), "seconds": time.monotonic() - began}
    return {"said": "", "seconds": 0.0}
