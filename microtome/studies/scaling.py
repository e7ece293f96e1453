"""Scaling and evaluating sparse autoencoders. Gao et al. 2024, arXiv 2406.04093.

TopK dictionaries of many widths n and sparsities k learn from one stream of activations, some from a part of it. Their
held-out losses are fitted by the joint law L(n, k), some of them left out of the fit and predicted. The loss is the
share of variance left unexplained on text that no dictionary saw.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.fit import fit
from microtome.core.site import Site
from microtome.dictionaries.activation_functions import TopK
from microtome.dictionaries.normalisation import UnitMeanSquare
from microtome.dictionaries.objectives import AuxK, Reconstruction
from microtome.dictionaries.sae import SAE
from microtome.evals.reconstruction import Variance
from microtome.models.load import load
from microtome.notebook.page import Heading, Sentence, Table
from microtome.store.records import Claim
from microtome.store.shards import Activations
from microtome.studies.chart import Chart, Series, short
from microtome.studies.joint_law import JointLaw, Points, fit_law, refit
from microtome.studies.material import harvested
from microtome.studies.page import Piece
from microtome.studies.study import Report, Setting, Study, Watch, at_least, at_most

PAPER = "Gao et al. 2024, Scaling and evaluating sparse autoencoders, arXiv 2406.04093"
RECALLED = JointLaw(a=-0.50, b_k=0.26, b_n=-0.017, g=-0.042, z=-1.32, e=-0.085)  # for GPT-4; from memory of the paper
SAMPLE = 50_000  # rows from which units are taken
RATE, RATE_WIDTH, RATE_MOST = 6e-3, 1024, 1.2e-2  # Adam's at this width; falls as its inverse root, as in the paper
REVIVE_AFTER = 250_000  # tokens
SPARSE = 8  # latents for each active one, at least, and dimensions of the stream: the law is of codes that are sparse


class Trial(NamedTuple):
    """One dictionary to train: its latents, how many are active, the tokens it learns from."""

    width: int
    k: int
    tokens: int
    seed: int


class Outcome(NamedTuple):
    """A trained dictionary's held-out loss, the latents that never fired there, and the operations of its training."""

    trial: Trial
    loss: float
    dead: float
    compute: float


