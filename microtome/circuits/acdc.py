"""Automatic circuit discovery: edges are tried one at a time, from the logits back, and left out where little is lost.

Conmy et al. 2023, Towards Automated Circuit Discovery for Mechanistic Interpretability (arXiv 2304.14997), Algorithm 1.
Each trial is an exact run of the circuit as it then stands; what is left out carries the corrupt prompt.
"""

# pyright: reportUnknownMemberType=false

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor

from microtome.circuits.circuit_run import CircuitRun
from microtome.circuits.edges import Edge, EdgeGraph
from microtome.core.errors import Refusal


class Trial(NamedTuple):
    """One edge: how far leaving it out moved the measure from where it stood, and whether it stays."""

    edge: Edge
    moved: float
    stays: bool


@dataclass(eq=False)
class ACDC:
    """A search over the edges of a run; iterating does it, trial by trial, and `circuit` is what is left.

    An edge stays where leaving it out moves the measure's mean by at least `threshold`, in the measure's own unit.
    """

    run: CircuitRun
    threshold: float

    def __post_init__(self) -> None:
        if self.threshold < 0:
            raise Refusal(f"a threshold of {self.threshold} keeps every edge; give a positive one")
        anatomy = self.run.wired.anatomy
        scores = torch.zeros(1, *anatomy.possible.shape)
        self.circuit = EdgeGraph.of(anatomy, scores, f"moves {self.run.measure.label}")
        self.value = self._measured(self.circuit.kept)

    def __iter__(self) -> Iterator[Trial]:
        anatomy = self.circuit.anatomy
        for r in reversed(range(len(anatomy.readers))):
            if not self.circuit.used()[r]:
                self._leave_out_all(r)
                continue
            for w in reversed(anatomy.possible[:, r].nonzero().flatten().tolist()):
                yield self._tried(w, r)

    def _tried(self, w: int, r: int) -> Trial:
        kept = self.circuit.kept.clone()
        kept[w, r] = False
        value = self._measured(kept)
        moved = value - self.value
        self.circuit.each[0, w, r] = moved
        stays = abs(moved) >= self.threshold
        if not stays:
            self.circuit, self.value = replace(self.circuit, kept=kept), value
        anatomy = self.circuit.anatomy
        return Trial(Edge(anatomy.writers[w], anatomy.readers[r]), moved, stays)

    def _leave_out_all(self, r: int) -> None:
        """What reads for nobody needs no trial."""
        kept = self.circuit.kept.clone()
        kept[:, r] = False
        self.circuit = replace(self.circuit, kept=kept)

    @torch.no_grad()
    def _measured(self, kept: Bool[Tensor, "writers readers"]) -> float:
        return float(self.run(kept[None].float())[0].mean())


def acdc(run: CircuitRun, threshold: float) -> EdgeGraph:
    """The circuit that the whole search leaves, without edges on no path from the embedding to the logits."""
    search = ACDC(run, threshold)
    for _ in search:
        pass
    return search.circuit.connected()
