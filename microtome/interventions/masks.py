"""How much of each component is kept, row by row: what is not important may be kept or not, and nothing changes.

A mask is drawn between a component's importance g and 1:  m = g + (1 - g) r,  0 <= r <= 1. With r = 0 only what is
important is kept, with r = 1 all of it; stochastic masks draw r, adversarial ones look for the r that does most harm.
What the components leave over (a dictionary's error, the rest of a weight) is one more component of importance 0.
Bushnaq et al. 2025, Stochastic Parameter Decomposition (arXiv 2506.20790).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.errors import Refusal

Importance = Mapping[str, Float[Tensor, "*rows _"]]
Numbers = Mapping[str, Float[Tensor, "..."]]  # that broadcast against importances


@dataclass(frozen=True)
class Masks:
    """For every place by name: a factor for each row and component, and one for each row's rest (None: left out)."""

    parts: dict[str, Float[Tensor, "..."]]
    rest: dict[str, Float[Tensor, "... 1"]] | None = None

    def at(self, name: str) -> tuple[Tensor, Tensor | None]:
        """The mask of the parts of one weight, and that of the rest where there is one."""
        return self.parts[name], None if self.rest is None else self.rest[name]


def of_importance(importance: Importance, r: Numbers, rest: Numbers | None) -> Masks:
    """m = g + (1 - g) r, and the rest at its own r."""
    parts = {name: g + (1 - g) * r[name] for name, g in importance.items()}
    return Masks(parts, None if rest is None else dict(rest))


def kept(importance: Importance, *, rest: float = 1.0) -> Masks:
    """Everything: the network itself, if the rest is kept as well."""
    return constant(importance, 1.0, rest)


def constant(importance: Importance, parts: float, rest: float) -> Masks:
    """One factor for all parts, one for the rest."""
    return Masks(
        {name: torch.full_like(g, parts) for name, g in importance.items()},
        {name: torch.full_like(g[..., :1], rest) for name, g in importance.items()},
    )


def only_important(importance: Importance) -> Masks:
    """Importances themselves as masks, nothing of the rest."""
    return Masks(dict(importance), {name: torch.zeros_like(g[..., :1]) for name, g in importance.items()})


def rounded(importance: Importance, above: float = 0.0) -> Masks:
    """Whole parts whose importance is above a threshold, and nothing of the others. Raises Refusal outside [0, 1)."""
    if not 0 <= above < 1:
        raise Refusal(f"importances lie between 0 and 1, so none is above {above:g} and some not; give 0 to below 1")
    return only_important({name: (g > above).to(g) for name, g in importance.items()})


def stochastic(importance: Importance, generator: torch.Generator | None = None) -> Masks:
    """r drawn uniformly, for each row and part by itself and for the rest."""

    def drawn(like: Tensor) -> Tensor:
        return torch.rand(like.shape, generator=generator, dtype=like.dtype, device=like.device)

    r = {name: drawn(g) for name, g in importance.items()}
    return of_importance(importance, r, {name: drawn(g[..., :1]) for name, g in importance.items()})


class Choice(NamedTuple):
    """How far what is not important is kept, by place: r for the parts and for the rest, for each row or for all."""

    parts: dict[str, Float[Tensor, "..."]]
    rest: dict[str, Float[Tensor, "... 1"]]

    def masks(self, importance: Importance) -> Masks:
        """m = g + (1 - g) r on every row."""
        rest = {name: r.expand(*importance[name].shape[:-1], 1) for name, r in self.rest.items()}
        return of_importance(importance, self.parts, rest)

    def fits(self, importance: Importance) -> bool:
        """Whether it is for these places, in their shapes or shared by rows of them."""
        same = self.parts.keys() == importance.keys()
        return same and all(
            r.shape[-1] == g.shape[-1] and all(a in (1, b) for a, b in zip(r.shape, g.shape, strict=True))
            for r, g in ((r, importance[name]) for name, r in self.parts.items())
        )

    def still(self) -> "Choice":
        """The same numbers, and nothing to learn."""
        return Choice(*({name: r.detach().clone() for name, r in side.items()} for side in self))


@dataclass(frozen=True)
class Adversary:
    """Ascent by signs: r moves by `size` toward more harm, `steps` times, within [0, 1].

    With `shared`, one r serves all rows of an axis (the last before the parts), so that no row's r fits it alone. As
    in the evaluation of VPD (Goodfire 2026): 20 steps, steps times size about 2, shared.
    """

    steps: int = 20
    size: float = 0.1
    shared: bool = True

    def __post_init__(self) -> None:
        if self.steps < 0 or self.size <= 0:
            raise Refusal(f"{self.steps} steps of {self.size:g} are no ascent; give 0 or more steps, of more than 0")

    def worst(
        self, importance: Importance, loss: Callable[[Masks], Float[Tensor, ""]], generator: torch.Generator | None
    ) -> Choice:
        """The choice that did most harm on the way, the drawn beginning included."""
        return max(self.path(importance, loss, generator), key=lambda step: step[1])[0]

    def path(
        self,
        importance: Importance,
        loss: Callable[[Masks], Float[Tensor, ""]],
        generator: torch.Generator | None,
        begin: Choice | None = None,
    ) -> Iterator[tuple[Choice, float]]:
        """Each choice on the way and its loss; first the one to begin with, drawn where none is given."""
        fixed = {name: g.detach() for name, g in importance.items()}
        now = self._begin(fixed, generator) if begin is None else begin.still()
        leaves = [r.requires_grad_(True) for side in now for r in side.values()]
        for step in range(self.steps + 1):
            with torch.enable_grad():
                harm = loss(now.masks(fixed))
                felt = torch.autograd.grad(harm, leaves, allow_unused=True) if step < self.steps else []
            yield now.still(), float(harm.detach())
            for leaf, gradient in zip(leaves, felt, strict=False):
                if gradient is not None:
                    leaf.data.add_(self.size * gradient.sign()).clamp_(0, 1)

    def _begin(self, fixed: Importance, generator: torch.Generator | None) -> Choice:
        def drawn(g: Tensor, width: int) -> Tensor:
            rows = (*g.shape[:-2], 1) if self.shared else g.shape[:-1]
            return torch.rand((*rows, width), generator=generator, dtype=g.dtype, device=g.device)

        parts = {name: drawn(g, g.shape[-1]) for name, g in fixed.items()}
        return Choice(parts, {name: drawn(g, 1) for name, g in fixed.items()})
