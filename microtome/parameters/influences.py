"""What the parts of one weight do to those of a later one, along everything that lies between but other parts.

The attributions of Goodfire 2026 (VPD): from part s to part t,  (slope of t's activation in s's) * s's activation * s's
importance, where what every other decomposed weight returns is held fixed. So influences of all weights before, of what
they leave over and of biases add up where the way is linear.
"""

# pyright: reportUnknownMemberType=false

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.errors import NoSuchComponent, Refusal
from microtome.parameters.decomposed import Decomposed, Given, times
from microtome.parameters.products import applied, laid_out, padded
from microtome.parameters.uses import Use


@torch.enable_grad()
def influences(
    learned: Decomposed, x: Given, source: str, target: str
) -> Float[Tensor, "targets rows *positions sources"]:
    """How much of each target part's activation, summed over positions, comes directly from each source part.

    Each row's own. Parts without gates count with importance 1. Raises NoSuchComponent for a weight that was not
    decomposed, Refusal for several seeds and where the target does not come after the source.
    """
    if learned.lead:
        raise Refusal("this holds several seeds; take one by itself (see `decompose.of_seed`)")
    path = Path(learned, place_of(learned, source), place_of(learned, target))
    learned.forward_through(x, path.visit)
    if path.activation is None or path.reached is None or not path.reached.requires_grad:
        raise Refusal(f"nothing leads from {source} to {target} but through other weights that were taken apart")
    each = path.reached.flatten(1, -2).sum(1) if path.reached.ndim > 2 else path.reached
    basis = torch.eye(each.shape[-1], device=each.device, dtype=each.dtype)[:, None].expand(-1, *each.shape)
    (slopes,) = torch.autograd.grad(each, path.activation, basis, is_grads_batched=True)
    gate = learned.look(x).importance.get(source)
    active = path.activation.detach() * (1.0 if gate is None else gate.detach())
    return slopes * active


def place_of(learned: Decomposed, name: str) -> int:
    """The place of a weight. Raises NoSuchComponent where it was not decomposed."""
    if name not in learned.names:
        raise NoSuchComponent(f"no weight {name!r} was decomposed; there are: {', '.join(learned.names)}")
    return learned.names.index(name)


class Path:
    """One forward pass that remembers the source's activations and what of them arrives at the target."""

    def __init__(self, learned: Decomposed, source: int, target: int):
        self.learned, self.source, self.target = learned, source, target
        self.activation: Tensor | None = None
        self.reached: Tensor | None = None

    def visit(self, use: Use) -> Tensor:
        """What the network itself computes; gradients pass through the source's parts alone."""
        plain = use.plain(use.bias)
        if self._is(self.target, use) and self.reached is None:
            self.reached = self._activation(self.target, use)
        if not self._is(self.source, use) or self.activation is not None:
            return plain.detach()
        self.activation = self._activation(self.source, use).detach().requires_grad_(True)
        made = times(self.activation, self.learned.of(self.source).write.detach(), ())
        return laid_out(made - made.detach(), use) + plain.detach()

    def _is(self, place: int, use: Use) -> bool:
        return self.learned.addresses[place].name == use.name and not use.turned

    def _activation(self, place: int, use: Use) -> Tensor:
        return applied(padded(use, self.learned.addresses[place]), self.learned.of(place).read.detach(), ())
