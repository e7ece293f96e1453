"""The geometry of superposition: features share dimensions in few shapes, and do so where a closed form says.

Elhage et al. 2022, Toy Models of Superposition. Learned here: five features in two dimensions; many features in a few,
over sparsity; and the smallest toys over importance and density, beside the loss of weights of 0 and ±1.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from microtome.core.schedule import Linear
from microtome.notebook.page import Heading, Sentence, Table
from microtome.store.records import Claim
from microtome.studies.chart import Chart, Series
from microtome.studies.drawing import Arrows, Tiles
from microtome.studies.page import Piece
from microtome.studies.study import Report, Setting, Study, Watch, at_least
from microtome.toys.geometry import (
    NONE,
    SHAPES,
    dimensionality,
    dimensions_per_feature,
    live,
    shapes,
)
from microtome.toys.phases import PHASES, Grid, borders, closed_form, learned, log_grid, within_one
from microtome.toys.sparse import Sparse
from microtome.toys.superposition import Superposition
from microtome.toys.toy import learn

SOURCE = "Elhage et al. 2022, Toy Models of Superposition"
STICKY, NEAR = 0.5, 0.05  # where D* stays while sparsity changes: two features to a dimension
TOLERANCE = 0.02  # of a feature's dimensionality about that of a shape


@dataclass(frozen=True)
class Size:
    """What learns and for how long. `ratios` are 1 / (1 - S), S the probability that a feature is zero."""

    features: int
    hidden: int
    ratios: tuple[float, ...]
    rows: int
    steps: int
    cells: int  # of a phase diagram, on each side
    searched: int  # steps for each of its cells
    rate: float = 0.01


QUICK = Size(40, 8, (1.3, 1.5, 1.75, 2.0, 2.35, 2.75, 3.2, 3.7, 4.3, 5.5, 7.0, 10.0), 256, 2000, 16, 300)
FULL = Size(80, 16, (1.3, 1.5, 1.75, 2.0, 2.35, 2.75, 3.2, 3.7, 4.3, 5.5, 7.0, 10.0, 15.0), 512, 8000, 20, 400)
POLYGONS = (1.0, 0.4, 0.2, 0.1, 0.05)  # densities


class Superposed(Study):
    name = "superposition"
    paper = "Elhage et al. 2022, Toy Models of Superposition, transformer-circuits.pub/2022/toy_model"
    question = "Which shapes do features take that share dimensions, and when do they share?"

    def __init__(self, quick: Size = QUICK, full: Size = FULL) -> None:
        self.quick, self.full = quick, full

    def run(self, setting: Setting, watch: Watch) -> Report:
        size = self.quick if setting.quick else self.full
        generator = torch.Generator(setting.device).manual_seed(setting.seed)
        with watch.stage("learn and judge", 4, "parts") as advance:
            five = polygons(size, generator)
            advance(1)
            swept = sweep(size, generator)
            advance(2)
            diagrams = []
            for features in (2, 3):
                diagrams.append(diagram(features, size, generator))
                advance(len(diagrams) + 2)
        return Report(claims(swept, diagrams), pieces(five, swept, diagrams, size))


STUDY = Superposed()


# ---------------------------------------------------------------- what is learned


def polygons(size: Size, generator: torch.Generator) -> Float[Tensor, "densities 2 5"]:
    """The encoders of five features in two dimensions, importance .9 to the feature's number, as in the paper."""
    importance = 0.9 ** torch.arange(5, device=generator.device)
    return encoders(5, 2, POLYGONS, importance, size, generator)


class Sweep(NamedTuple):
    """The geometry of one toy for each sparsity."""

    ratios: tuple[float, ...]
    overall: list[float]  # D*
    shares: list[Float[Tensor, "live"]]  # the dimensionality of each feature that is represented

    def sticky(self) -> list[int]:
        """The sparsities of the paper's plateau: those whose D* is about a half."""
        return [i for i, d in enumerate(self.overall) if abs(d - STICKY) <= NEAR]

    def named(self, which: list[int]) -> float:
        """The share of live features whose dimensionality is that of a named shape, over some of the sparsities."""
        if not which:
            return float("nan")
        return (shapes(torch.cat([self.shares[i] for i in which]), TOLERANCE) != NONE).float().mean().item()

    def smooth(self) -> float:
        """The same share were dimensionalities spread evenly over the range in which they were found."""
        found = torch.cat(self.shares)
        even = torch.linspace(found.min().item(), found.max().item(), 10_001)
        return (shapes(even, TOLERANCE) != NONE).float().mean().item()


def sweep(size: Size, generator: torch.Generator) -> Sweep:
    """Features of equal importance at every sparsity."""
    densities = tuple(1 / ratio for ratio in size.ratios)
    weights = encoders(size.features, size.hidden, densities, 1.0, size, generator)
    shares, held = dimensionality(weights), live(weights)
    each = [row[kept].cpu() for row, kept in zip(shares, held, strict=True)]
    return Sweep(size.ratios, dimensions_per_feature(weights).tolist(), each)


