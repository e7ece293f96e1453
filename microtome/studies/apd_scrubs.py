"""What is left out and what it does: parts that a row does not use, half of them, and then those that it uses as well.

Braun et al. 2025 (arXiv 2501.14926), after causal scrubbing: the second should move outputs where the first does not.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.parameters.apd import APD, attributions, most_attributed, scrubbed
from microtome.parameters.decomposed import Decomposed
from microtome.studies.chart import Chart, Series


class Scrubs(NamedTuple):
    """Mean square errors of the output, row by row: unrelated parts left out, and related ones as well."""

    spared: Float[Tensor, "rows"]
    hurt: Float[Tensor, "rows"]

    @property
    def separation(self) -> float:
        """The chance that leaving out what a row uses moves its output more than another row's is moved (AUROC)."""
        more = (self.hurt[:, None] > self.spared[None]).float() + 0.5 * (self.hurt[:, None] == self.spared[None])
        return float(more.mean())

    @property
    def within_rows(self) -> float:
        """The share of rows that are moved more: the same, each row against itself."""
        return float((self.hurt > self.spared).float().mean())

    def plain(self) -> dict[str, list[float]]:
        return {"spared": self.spared.tolist(), "hurt": self.hurt.tolist()}

    @classmethod
    def read(cls, plain: Mapping[str, Sequence[float]]) -> "Scrubs":
        return cls(torch.tensor(plain["spared"]), torch.tensor(plain["hurt"]))

    def histogram(self, name: str, bins: int = 30) -> Chart:
        """The paper's histograms, on logarithmic axes: how many rows (plus one) have an error of this size."""
        both = torch.cat((self.spared, self.hurt)).clamp(min=1e-9).log10()
        edges = torch.linspace(float(both.min()), float(both.max()) + 1e-6, bins + 1)
        middle = (10 ** ((edges[1:] + edges[:-1]) / 2)).tolist()
        named = (("unrelated left out", self.spared), ("related left out", self.hurt))
        series = [Series(label, middle, counted(e, edges), i) for i, (label, e) in enumerate(named)]
        return Chart(f"{name}: parts left out", "mean square error of the output", "rows + 1", series)


def scrubs(
    learned: Decomposed, x: Float[Tensor, "rows d"], method: APD, k: float, generator: torch.Generator
) -> Scrubs:
    """The errors on rows of which the batch's k a row most attributed parts are related; k is per row of x.

    Rows that use no part are left aside: nothing is related to them.
    """
    used = most_attributed(attributions(learned, x, method.parts, method.of_parts), k)
    some = used.any(-1)
    x, used = x[some], used[some]
    with torch.no_grad():
        spared = scrubbed(learned, x, used, generator)
        return Scrubs(spared, scrubbed(learned, x, used, generator, against=True))


def counted(errors: Float[Tensor, "rows"], edges: Float[Tensor, "edges"]) -> list[float]:
    """One more than how many errors lie between edges, which are powers of ten."""
    low, high = edges[0].item(), edges[-1].item()
    return (torch.histc(errors.clamp(min=1e-9).log10(), len(edges) - 1, low, high) + 1).tolist()
