"""Stochastic parameter decomposition: rank-one parts of which few matter on any input, whatever is done to the others.

Bushnaq et al. 2025 (arXiv 2506.20790). Importances are learnt: a part may be masked as far as it is said not to matter,
and outputs must not move. Parts begin as the gradients that occur most often; what they leave over of a weight is
masked like a part of no importance.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from microtome.core.fit import fit
from microtome.core.schedule import Cosine
from microtome.parameters.addresses import Address
from microtome.parameters.begin import Begin, FromGradients, begun
from microtome.parameters.decompose import Learnt, Method, Tell, silent
from microtome.parameters.decomposed import Decomposed
from microtome.parameters.gates import GateKind, HingeGates
from microtome.parameters.objectives import (
    Distance,
    Faithful,
    Layerwise,
    Lp,
    Minimal,
    Power,
    Stochastic,
    Sum,
    squared,
)
from microtome.parameters.source import Feed, Occupied, Source

JUDGED = 4096  # rows on which seeds are compared, in batches of at most so many numbers
FEW = 512


@dataclass(frozen=True)
class SPD(Method):
    """`faithful` times faithfulness + stochastic + layerwise + `minimal` times minimality, by Adam, a cosine schedule.

    `parts` is how many each weight gets: more than it needs, since those that are not needed fall silent. The paper
    takes 40,000 steps of 4096 rows; from parts that begin in gradients, on rows that are not empty, far fewer of both
    do on its toys of superposition. `minimal` is for outputs five wide: distances are means over the output's width,
    so wider ones want a smaller cost (see docs/parameters.md).
    """

    parts: int = 20
    minimal: float = 4e-3
    power: Power = field(default_factory=Lp)
    frequency: float = 0.0
    steps: int = 1500  # pyright: ignore[reportIncompatibleMethodOverride]
    rows: int = 128
    lr: float = 5e-3
    faithful: float = 1.0
    gates: GateKind = field(default_factory=HingeGates)
    begin: Begin = field(default_factory=FromGradients)
    distance: Distance = squared

    def objective(self, generator: torch.Generator) -> Sum:
        enough = Stochastic() + Layerwise()
        terms = self.faithful * Faithful() + enough + self.minimal * Minimal(self.power, self.frequency)
        return terms.of(self.distance, generator)

    def learn(
        self,
        module: nn.Module,
        addresses: Sequence[Address],
        source: Source,
        lead: tuple[int, ...],
        generator: torch.Generator,
        tell: Tell = silent,
    ) -> Learnt:
        feed = Occupied(source, generator)
        sample = feed.batch(min(JUDGED, max(FEW, 32 * self.parts)), lead, generator).x  # each feature alone, often
        size = dict.fromkeys(addresses, self.parts)
        learned = begun(module, addresses, sample, size, self.begin, generator, lead)
        learned = learned.with_gates(self.gates, generator)
        objective = self.objective(generator)
        batches = feed.batches(self.rows, self.steps, lead, generator)
        for step in fit(learned, batches, objective, lr=self.lr, schedule=Cosine(0, self.steps)):
            tell(step.index)
        prune(learned, feed.batch(JUDGED, lead, generator).x)
        return Learnt(learned, judged(learned, objective, feed, lead, generator))


@torch.no_grad()
def prune(learned: Decomposed, x: Tensor, above: float = 0.1) -> None:
    """Parts whose importance is above this on no row become zero: what they were goes to the rest."""
    for place, g in enumerate(learned.look(x).importance.values()):
        silent = (g <= above).flatten(len(learned.lead), -2).all(-2)
        for factor in learned.of(place).parameters():
            factor[silent] = 0.0


@torch.no_grad()
def judged(
    learned: Decomposed, objective: Sum, feed: Feed, lead: tuple[int, ...], generator: torch.Generator
) -> Tensor:
    """Each seed's loss on fresh rows: what a seed is chosen by."""
    batches = feed.batches(FEW, JUDGED // FEW, lead, generator)
    each = [torch.stack(list(objective.by_seed(learned, batch).values())).sum(0) for batch in batches]
    return torch.stack(each).mean(0).reshape(-1)
