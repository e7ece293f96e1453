"""A mask over edges, learnt: as few edges as will keep the measure where it is in the whole network.

Each edge is kept with a probability, drawn anew at every step from a hard concrete distribution (Louizos et al. 2018,
arXiv 1712.01312), so gradients reach it; the loss is the squared distance of the measure from its clean value, and a
price on the share of edges that is kept. Bhaskar et al. 2024, Finding Transformer Circuits with Edge Pruning (arXiv
2406.16778).
"""

# pyright: reportUnknownMemberType=false

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.circuits.circuit_run import CircuitRun
from microtome.circuits.edges import EdgeGraph

COLDNESS, LOW, HIGH = 2 / 3, -0.1, 1.1  # Louizos et al. 2018, Section 4: temperature, and the stretch


class MaskStep(NamedTuple):
    """Where the mask stands: the loss, the measure's squared distance from its clean value, the share of edges kept."""

    loss: float
    distance: float
    kept: float


class EdgeMask:
    """A mask that is fitted by iterating: `for step in EdgeMask(run, price=1e-2, steps=200): ...`, then `circuit()`.

    `price` is what keeping all edges costs, in squared units of the measure. Randomness comes from the generator.
    """

    def __init__(
        self,
        run: CircuitRun,
        *,
        price: float,
        steps: int = 200,
        lr: float = 0.1,
        generator: torch.Generator | None = None,
    ) -> None:
        self.run, self.price, self.steps, self.generator = run, price, steps, generator
        self.possible = run.wired.anatomy.possible
        self.logits = torch.full(self.possible.shape, 2.0).requires_grad_()  # begun with most edges kept
        self.optimiser = torch.optim.Adam([self.logits], lr=lr)
        with torch.no_grad():
            self.goal = run(self.possible[None].float())[0]

    def __iter__(self) -> Iterator[MaskStep]:
        for _ in range(self.steps):
            self.optimiser.zero_grad()
            distance = (self.run(self.drawn()[None])[0] - self.goal).pow(2).mean()
            kept = self.chances()[self.possible].mean()
            loss = distance + self.price * kept
            (self.logits.grad,) = torch.autograd.grad(loss, self.logits)
            self.optimiser.step()
            yield MaskStep(loss.item(), distance.item(), kept.item())

    def drawn(self) -> Float[Tensor, "writers readers"]:
        """One mask: near 0 or 1 mostly, and often exactly."""
        u = torch.rand(self.logits.shape, generator=self.generator).clamp(1e-6, 1 - 1e-6)
        soft = torch.sigmoid((u.logit() + self.logits) / COLDNESS)
        return (soft * (HIGH - LOW) + LOW).clamp(0, 1) * self.possible

    def chances(self) -> Float[Tensor, "writers readers"]:
        """How probable it is that an edge is not left out entirely."""
        return torch.sigmoid(self.logits - COLDNESS * torch.tensor(-LOW / HIGH).log())

    def circuit(self) -> EdgeGraph:
        """The edges that are more probably kept than not, scored by that probability."""
        chances = (self.chances().detach() * self.possible)[None]
        found = EdgeGraph.of(self.run.wired.anatomy, chances, "chance of being kept")
        return found.above(0.5)
