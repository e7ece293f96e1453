"""One stream for many processes: rank 0 reads batches, all get them. So a model runs once for N dictionaries."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from microtome.core.errors import Refusal
from microtome.core.fit import Batch
from microtome.core.rows import Rows
from microtome.dictionaries.parallel.group import Group

T = TypeVar("T")
Shapes = list[tuple[str | None, tuple[int, ...], torch.dtype]]


def streamed(
    batches: Iterable[Batch] | None, group: Group, device: torch.device | str = "cpu"
) -> Iterator[Tensor | Rows]:
    """The batches that rank 0 of the group has (it gives them, the others None), on every rank.

    Every rank must take all of them. Raises RankLost where another rank is gone, or where reading failed on rank 0.
    """
    if (batches is None) == (group.rank == 0):
        raise Refusal(f"rank {group.rank} was given {'no ' if batches is None else ''}batches; rank 0 alone reads them")
    source = iter(batches or ())
    while True:
        batch = next(source, None)
        shapes = group.handed(None if batch is None else shapes_of(batch))
        if shapes is None:
            return
        yield taken(batch, shapes, group, device)


def dealt(things: Sequence[T], group: Group) -> Sequence[T]:
    """This rank's of many things: number rank, and every `size`-th from there."""
    return things[group.rank :: group.size]


def shapes_of(batch: Batch) -> Shapes:
    """What another rank must know to receive a batch. Raises Refusal for what is no rows."""
    if not isinstance(batch, Tensor | Rows):
        raise Refusal(f"{type(batch).__name__} are not streamed to other ranks; give rows of activations")
    held = batch.values if isinstance(batch, Rows) else {None: batch}
    return [(name, tuple(x.shape), x.dtype) for name, x in held.items()]


def taken(batch: Batch | None, shapes: Shapes, group: Group, device: torch.device | str) -> Tensor | Rows:
    """The batch, as it arrives from the rank that has it."""
    found: dict[str | None, Tensor] = {}
    for name, shape, dtype in shapes:
        mine = batch.values[str(name)] if isinstance(batch, Rows) else batch
        empty = torch.empty(shape, dtype=dtype, device=device)
        found[name] = group.filled_(mine.to(device).contiguous() if isinstance(mine, Tensor) else empty)
    return found[None] if None in found else Rows({str(name): x for name, x in found.items()})