@dataclass(frozen=True)
class Grid:
    """All widths with every k that is sparse there, on all the tokens; at the middle k also on parts of them."""

    widths: tuple[int, ...]
    ks: tuple[int, ...]
    tokens: int  # on the stream
    epochs: int  # passes over it; tokens of a trial count each time they are seen
    parts: tuple[float, ...]
    seeds: int
    batch: int
    held_out: int  # tokens to measure on

    @property
    def middle(self) -> int:
        return self.ks[len(self.ks) // 2]

    @property
    def places(self) -> list[tuple[int, int]]:
        """Widths with their k."""
        return [(n, k) for n, k in product(self.widths, self.ks) if n >= SPARSE * k]

    def trials(self, seed: int, tokens: int) -> list[Trial]:
        """Every dictionary, on a stream that holds so many tokens."""
        most = tokens // self.batch * self.batch * self.epochs
        whole = [Trial(n, k, most, seed + s) for (n, k), s in product(self.places, range(self.seeds))]
        some = [int(most * part) // self.batch * self.batch for part in self.parts]
        return whole + [Trial(n, k, t, seed) for (n, k), t in product(self.places, some) if k == self.middle]

    def held_back(self, width: int, k: int) -> bool:
        """Whether points here are predicted and not fitted: one in five, spread over widths and sparsities."""
        return (self.widths.index(width) + 2 * self.ks.index(k)) % 5 == 2


FULL = Grid((256, 512, 1024, 2048, 4096), (4, 8, 16, 32), 2_000_000, 2, (0.125, 0.25, 0.5), 2, 1024, 100_000)
QUICK = Grid((64, 128, 256, 512, 1024), (4, 8, 16, 32), 250_000, 2, (0.25, 0.5), 1, 512, 20_000)


class Scaling(Study):
    """The study: a grid of dictionaries on one stream, the joint law, and what it predicts."""

    name = "scaling"
    paper = PAPER
    question = "Does a dictionary's loss follow a law of its latents, their sparsity, tokens and compute?"

    def __init__(self, quick: Grid = QUICK, full: Grid = FULL):
        self.quick, self.full = quick, full

    def run(self, setting: Setting, watch: Watch) -> Report:
        grid = self.quick if setting.quick else self.full
        acts, held_out = streams(setting, grid, watch)
        trials = grid.trials(setting.seed, min(grid.tokens, len(acts)))
        found = list(outcomes(trials, acts, held_out, grid, setting, watch))
        return report(found, grid, setting)


STUDY = Scaling()


# ---------------------------------------------------------------- one stream, many dictionaries


def streams(setting: Setting, grid: Grid, watch: Watch) -> tuple[Activations, Float[Tensor, "rows d"]]:
    """Activations of the model's middle residual stream: those to learn from, and those to measure on."""
    model = load(setting.model, device=setting.device)
    sites = model.sites("resid_post.*")
    middle = [sites[len(sites) // 2]]
    acts = harvested(model, middle, setting, "train", grid.tokens, watch)
    held_out = harvested(model, middle, setting, "held_out", grid.held_out, watch)
    return acts, held_out.rows(torch.arange(len(held_out)))


def outcomes(
    trials: Sequence[Trial],
    acts: Activations,
    held_out: Float[Tensor, "rows d"],
    grid: Grid,
    setting: Setting,
    watch: Watch,
) -> Iterator[Outcome]:
    """Train all on one stream, each until it has had its tokens, and measure them."""
    batch, site = grid.batch, Site("stream", "batch d")
    units = UnitMeanSquare.of(acts.sample(SAMPLE, setting.seed))
    learning = [learner(trial, units, site, batch, setting.device) for trial in trials]
    steps = max(trial.tokens for trial in trials) // batch
    with watch.stage("fit", steps, "steps") as advance:
        for index, rows in enumerate(acts.batches(batch, epochs=grid.epochs, seed=setting.seed)):
            for trial, each in zip(trials, learning, strict=True):
                if index < trial.tokens // batch:
                    each.step(rows.to(setting.device))
            advance(index + 1)
    for trial, each in zip(trials, learning, strict=True):
        yield measured(trial, cast(SAE, each.learned), held_out.to(setting.device))


def learner(trial: Trial, units: UnitMeanSquare, site: Site, batch: int, device: str) -> fit:
    """A dictionary about to learn: warm-up over 50 steps, and a last fifth in which the rate falls to zero."""
    steps, generator = trial.tokens // batch, torch.Generator().manual_seed(trial.seed)
    sae = SAE(site, units.width, trial.width, TopK(trial.k), units, generator=generator).to(device)
    objective = Reconstruction() + AuxK(trial.width, dead_after=REVIVE_AFTER)
    return fit(
        sae, [], objective.to(device), lr=min(RATE_MOST, RATE * (RATE_WIDTH / trial.width) ** 0.5),
        schedule=lambda step: min(1.0, (step + 1) / 50, (1 - step / steps) / 0.2),
    )  # fmt: skip


@torch.no_grad()
def measured(trial: Trial, sae: SAE, held_out: Float[Tensor, "rows d"]) -> Outcome:
    variance, fired = Variance(sae), torch.zeros(trial.width, dtype=torch.bool, device=held_out.device)
    for rows in held_out.split(4096):
        codes = sae.encode(rows)
        variance.add(rows, sae.decode(codes))
        fired[codes.entries().components] = True
    dead = 1 - fired.float().mean().item()
    return Outcome(trial, 1 - variance.explained, dead, operations(trial, held_out.shape[1]))


def operations(trial: Trial, d: int) -> float:
    """Additions and multiplications of training: all latents are searched; only active ones are read and moved."""
    return float(trial.tokens * (2 * trial.width * d + 8 * trial.k * d))


# ---------------------------------------------------------------- what they show


class Fitted(NamedTuple):
    """The law fitted to what was not held back, and what it makes of the rest; errors are of the log-loss."""

    law: JointLaw
    again: list[JointLaw]  # refitted to resampled residuals
    seen: list[Outcome]
    unseen: list[Outcome]

    def interval(self, of: Callable[[JointLaw], float]) -> tuple[float, float]:
        """Between which a number of the law lies in 95% of the refits."""
        found = torch.tensor([of(law) for law in self.again], dtype=torch.float64)
        low, high = found.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
        return low, high


def points_of(found: Iterable[Outcome]) -> Points:
    return Points.of([(o.trial.width, o.trial.k, o.loss) for o in found])


def root_mean_square(errors: Float[Tensor, "points"]) -> float:
    return errors.pow(2).mean().sqrt().item()


def on_everything(found: Sequence[Outcome]) -> list[Outcome]:
    """Those that learned from the whole stream."""
    most = max(o.trial.tokens for o in found)
    return [o for o in found if o.trial.tokens == most]


def fitted(found: Sequence[Outcome], grid: Grid, seed: int) -> Fitted:
    whole = on_everything(found)
    seen = [o for o in whole if not grid.held_back(o.trial.width, o.trial.k)]
    unseen = [o for o in whole if grid.held_back(o.trial.width, o.trial.k)]
    law = fit_law(points_of(seen))
    return Fitted(law, refit(points_of(seen), law, torch.Generator().manual_seed(seed)), seen, unseen)


def beyond(found: Sequence[Outcome], grid: Grid) -> float:
    """The error at the largest width of a law that never saw it."""
    whole, largest = on_everything(found), max(grid.widths)
    law = fit_law(points_of(o for o in whole if o.trial.width < largest))
    return root_mean_square(law.errors(points_of(o for o in whole if o.trial.width == largest)))


def report(found: Sequence[Outcome], grid: Grid, setting: Setting) -> Report:
    fits = fitted(found, grid, setting.seed)
    return Report(claims(found, fits, grid, setting.quick), pieces(found, fits, grid))


def claims(found: Sequence[Outcome], fits: Fitted, grid: Grid, quick: bool) -> tuple[Claim, ...]:
    ours, theirs = "tolerance chosen here", "Gao et al. 2024, arXiv 2406.04093"
    k = float(grid.middle)
    slope_n, floor_k = fits.interval(lambda law: law.slope_n(k)), fits.interval(lambda law: law.e)
    return (
        at_most(
            "relative error (root mean square) at points held out of the fit", 0.06 if quick else 0.03,
            root_mean_square(fits.law.errors(points_of(fits.unseen))), source=ours,
        ),
        at_most(
            f"relative error at {max(grid.widths)} latents, of a law fitted to narrower dictionaries",
            0.12 if quick else 0.06, beyond(found, grid), source=ours,
        ),
        at_most(f"exponent of n in the reducible loss at k {k:g}, upper end of 95%", 0.0, slope_n[1], source=theirs),
        at_most("exponent of k in the irreducible loss, upper end of 95%", 0.0, floor_k[1], source=theirs),
        at_least("share of steps to more latents at which the loss falls", 0.9, falling(found, "width"), source=theirs),
        at_least("share of steps to larger k at which the loss falls", 0.9, falling(found, "k"), source=theirs),
        at_least("share of steps to more tokens at which the loss falls", 0.9, falling(found, "tokens"), source=theirs),
        at_most("exponent of compute along the frontier", 0.0, frontier_slope(frontier(found)), source=theirs),
    )  # fmt: skip


def falling(found: Sequence[Outcome], by: str) -> float:
    """Of pairs of neighbours that differ in nothing else, the share in which more of it has the lower loss."""
    rows: dict[tuple, list[tuple[int, float]]] = {}
    for o in found:
        rest = o.trial._replace(**{by: 0})
        rows.setdefault(tuple(rest), []).append((getattr(o.trial, by), o.loss))
    falls = [b[1] < a[1] for row in rows.values() for a, b in pairwise(sorted(row))]
    return sum(falls) / len(falls) if falls else math.nan


def frontier(found: Sequence[Outcome]) -> list[Outcome]:
    """Those at which no cheaper dictionary has a lower loss, from the cheapest on."""
    kept: list[Outcome] = []
    for o in sorted(found, key=lambda o: (o.compute, o.loss)):
        if not kept or o.loss < kept[-1].loss:
            kept.append(o)
    return kept


def frontier_slope(best: Sequence[Outcome]) -> float:
    """Of log-loss on log-compute, by least squares."""
    if len(best) < 2:
        return math.nan
    c = torch.tensor([o.compute for o in best], dtype=torch.float64).log()
    loss = torch.tensor([o.loss for o in best], dtype=torch.float64).log()
    return ((c - c.mean()) * (loss - loss.mean())).sum().item() / (c - c.mean()).pow(2).sum().item()


# ---------------------------------------------------------------- the page


def pieces(found: Sequence[Outcome], fits: Fitted, grid: Grid) -> tuple[Piece, ...]:
    k = grid.middle
    return (
        Heading("Latents and sparsity"),
        Sentence(
            "Full points were fitted, hollow ones held out. Lines are the law, dashed lines its irreducible part: what "
            f"no number of latents removes at that sparsity. There are at least {SPARSE} latents for each active one."
        ),
        Chart("Loss by latents, for each k", "latents", "share of variance unexplained", by_latents(fits, grid)),
        constants(fits),
        Sentence(
            "Intervals come from refitting to resampled residuals: they hold the noise of training as far as the law "
            "is true. The paper's constants are quoted from memory, for GPT-4 trained to convergence, and no claim "
            "rests on them."
        ),
        predictions(fits),
        Heading("Tokens and compute"),
        Chart(f"Loss by tokens, k {k}", "training tokens", "share of variance unexplained", by_tokens(found, grid)),
        Chart("Loss by compute", "operations of training", "share of variance unexplained", by_compute(found, grid)),
        Sentence(
            "A training step of a token costs 2nd operations to search n latents in d dimensions, and 8kd to read, "
            "write and move the k that are active. Lines join what no cheaper dictionary beats."
        ),
        everything(found),
    )


def by_latents(fits: Fitted, grid: Grid) -> list[Series]:
    drawn = []
    for i, k in enumerate(grid.ks):
        here = [math.log(width) for width, sparsity in grid.places if sparsity == k]
        n = torch.linspace(min(here), max(here), 40, dtype=torch.float64).exp()
        active = torch.full_like(n, k)
        drawn += [
            Series(f"k {k}", n.tolist(), fits.law.loss(n, active).tolist(), i),
            Series("", n.tolist(), fits.law.irreducible(active).tolist(), i, "dashed"),
            Series("", *columns(o for o in fits.seen if o.trial.k == k), i, "points"),
            Series("", *columns(o for o in fits.unseen if o.trial.k == k), i, "hollow"),
        ]
    visible = min(o.loss for o in (*fits.seen, *fits.unseen)) / 3  # an irreducible part far below all is not drawn
    return [s for s in drawn if s.x and min(s.y) > visible]


def columns(found: Iterable[Outcome]) -> tuple[list[float], list[float]]:
    kept = list(found)
    return [float(o.trial.width) for o in kept], [o.loss for o in kept]


def by_tokens(found: Sequence[Outcome], grid: Grid) -> list[Series]:
    drawn = []
    for i, n in enumerate(n for n, k in grid.places if k == grid.middle):
        here = sorted((o.trial.tokens, o.loss) for o in found if (o.trial.width, o.trial.k) == (n, grid.middle))
        x, y = [float(tokens) for tokens, _ in here], [loss for _, loss in here]
        drawn += [Series(f"{n} latents", x, y, i), Series("", x, y, i, "points")]
    return drawn


def by_compute(found: Sequence[Outcome], grid: Grid) -> list[Series]:
    drawn = []
    for i, k in enumerate(grid.ks):
        here = [o for o in found if o.trial.k == k]
        best = frontier(here)
        drawn += [
            Series(f"k {k}", [o.compute for o in best], [o.loss for o in best], i),
            Series("", [o.compute for o in here], [o.loss for o in here], i, "points"),
        ]
    return drawn


def constants(fits: Fitted) -> Table:
    rows = []
    for name in JointLaw._fields:
        low, high = fits.interval(lambda law, name=name: getattr(law, name))
        rows.append(
            [name, f"{getattr(fits.law, name):.3f}", f"{low:.3f} to {high:.3f}", f"{getattr(RECALLED, name):g}"]
        )
    caption = "L(n, k) = exp(a + b_k log k + b_n log n + g log k log n) + exp(z + e log k)"
    return Table(("constant", "found", "95%", "paper, GPT-4, from memory"), rows, caption, numeric=(1, 2, 3))


def predictions(fits: Fitted) -> Table:
    points = points_of(fits.unseen)
    rows = [
        [f"{o.trial.width:,}", str(o.trial.k), f"{o.loss:.4f}", f"{predicted:.4f}", f"{error:+.1%}"]
        for o, predicted, error in zip(
            fits.unseen, fits.law.loss(points.n, points.k).tolist(), fits.law.errors(points).tolist(), strict=True
        )
    ]
    return Table(("latents", "k", "measured", "predicted", "error"), rows, "Held out of the fit", numeric=(1, 2, 3, 4))


def everything(found: Sequence[Outcome]) -> Table:
    """Every dictionary with its figures."""
    rows = [
        [
            f"{o.trial.width:,}",
            str(o.trial.k),
            f"{o.trial.tokens:,}",
            f"{o.loss:.4f}",
            f"{o.dead:.1%}",
            short(o.compute),
        ]
        for o in sorted(found)
    ]
    names = ("latents", "k", "tokens", "loss", "silent on held-out text", "operations")
    return Table(names, rows, "Every dictionary", numeric=(1, 2, 3, 4, 5))