def encoders(
    features: int,
    hidden: int,
    densities: tuple[float, ...],
    importance: Float[Tensor, "features"] | float,
    size: Size,
    generator: torch.Generator,
) -> Float[Tensor, "densities hidden features"]:
    """The encoders of one toy for each density, all trained in one program; the rate falls in the second half."""
    toy = Superposition(features, hidden, generator=generator, seeds=len(densities))
    density = torch.tensor(densities, device=generator.device)[:, None, None]
    given = Sparse(features, density, seeds=len(densities)).batches(size.rows, size.steps, generator)
    learn(toy, given, importance, lr=size.rate, schedule=Linear(size.steps // 2, size.steps))
    return toy.encoder.detach()


class Diagram(NamedTuple):
    """The phases of the last of so many features, as learned and in closed form."""

    features: int
    found: Int[Tensor, "rows columns"]
    expected: Int[Tensor, "rows columns"]

    def agreement(self) -> float:
        """The share of border cells within one cell of the other diagram's border: the smaller of both ways."""
        one, other = borders(self.found), borders(self.expected)
        return min(within_one(one, other), within_one(other, one))


def diagram(features: int, size: Size, generator: torch.Generator) -> Diagram:
    grid: Grid = log_grid(size.cells)
    found = learned(features, *grid.cells(), generator=generator, steps=size.searched, fineness=11 - 2 * features)
    return Diagram(features, grid.phases(found), grid.phases(closed_form(features, *grid.cells())))


# ---------------------------------------------------------------- what they show


def claims(swept: Sweep, diagrams: list[Diagram]) -> tuple[Claim, ...]:
    named, smooth = swept.named(swept.sticky()), swept.smooth()
    most = "share of live features within .02 of a named shape's dimensionality, where D* is a half"
    return (
        at_least(f"{most}; a smooth distribution would give {smooth:.2f}", 0.9, named, source=SOURCE),
        at_least("sparsities at which D* stays within .05 of a half", 3.0, float(len(swept.sticky())), source=SOURCE),
        *(
            at_least(
                f"share of border cells within one cell of the closed form's, and the reverse: {d.features} features "
                f"in {d.features - 1}", 0.9, d.agreement(), source=SOURCE,
            )
            for d in diagrams
        ),
    )  # fmt: skip


def pieces(
    five: Float[Tensor, "densities 2 5"], swept: Sweep, diagrams: list[Diagram], size: Size
) -> tuple[Piece, ...]:
    panels = [
        (f"1 - S = {density:g}", [(x, y) for x, y in weight.T.tolist()])
        for density, weight in zip(POLYGONS, five, strict=True)
    ]
    return (
        Arrows("Five features in two dimensions, importance .9 to the feature's number", panels),
        Heading("Dimensionality"),
        Sentence(said(swept, size)),
        chart(swept),
        table(swept),
        Heading("Phases"),
        Sentence(
            "Cells are even in the logarithm: importance .1 to 10, density .01 to 1. A cell is what became of the last "
            "feature in the best of ten networks; the loss is summed over a grid of inputs, not sampled."
        ),
        *(
            Tiles(
                f"{d.features} features in {d.features - 1}: what becomes of the last", "its importance",
                "density, 1 - S", PHASES, [("learned", d.found.tolist()), ("closed form", d.expected.tolist())],
            )
            for d in diagrams
        ),
    )  # fmt: skip


def said(swept: Sweep, size: Size) -> str:
    every = swept.named(list(range(len(swept.ratios))))
    return (
        f"{size.features} features of equal importance in {size.hidden} dimensions, one network for each sparsity. Of "
        f"the live features {swept.named(swept.sticky()):.0%} lie within {TOLERANCE:g} of a named shape at the "
        f"{len(swept.sticky())} sparsities where D* is within {NEAR:g} of {STICKY:g}, {every:.0%} at all sparsities; "
        f"spread evenly over their range {swept.smooth():.0%} would."
    )


def chart(swept: Sweep) -> Chart:
    ends = [min(swept.ratios), max(swept.ratios)]
    named = (Series(s.name, ends, [s.share] * 2, 1 + i % 5, "dashed") for i, s in enumerate(SHAPES))
    x = [ratio for ratio, shares in zip(swept.ratios, swept.shares, strict=True) for _ in shares]
    y = [share for shares in swept.shares for share in shares.tolist()]
    overall = Series("D*, hidden / |W|²", swept.ratios, swept.overall, 0)
    return Chart(
        "Dimensionality", "1 / (1 - S)", "of a feature", [*named, Series("features", x, y, 0, "hollow"), overall]
    )


def table(swept: Sweep) -> Table:
    columns = ("1 / (1 - S)", "D*", "live", "within .02", *(s.name for s in SHAPES))
    rows = []
    for i, (ratio, overall, shares) in enumerate(zip(*swept, strict=True)):
        counts = torch.bincount(shapes(shares, TOLERANCE) + 1, minlength=len(SHAPES) + 1)[1:].tolist()
        rows.append([f"{ratio:g}", f"{overall:.3f}", str(len(shares)), f"{swept.named([i]):.0%}", *map(str, counts)])
    return Table(columns, rows, "Features by the shape that their dimensionality is of", tuple(range(1, len(columns))))
