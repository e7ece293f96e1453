"""How much of a known truth a dictionary found: its directions, and when each is active.

Latents and true features are paired so that their directions agree best overall, each used once; activity is judged
pair by pair. Metrics as in SynthSAEBench (arXiv 2602.14687), each beside what a dictionary of chance scores.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from microtome.core.component import Dictionary
from microtome.core.pairing import UNPAIRED, best_pairs
from microtome.data.synthetic import Drawn, Synthetic, Truth


@dataclass(frozen=True)
class Estimate:
    """A mean over features or latents, its 95% bootstrap interval over these, and the same of a dictionary of chance.

    Not a number where there is nothing to average, such as the precision of latents of which none fires.
    """

    found: float
    low: float
    high: float
    chance: float


@dataclass(frozen=True)
class Recovery:
    """What a dictionary recovered of the truth.

    mcc: mean absolute cosine of paired directions. precision, recall, f1: of a latent's firing as a detector of its
    feature's; over pairs whose latent fires, whose feature fires, of which either does. uniqueness: distinct nearest
    features per live latent, 1 where no two share one. shrinkage: slope through the origin of what a latent writes
    along its feature on the true magnitude, where both are active; 1 is none. dead: share of latents that never fire.
    """

    mcc: Estimate
    f1: Estimate
    precision: Estimate
    recall: Estimate
    uniqueness: Estimate
    shrinkage: Estimate
    dead: Estimate


def recovery(
    dictionary: Dictionary,
    source: Synthetic,
    *,
    chance: Dictionary,
    generator: torch.Generator,
    rows: int = 20_000,
    batch: int = 2000,
) -> Recovery:
    """Measure a dictionary and one of chance on the same `rows` fresh rows.

    Let `chance` be as wide as the dictionary, with the same activation: `random_dictionary` makes one.
    """
    sizes = [min(batch, rows - start) for start in range(0, rows, batch)]
    judged = Judged(dictionary, source.truth), Judged(chance, source.truth)
    for drawn in (source.draw(size, generator) for size in sizes):
        for one in judged:
            one.see(drawn)
    found, by_chance = (one.scores() for one in judged)
    return Recovery(**{
        name: Estimate(mean(values), *interval(values, generator), mean(by_chance[name]))
        for name, values in found.items()
    })  # fmt: skip


class Judged:
    """One dictionary paired with the truth, and counts of when its latents and the features are active."""

    def __init__(self, dictionary: Dictionary, truth: Truth):
        self.dictionary, self.truth = dictionary, truth
        self.write = dictionary.directions().write[:, 0].detach()
        self.cosines = (normalize(self.write, dim=1) @ truth.directions.T).abs()
        self.pairs = best_pairs(self.cosines)
        self.feature = torch.full((len(self.write),), UNPAIRED, device=self.write.device)
        self.feature[self.pairs.rows] = self.pairs.columns
        features = len(truth.directions)
        self.fires = torch.zeros(len(self.write), device=self.write.device)
        self.true, self.claimed, self.hits, self.products, self.squares = self.fires.new_zeros(5, features)

    @torch.no_grad()
    def see(self, drawn: Drawn) -> None:
        """Count a batch."""
        width = len(self.truth.directions)
        entries, true = self.dictionary.encode(drawn.x).entries(), drawn.codes.entries()
        self.fires += torch.bincount(entries.components, minlength=len(self.fires))
        self.true += torch.bincount(true.components, minlength=width)
        feature = self.feature[entries.components]
        paired = feature != UNPAIRED
        rows, feature, latent = entries.rows[paired], feature[paired], entries.components[paired]
        self.claimed += torch.bincount(feature, minlength=width)
        places, wanted = true.rows * width + true.components, rows * width + feature
        at = torch.searchsorted(places, wanted).clamp(max=max(0, len(places) - 1))
        hit = places[at] == wanted if len(places) else torch.zeros_like(paired[:0])
        here, magnitude = feature[hit], true.values[at[hit]]
        written = entries.values[paired][hit] * (self.write[latent[hit]] * self.truth.directions[here]).sum(1)
        self.hits += torch.bincount(here, minlength=width)
        self.products.index_add_(0, here, written * magnitude)
        self.squares.index_add_(0, here, magnitude.pow(2))

    def scores(self) -> dict[str, Float[Tensor, "_"]]:
        """What each metric averages over: one number for each pair, latent or feature."""
        paired = self.pairs.columns
        hits, claimed, true = self.hits[paired], self.claimed[paired], self.true[paired]
        either = claimed + true
        return {
            "mcc": self.cosines[self.pairs.rows, paired],
            "f1": (2 * hits / either)[either > 0],
            "precision": (hits / claimed)[claimed > 0],
            "recall": (hits / true)[true > 0],
            "uniqueness": self._unique(),
            "shrinkage": (self.products / self.squares)[self.hits > 0],
            "dead": (self.fires == 0).float(),
        }

    def _unique(self) -> Float[Tensor, "live"]:
        """One over the number of live latents that share its nearest feature, for each of them."""
        nearest = self.cosines[self.fires > 0].argmax(1)
        return 1 / torch.bincount(nearest, minlength=self.cosines.shape[1])[nearest].float()


def mean(values: Float[Tensor, "n"]) -> float:
    return values.double().mean().item()


def interval(
    values: Float[Tensor, "n"], generator: torch.Generator, share: float = 0.95, resamples: int = 1000
) -> tuple[float, float]:
    """Between which the mean lies in this share of resamples of the values, with replacement."""
    if not len(values):
        return float("nan"), float("nan")
    size, device = (len(values),), generator.device
    picked = (torch.randint(len(values), size, generator=generator, device=device) for _ in range(resamples))
    means = torch.stack([values.double()[places].mean() for places in picked])
    low, high = means.quantile(means.new_tensor([(1 - share) / 2, (1 + share) / 2])).tolist()
    return low, high
