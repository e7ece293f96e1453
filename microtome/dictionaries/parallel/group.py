"""Processes that hold something together, and what they tell one another, with gradients where a loss goes through."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor

from microtome.core.errors import Refusal


class RankLost(Refusal):
    """A process died, or answered too late. What was being fitted goes on from its last checkpoint."""


@dataclass(frozen=True, eq=False)
class Group:
    """`size` processes, of which this is number `rank`. Each call is made by all of them, in the same order.

    Every method raises RankLost where one of the others no longer answers.
    """

    handle: Any  # torch's process group; None where this process is alone
    size: int
    rank: int

    def add_(self, x: Tensor) -> Tensor:
        """The sum of what all hold, in place."""
        return self._reduce_(x, dist.ReduceOp.SUM)

    def total(self, x: Tensor) -> Tensor:
        """The sum of what all hold."""
        return self.add_(x.detach().clone())

    def most(self, x: Tensor) -> Tensor:
        """The largest of what all hold, number by number."""
        return self._reduce_(x.detach().clone(), dist.ReduceOp.MAX)

    def count(self, number: int, device: torch.device) -> int:
        """The sum of everybody's number."""
        return int(self.add_(torch.tensor(number, device=device)))

    def beside(self, x: Shaped[Tensor, "rows n"]) -> Shaped[Tensor, "rows all"]:
        """What all hold, side by side in the order of their ranks."""
        if self.size == 1:
            return x
        parts = [torch.empty_like(x) for _ in range(self.size)]
        with self.answering():
            dist.all_gather(parts, x.contiguous(), group=self.handle)
        return torch.cat(parts, 1)

    def handed(self, given: Any, source: int = 0) -> Any:
        """A plain value that number `source` gives to all."""
        box = [given]
        if self.size > 1:
            with self.answering():
                dist.broadcast_object_list(box, group=self.handle, group_src=source)
        return box[0]

    def filled_(self, x: Tensor, source: int = 0) -> Tensor:
        """What number `source` holds, in everybody's tensor."""
        if self.size > 1:
            with self.answering():
                dist.broadcast(x, group=self.handle, group_src=source)
        return x

    def share(self, width: int) -> int:
        """How many of `width` latents each holds. Raises Refusal where they do not divide evenly."""
        if width % self.size:
            near = max(self.size, round(width / self.size) * self.size)
            raise Refusal(f"width {width} does not divide over {self.size} ranks; take {near}, or other ranks")
        return width // self.size

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Turn what torch raises where a process is gone into a sentence."""
        try:
            yield
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise RankLost(
                f"rank {self.rank} of {self.size} waits for a process that died or hangs ({reason}); "
                "start all again, and they go on from the last checkpoint"
            ) from error

    def _reduce_(self, x: Tensor, how: Any) -> Tensor:
        if self.size > 1:
            with self.answering():
                dist.all_reduce(x, how, group=self.handle)
        return x

    def __deepcopy__(self, memo: dict) -> "Group":
        return self


ALONE = Group(None, 1, 0)


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        return group.total(x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        return grad_outputs[0], None


class _Lent(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.group.total(grad_outputs[0]), None


def summed(x: Tensor, group: Group) -> Tensor:
    """The sum of everybody's x. All make the same loss of it, so each x has the whole gradient of that loss.

    Forward and backward of the pair `summed` and `lent` are those of Shoeybi et al. 2019 (arXiv 1909.08053, section 3).
    """
    return _Summed.apply(x, group) if group.size > 1 else x


def lent(x: Tensor, group: Group) -> Tensor:
    """x itself, of which everybody makes something else: its gradient is the sum of everybody's."""
    return _Lent.apply(x, group) if group.size > 1 else x
