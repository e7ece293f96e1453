"""Learning, one step per turn of your own loop: logging, stopping and saving are yours."""

# pyright: reportUnknownMemberType=false

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from microtome.core.errors import NotFinite


@dataclass(frozen=True)
class Step:
    """One step: its number from 1, how many rows were seen by its end, the loss and its parts."""

    index: int
    rows: int
    loss: float
    parts: dict[str, float]

    def __str__(self) -> str:
        return f"step {self.index:5d}  loss {self.loss:.4f}  " + "  ".join(
            f"{k} {v:.4f}" for k, v in self.parts.items()
        )


@runtime_checkable
class Objective(Protocol):
    """What to make small: named terms whose sum is the loss. It may keep state (buffers) of its own."""

    def __call__(self, learned: nn.Module, batch: Tensor) -> Mapping[str, Tensor]: ...


def constant(step: int) -> float:
    return 1.0


class fit:  # noqa: N801  (a verb: used as `for step in fit(...)`)
    """Learn from batches: iterate over it, and each turn is one step of Adam.

    `schedule` maps the step's number, from 0, to a factor on the learning rate. After each step `learned.constrain()`
    is called where there is one. `state_dict` and `load_state_dict` carry weights, optimiser, objective and counts:
    a fit that goes on from them over the remaining batches equals an uninterrupted one, bit for bit.
    """

    def __init__(
        self,
        learned: nn.Module,
        batches: Iterable[Tensor],
        objective: Objective,
        *,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        schedule: Callable[[int], float] = constant,
        clip: float | None = None,
    ):
        self.learned, self.batches, self.objective = learned, batches, objective
        self.optimiser = torch.optim.Adam(learned.parameters(), lr, betas, fused=True)
        self.lr, self.schedule, self.clip = lr, schedule, clip
        self.index = self.rows = 0

    def __iter__(self) -> Iterator[Step]:
        for batch in self.batches:
            yield self.step(batch)

    def step(self, batch: Tensor) -> Step:
        """One step on one batch. Raises NotFinite before the weights are touched."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.lr * self.schedule(self.index)
        parts = self.objective(self.learned, batch)
        loss = torch.stack(list(parts.values())).sum()
        if not loss.isfinite():
            raise NotFinite(
                f"the loss is {loss.item()} at step {self.index + 1}; lower lr (now {self.lr:g}), "
                "or look for bad inputs"
            )
        self.optimiser.zero_grad()
        loss.backward()
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.learned.parameters(), self.clip)
        self.optimiser.step()
        constrain = getattr(self.learned, "constrain", None)
        if constrain is not None:
            constrain()
        self.index, self.rows = self.index + 1, self.rows + len(batch)
        return Step(self.index, self.rows, loss.item(), {name: part.item() for name, part in parts.items()})

    def state_dict(self) -> dict[str, Any]:
        kept = self.objective.state_dict() if isinstance(self.objective, nn.Module) else {}
        counts = {"index": self.index, "rows": self.rows}
        return {
            "learned": self.learned.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "objective": kept,
            **counts,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.learned.load_state_dict(state["learned"])
        self.optimiser.load_state_dict(state["optimiser"])
        if isinstance(self.objective, nn.Module):
            self.objective.load_state_dict(state["objective"])
        self.index, self.rows = state["index"], state["rows"]
