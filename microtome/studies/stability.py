"""How far a result moves with what should not matter: seed, learning rate, and the size of the weights at first.

Five features in two dimensions, as Elhage et al. 2022 (Toy Models of Superposition) train them: the loss and the number
of features that find a place, over a full grid of the three, and how much of their variance each explains by itself.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from statistics import fmean, pstdev
from typing import NamedTuple

import torch

from microtome.dynamics.spread import Spread, spread
from microtome.notebook.page import Heading, Sentence, Table
from microtome.studies.chart import Chart, Series
from microtome.toys import Sparse, Superposition
from microtome.toys.toy import learn

FEATURES, HIDDEN, DENSITY = 5, 2, 0.05
PLACED = 0.5  # length from which a feature has a place; those that have are about 1 long
JUDGED = 20_000  # rows
VARIED = ("seed", "learning rate", "initial size")
Varied = tuple[int, float, float]


@dataclass(frozen=True)
class Grid:
    """Every combination is trained. `sizes`: of the first weights, over Glorot's."""

    seeds: int = 8
    rates: tuple[float, ...] = (1e-3, 5e-3, 2e-2)
    sizes: tuple[float, ...] = (0.2, 1.0, 3.0)
    steps: int = 2000
    rows: int = 256


class Ended(NamedTuple):
    """One network when it has learnt: its mean square error over all entries, and how many features have a place."""

    loss: float
    placed: float


def trained(grid: Grid, seed: int, tell: Callable[[float], None]) -> dict[Varied, Ended]:
    """All networks of one rate and size side by side; a seed begins alike at every rate, and sees the same rows."""
    found: dict[Varied, Ended] = {}
    for done, (rate, size) in enumerate(product(grid.rates, grid.sizes), 1):
        for network, ended in enumerate(of_setting(grid, rate, size, seed)):
            found[network, rate, size] = ended
        tell(done)
    return found


def of_setting(grid: Grid, rate: float, size: float, seed: int) -> list[Ended]:
    generator = torch.Generator().manual_seed(seed)
    toy = Superposition(FEATURES, HIDDEN, generator=generator, seeds=grid.seeds)
    with torch.no_grad():
        toy.encoder.mul_(size)
    learn(toy, Sparse(FEATURES, DENSITY, seeds=grid.seeds).batches(grid.rows, grid.steps, generator), lr=rate)
    with torch.no_grad():
        x = Sparse(FEATURES, DENSITY).draw(JUDGED, torch.Generator().manual_seed(seed + 1))
        missed = (toy(x.expand(grid.seeds, -1, -1)) - x).square().mean((1, 2)).tolist()
        placed = (toy.encoder.norm(dim=1) > PLACED).sum(1).tolist()
    return [Ended(loss, float(count)) for loss, count in zip(missed, placed, strict=True)]


# ---------------------------------------------------------------- what they show


def pieces(grid: Grid, found: Mapping[Varied, Ended]) -> tuple[Heading | Sentence | Table | Chart, ...]:
    by_loss = spread(VARIED, {setting: math.log10(ended.loss) for setting, ended in found.items()})
    by_place = spread(VARIED, {setting: ended.placed for setting, ended in found.items()})
    return (
        Heading("What should not matter"),
        Sentence(
            f"{len(found)} networks of {FEATURES} features in {HIDDEN} dimensions: {grid.seeds} seeds at every rate of "
            "learning and every size of the first weights. Shares are of the variance over all of them that each "
            "explains by itself; the rest is their interplay and chance."
        ),
        shares({"loss, in powers of ten": by_loss, "features with a place": by_place}),
        settings(grid, found),
        chart(grid, found),
    )


def shares(of: Mapping[str, Spread]) -> Table:
    rows = [
        [name, f"{one.mean:.4g}", f"{one.deviation:.2g}", *(f"{one.shares[v]:.0%}" for v in VARIED), f"{one.left:.0%}"]
        for name, one in of.items()
    ]
    head = ("result", "mean", "deviation", *VARIED, "the rest")
    return Table(head, rows, numeric=tuple(range(1, len(head))))


def settings(grid: Grid, found: Mapping[Varied, Ended]) -> Table:
    """Mean and deviation over seeds, at every learning rate and size."""
    rows: list[list[str]] = []
    for rate, size in product(grid.rates, grid.sizes):
        losses, placed = zip(*(found[seed, rate, size] for seed in range(grid.seeds)), strict=True)
        rows.append([f"{rate:g}", f"{size:g}", f"{fmean(losses):.2e}", f"{pstdev(losses):.1e}", f"{fmean(placed):.2f}"])
    head = ("learning rate", "initial size", "loss", "deviation over seeds", "features with a place")
    return Table(head, rows, numeric=(0, 1, 2, 3, 4))


def chart(grid: Grid, found: Mapping[Varied, Ended]) -> Chart:
    series: list[Series] = []
    for colour, size in enumerate(grid.sizes):
        means = [fmean(found[seed, rate, size].loss for seed in range(grid.seeds)) for rate in grid.rates]
        each = [(rate, found[seed, rate, size].loss) for rate in grid.rates for seed in range(grid.seeds)]
        rates, losses = zip(*each, strict=True)
        series += [
            Series(f"initial size {size:g}", grid.rates, means, colour),
            Series("", rates, losses, colour, "points"),
        ]
    return Chart("Loss of every network, and the mean over seeds", "learning rate", "mean square error", series)
