"""Objectives over many ranks: the same terms, of which each rank makes its rows' part, for its own latents."""

from collections.abc import Sequence
from functools import cached_property
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from microtome.core.codes import Codes, DenseCodes
from microtome.core.errors import Refusal
from microtome.core.fit import Batch
from microtome.core.fit import Objective as AnyObjective
from microtome.core.rows import Rows
from microtome.dictionaries.coder import LinearCoder, Reading
from microtome.dictionaries.objectives import Attempt, AuxK, Objective, Reconstruction, Scaled, Sum, pre_of
from microtome.dictionaries.parallel.group import Group, lent
from microtome.dictionaries.parallel.mesh import Mesh
from microtome.dictionaries.parallel.shard import divided
from microtome.dictionaries.parallel.shared_topk import PartCodes


class SharedAttempt(Attempt):
    """A batch's rows of this rank, tried with its latents. What a term divides by is that of the whole batch."""

    def __init__(self, dictionary: LinearCoder, batch: Batch, mesh: Mesh):
        super().__init__(dictionary, rows_of(batch, mesh.data))
        self.mesh = mesh

    @cached_property
    def readings(self) -> list[Reading]:
        """Made with parameters that all ranks hold lent out: each rank's latents pull at them, and the pulls add up."""
        shared = {
            f"coder.{name}": lent(parameter, self.mesh.latent)
            for name, parameter in self.coder.named_parameters()
            if not divided(name)
        }
        return torch.func.functional_call(_Reads(self.coder), shared, (self.x,))

    @cached_property
    def variance(self) -> Float[Tensor, ""]:
        return spread(self.target, self.mesh.data)


class _Reads(nn.Module):
    """What a coder makes of its input, as a module's forward."""

    def __init__(self, coder: nn.Module):
        super().__init__()
        self.coder = coder

    def forward(self, x: Tensor) -> list[Reading]:
        return cast(LinearCoder, self.coder).readings(x)


def rows_of(batch: Batch, group: Group) -> Batch:
    """This rank's rows of a batch that all were given. Raises Refusal where some rank would have none."""
    if isinstance(batch, Rows):
        return Rows({name: part_of(x, group) for name, x in batch.values.items()})
    if isinstance(batch, Tensor):
        return part_of(batch, group)
    raise Refusal(f"{type(batch).__name__} are not divided among ranks; give rows of activations")


def part_of(x: Float[Tensor, "*site rows d"], group: Group) -> Float[Tensor, "*site some d"]:
    """This rank's share of the rows. Raises Refusal where there are fewer rows than ranks."""
    if x.shape[-2] < group.size:
        raise Refusal(f"a batch of {x.shape[-2]} rows does not divide over {group.size} ranks; make it larger")
    return x.tensor_split(group.size, -2)[group.rank]


def spread(x: Float[Tensor, "*site rows d"], group: Group) -> Float[Tensor, ""]:
    """The summed squared distance of all ranks' rows from their mean."""
    rows = group.count(x.shape[-2], x.device)
    mean = group.total(x.sum(-2, keepdim=True)) / rows
    return group.total((x - mean).pow(2).sum())


def over_ranks(objective: AnyObjective, mesh: Mesh) -> Objective:
    """The same objective, worked out by many. Raises Refusal for terms that are not known among ranks."""
    if isinstance(objective, Sum):
        return Sum(*(over_ranks(cast(Objective, part), mesh) for part in objective.parts))
    if isinstance(objective, Scaled):
        return Scaled(over_ranks(objective.part, mesh), objective.by)
    if isinstance(objective, Reconstruction):
        return objective
    if isinstance(objective, AuxK):
        return SharedAuxK(objective, mesh)
    raise Refusal(f"{type(objective).__name__} is not known among ranks; use Reconstruction and AuxK")


class SharedAuxK(Objective):
    """AuxK over the dead latents of all ranks: the k_aux largest of all of them explain what the living leave.

    `inner` counts the silence of this rank's latents, in tokens that any rank has seen.
    """

    def __init__(self, inner: AuxK, mesh: Mesh):
        super().__init__()
        self.inner, self.mesh = inner, mesh

    def terms(self, attempt: Attempt) -> dict[str, Float[Tensor, ""]]:
        self._count(attempt.codes)
        dead = (self.inner.silent > self.inner.dead_after).nonzero()[:, 0]
        number = self.mesh.latent.count(len(dead), dead.device)
        if not number:
            return {"auxk": attempt.x.new_zeros(())}
        error = attempt.error.detach()
        missed = (error - self._explained_by(dead, number, attempt)).pow(2).sum()
        return {"auxk": (self.inner.weight * missed / spread(error, self.mesh.data)).nan_to_num(0.0)}

    @torch.no_grad()
    def _count(self, codes: Codes) -> None:
        silent, data = self.inner.silent, self.mesh.data
        fired = torch.zeros_like(silent)
        fired[codes.entries().components] = 1
        silent += data.count(codes.shape.numel(), silent.device)
        silent.masked_fill_(data.most(fired).bool(), 0)

    def _explained_by(self, dead: Int[Tensor, "dead"], number: int, attempt: Attempt) -> Float[Tensor, "*site rows d"]:
        pre = torch.relu(pre_of(attempt.readings, dead))
        k = min(self.inner.k_aux or attempt.x.shape[-1] // 2, number)
        kept = strongest(pre.detach().flatten(0, -2), k, self.mesh.latent).view(pre.shape)
        codes = PartCodes(DenseCodes(pre * kept), self.mesh.latent)
        return attempt.coder.writing_of(dead, attempt.coder.resized(codes, attempt.x))


def strongest(values: Float[Tensor, "rows n"], k: int, group: Group) -> Bool[Tensor, "rows n"]:
    """Which of this rank's values above zero are among all ranks' k largest of a row; n may differ by rank.

    Values that are equal to the k-th are all kept.
    """
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[values.element_size()]
    candidates = values.topk(min(k, values.shape[1]), 1, sorted=False).values
    return (values > 0) & (values.view(bits) >= kth_largest(candidates.view(bits), k, group))


def kth_largest(keys: Int[Tensor, "rows c"], k: int, group: Group) -> Int[Tensor, "rows 1"]:
    """The k-th largest of what all ranks hold, row by row, found bit by bit; 0 where there are fewer.

    Only counts travel, one a row for each bit: many candidates are kept here, and handing them all round would cost
    ranks x k numbers a row. The bits of numbers that are not negative, read as integers, are in their order.
    """
    least = keys.new_zeros(len(keys), 1)
    for bit in reversed(range(torch.iinfo(keys.dtype).bits - 1)):
        trial = least | (1 << bit)
        as_large = (keys >= trial).sum(1, keepdim=True, dtype=torch.int32)
        least = torch.where(group.add_(as_large) >= k, trial, least)
    return least


def refuse_silence_of_others(objective: AnyObjective, latents: int) -> None:
    """Raises Refusal where an AuxK counts other latents than those of this rank."""
    parts: Sequence[nn.Module] = [m for m in cast(nn.Module, objective).modules() if isinstance(m, AuxK)]
    for part in parts:
        counted = len(cast(AuxK, part).silent)
        if counted != latents:
            raise Refusal(f"AuxK counts {counted} latents, and this rank holds {latents}; give AuxK(len(shard))")
