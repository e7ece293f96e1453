"""Learning, one step per turn of your own loop: logging, stopping and saving are yours."""

# pyright: reportUnknownMemberType=false

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sized
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from microtome.core.errors import NotFinite, Refusal
from microtome.core.rows import Rows

Batch = Tensor | Rows  # what streams serve; a fit takes anything with a length that its objective knows how to read


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

    def __call__(self, learned: nn.Module, batch: Any) -> Mapping[str, Tensor]: ...


@dataclass(frozen=True)
class Adam:
    """How weights move: Adam's rates of forgetting and its epsilon, and the largest norm a gradient may have."""

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    clip: float | None = None


@runtime_checkable
class Engine(Protocol):
    """How one step is made: the parts of the loss, and the weights moved. It keeps the optimiser's state."""

    def step(self, batch: Any, lr: float) -> Mapping[str, Tensor]:
        """Move the weights once. Raises NotFinite before they are touched where the loss is not finite."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on, but for what is learned."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        ...


class Autograd:
    """The engine that serves everything: gradients by autograd, weights moved by torch's fused Adam.

    What is learned is in training mode only while a loss is made. With a `precision` the loss is made under autocast in
    it, and weights and moments stay as they are: `engine=partial(Autograd, precision=torch.bfloat16)`.
    """

    def __init__(self, learned: nn.Module, objective: Objective, adam: Adam, precision: torch.dtype | None = None):
        self.learned, self.objective, self.adam, self.precision = learned, objective, adam, precision
        self.optimiser = torch.optim.Adam(learned.parameters(), betas=adam.betas, eps=adam.eps, fused=True)

    def step(self, batch: Sized, lr: float) -> Mapping[str, Tensor]:
        """One step down the loss by Adam. Raises NotFinite where the loss is no number."""
        with training(self.learned), self._precision():
            parts = self.objective(self.learned, batch)
        loss = torch.stack(list(parts.values())).sum()
        refuse_not_finite(loss, lr)
        self.optimiser.zero_grad()
        loss.backward()
        if self.adam.clip is not None:
            nn.utils.clip_grad_norm_(self.learned.parameters(), self.adam.clip)
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.optimiser.step()
        constrain = getattr(self.learned, "constrain", None)
        if constrain is not None:
            constrain()
        return parts

    def _precision(self) -> AbstractContextManager[object]:
        if self.precision is None:
            return nullcontext()
        return torch.autocast(next(self.learned.parameters()).device.type, self.precision)

    @property
    def moments(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Adam's two running means for each weight that has moved, themselves and not copies."""
        state = self.optimiser.state
        named = self.learned.named_parameters()
        return {name: (state[p]["exp_avg"], state[p]["exp_avg_sq"]) for name, p in named if p in state}

    def state_dict(self) -> dict[str, Any]:
        """Adam's moments and settings, as torch.optim has them."""
        return self.optimiser.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises Refusal for the state of another kind of engine."""
        if "param_groups" not in state:
            raise Refusal("this state was saved by another engine; give fit the same, or begin anew")
        self.optimiser.load_state_dict(state)


@contextmanager
def training(learned: nn.Module) -> Generator[None]:
    """In training mode for the length of a block, whatever happens in it."""
    learned.train()
    try:
        yield
    finally:
        learned.eval()


def refuse_not_finite(loss: Tensor, lr: float) -> None:
    """Raises NotFinite for a loss that is infinite or no number."""
    if not loss.isfinite():
        raise NotFinite(f"the loss is {loss.item()}; lower lr (now {lr:g}), or look for bad inputs")


@runtime_checkable
class OffersEngine(Protocol):
    """A module that may know a quicker engine than autograd for an objective: the same step, made another way."""

    def engine(self, objective: Objective, adam: Adam) -> Engine | None:
        """The engine, or None where it knows of none for this objective here."""
        ...


def constant(step: int) -> float:
    """A schedule that changes nothing."""
    return 1.0


class fit:  # noqa: N801  (a verb: used as `for step in fit(...)`)
    """Learn from batches: iterate over it, and each turn is one step of Adam.

    `schedule` maps the step's number, from 0, to a factor on the learning rate. After each step `learned.constrain()`
    is called where there is one. Where `learned` offers an engine of its own for the objective, that makes the steps;
    pass `engine` to choose one. `state_dict` and `load_state_dict` carry weights, optimiser, objective and counts:
    a fit that goes on from them over the remaining batches equals an uninterrupted one, bit for bit.
    """

    def __init__(
        self,
        learned: nn.Module,
        batches: Iterable[Sized],
        objective: Objective,
        *,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        schedule: Callable[[int], float] = constant,
        clip: float | None = None,
        engine: Callable[[nn.Module, Objective, Adam], Engine] | None = None,
    ):
        self.learned, self.batches, self.objective = learned, batches, objective
        self.lr, self.schedule = lr, schedule
        self.engine = (engine or quickest)(learned, objective, Adam(betas, clip=clip))
        self.index = self.rows = 0

    def __iter__(self) -> Iterator[Step]:
        for batch in self.batches:
            yield self.step(batch)

    def step(self, batch: Sized) -> Step:
        """One step on one batch. Raises NotFinite before the weights are touched."""
        try:
            parts = self.engine.step(batch, self.lr * self.schedule(self.index))
        except NotFinite as error:
            raise NotFinite(f"step {self.index + 1}: {error}") from None
        self.index, self.rows = self.index + 1, self.rows + len(batch)
        found = {name: part.item() for name, part in parts.items()}
        return Step(self.index, self.rows, sum(found.values()), found)

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on, so that a fit goes on bit for bit; tensors are not copied."""
        kept = self.objective.state_dict() if isinstance(self.objective, nn.Module) else {}
        return {
            "learned": self.learned.state_dict(), "engine": self.engine.state_dict(), "objective": kept,
            "index": self.index, "rows": self.rows,
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.learned.load_state_dict(state["learned"])
        self.engine.load_state_dict(state["engine"])
        if isinstance(self.objective, nn.Module):
            self.objective.load_state_dict(state["objective"])
        self.index, self.rows = state["index"], state["rows"]


def quickest(learned: nn.Module, objective: Objective, adam: Adam) -> Engine:
    """The engine that `learned` offers for this objective, else autograd."""
    offered = learned.engine(objective, adam) if isinstance(learned, OffersEngine) else None
    return offered or Autograd(learned, objective, adam)
