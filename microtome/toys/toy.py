"""A toy: a small network that is meant to compute a known function, many seeds of it in one program."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from typing import TypeVar, cast

from jaxtyping import Float
from torch import Tensor, nn

from microtome.core.component import Dictionary
from microtome.core.errors import NoSuchPlace, Refusal
from microtome.core.fit import constant, fit

T = TypeVar("T", bound="Toy")
Sited = Mapping[str, tuple[str, str, str]]  # what `load` takes: site name -> (module path, "in" or "out", axes)


class Toy(nn.Module, ABC):
    """A plain module, x -> y. With `seeds` every weight has a leading seed axis; without, none has.

    `load(toy, sites=toy.sites)` names its sites. Weights stand as in nn.Linear: (out, in).
    """

    seeds: int | None
    sites: Sited

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Rows of x to rows of y. With a seed axis x may have it too, or is for all seeds; y has it."""

    @abstractmethod
    def target(self, x: Tensor) -> Tensor:
        """What y should be."""

    @abstractmethod
    def truth(self) -> Dictionary:
        """The components that there are to be found. Raises Refusal for several seeds: `toy.one(0).truth()`."""

    def one(self: T, seed: int) -> T:
        """The network of one seed, without the seed axis."""
        if self.seeds is None:
            raise Refusal("this toy has no seed axis: it is the one network already")
        if not -self.seeds <= seed < self.seeds:
            raise NoSuchPlace(f"this toy has {self.seeds} seeds, so no seed {seed}; give 0 to {self.seeds - 1}")
        return self.some(lambda weight: weight[seed], None)

    def some(self: T, take: Callable[[Tensor], Tensor], seeds: int | None) -> T:
        """A copy with these of its seeds, in every weight and buffer."""
        chosen = deepcopy(self)
        chosen.seeds = seeds
        for module in chosen.modules():
            for name, weight in module.named_parameters(recurse=False):
                setattr(module, name, nn.Parameter(take(weight.detach()).clone(), requires_grad=weight.requires_grad))
            for name, held in module.named_buffers(recurse=False):
                setattr(module, name, take(held).clone())
        return chosen

    def alone(self) -> None:
        """Raises Refusal where there is a seed axis."""
        if self.seeds is not None:
            raise Refusal(f"these are {self.seeds} networks; choose one with `one(0)`")


class Imitation:
    """The mean over rows of the sum of importance (target - y)², summed over seeds, which learn by themselves.

    `importance` broadcasts against y; Elhage et al. 2022 give feature i the weight .9^i or the like.
    """

    def __init__(self, importance: Tensor | float = 1.0) -> None:
        self.importance = importance

    def __call__(self, learned: nn.Module, batch: Float[Tensor, "... d_in"]) -> dict[str, Tensor]:
        toy = cast(Toy, learned)
        missed = self.importance * (toy.target(batch) - toy(batch)).pow(2)
        return {"missed": missed.sum(-1).mean(-1).sum()}


def learn(
    toy: Toy,
    batches: Iterable[Tensor],
    importance: Tensor | float = 1.0,
    *,
    lr: float = 5e-3,
    schedule: Callable[[int], float] = constant,
) -> float:
    """Train it in place by Adam, and return the last batch's loss a seed."""
    loss = float("nan")
    for step in fit(toy, batches, Imitation(importance), lr=lr, schedule=schedule):
        loss = step.loss
    return loss / (toy.seeds or 1)


def plus(x: Tensor, bias: Tensor | None) -> Tensor:
    """x with the bias of each seed."""
    return x if bias is None else x + bias[..., None, :]
