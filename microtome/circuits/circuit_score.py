"""Is a circuit the part that does it? Faithfulness and its areas, completeness, minimality, chance, and stability.

    f(C) = (m(C) - m(nothing)) / (m(all) - m(nothing))        m: the measure's mean over pairs, others held

CPR and CMD: Mueller et al. 2025, MIB (arXiv 2504.13151). Completeness and minimality: Wang et al. 2022 (arXiv
2211.00593), section 4. A circuit's faithfulness can be above 1, and so can CPR: read it beside CMD.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from microtome.circuits.games import Game
from microtome.core.errors import Refusal

ENOUGH = 0.85  # faithfulness at which a circuit is said to do what the network does
LISTED = 10  # weakest units whose worth is measured, and strongest ones from which the incomplete set is grown
POINTS = 14  # sizes of a curve that is drawn
MIB_SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # of all units
STABLE = 0.8  # mean overlap of circuits found on resampled pairs, below which they are not the same circuit
INTERVAL = (0.025, 0.975)


class Curve(NamedTuple):
    """Faithfulness of the best-scored units, at growing shares of them.

    `cpr`, the area under f, is better if larger; `cmd`, the area between f and 1, if smaller. Both run from the first
    share to the last by trapezia, so a perfect circuit's CPR at MIB's shares is .999.
    """

    shares: tuple[float, ...]
    counts: tuple[int, ...]
    faithfulness: Float[Tensor, "shares"]
    cpr: float
    cmd: float


class Scale(NamedTuple):
    """The measure with all units kept, and with none."""

    whole: float
    nothing: float

    def share(self, measured: Float[Tensor, "cells pairs"]) -> Float[Tensor, "cells"]:
        """The mean over pairs as a share of the way from `nothing` to `whole`."""
        return (measured.mean(1) - self.nothing) / (self.whole - self.nothing)


def scale(game: Game) -> Scale:
    """Raises Refusal where keeping everything and keeping nothing measure the same."""
    ends = torch.tensor([True, False])[:, None].expand(2, len(game.units))
    whole, nothing = game(ends).mean(1).tolist()
    if abs(whole - nothing) < 1e-6 * max(1.0, abs(whole)):
        raise Refusal(
            f"the measure is {whole:g} with all units and {nothing:g} with none, so circuits cannot be told apart; "
            "choose pairs whose corrupt prompts change it"
        )
    return Scale(whole, nothing)


def played(game: Game, cells: Bool[Tensor, "cells units"]) -> Float[Tensor, "cells pairs"]:
    """What the game says of each, and each different one is played once."""
    different, back = cells.unique(dim=0, return_inverse=True)
    return game(different)[back]


# ---------------------------------------------------------------- which units


def best(scores: Float[Tensor, "units"], count: int) -> Bool[Tensor, "units"]:
    """The `count` units of largest score as it stands: what helps most."""
    kept = torch.zeros(len(scores), dtype=torch.bool)
    kept[scores.argsort(descending=True, stable=True)[:count]] = True
    return kept


def strongest(scores: Float[Tensor, "units"], count: int) -> Bool[Tensor, "units"]:
    """The `count` units of largest score in size: what matters most, for or against."""
    return best(scores.abs(), count)


# ---------------------------------------------------------------- faithfulness


def faithfulness(game: Game, kept: Bool[Tensor, "cells units"]) -> Float[Tensor, "cells"]:
    """f of each circuit: 0 does what nothing does, 1 what the whole network does."""
    return scale(game).share(game(kept))


def curve(ranked: Float[Tensor, "units"], game: Game, shares: Sequence[float] = MIB_SHARES) -> Curve:
    """Faithfulness of the first units of a ranking (the largest numbers), at growing shares of all.

    For the units that matter most in size, rank by `scores.abs()`. A share's count is rounded down, as MIB does.
    """
    refuse_shares(shares)
    counts = tuple(int(share * len(game.units)) for share in shares)
    f = faithfulness(game, torch.stack([best(ranked, count) for count in counts]))
    x = torch.tensor(shares, dtype=f.dtype)
    return Curve(tuple(shares), counts, f, float(torch.trapezoid(f, x)), float(torch.trapezoid((1 - f).abs(), x)))


def refuse_shares(shares: Sequence[float]) -> None:
    """Raises Refusal for shares that do not grow from 0 to 1."""
    if len(shares) < 2 or list(shares) != sorted(set(shares)) or not 0 <= shares[0] < shares[-1] <= 1:
        raise Refusal(f"shares are {list(shares)}; give at least two, growing, from 0 to 1")


def sizes(units: int, points: int = POINTS) -> tuple[int, ...]:
    """So many sizes of circuits, or fewer, from 0 to all, each about as many times the one before."""
    grown = {round(units ** (i / (points - 2))) for i in range(points - 1)} if units else set()
    return (0, *sorted(grown))


def along(ranked: Float[Tensor, "units"], game: Game, counts: Sequence[int]) -> Float[Tensor, "counts"]:
    """Faithfulness of the first units of a ranking, so many at a time."""
    return faithfulness(game, torch.stack([best(ranked, count) for count in counts]))


def enough(ranked: Float[Tensor, "units"], game: Game, goal: float = ENOUGH) -> int:
    """The fewest first units of a ranking that are as faithful as that: looked for coarsely, then between two sizes.

    Faithfulness need not grow with every unit, so this is the first crossing that was met; all units always do.
    """
    low, high = 0, len(game.units)
    while high - low > 1:
        tried = sorted({low + round((high - low) ** (i / 15)) for i in range(16)})
        found = (along(ranked, game, tried) >= goal).tolist()
        crossed = found.index(True) if any(found) else len(tried) - 1
        low, high = tried[crossed - 1] if crossed else low, tried[crossed]
    return high


# ---------------------------------------------------------------- completeness, minimality


class Completeness(NamedTuple):
    """|f(C without K) - f(all without K)| for sets K of the circuit's units: 0 where the circuit has all that matters.

    `worst` is the largest found, over random sets and one grown greedily, and `worst_set` names its units.
    """

    mean: float
    worst: float
    worst_set: tuple[str, ...]


def completeness(
    game: Game,
    kept: Bool[Tensor, "units"],
    generator: torch.Generator,
    *,
    samples: int = 20,
    greedy: int = 5,
    among: Bool[Tensor, "units"] | None = None,
) -> Completeness:
    """How differently circuit and network react to losing the same units.

    `greedy` bounds the size of the set that is grown, from the circuit's units `among` these (all).
    """
    ends, members = scale(game), (kept if among is None else kept & among).nonzero()[:, 0]

    def gaps(lost: Bool[Tensor, "cells units"]) -> Float[Tensor, "cells"]:
        return (ends.share(game(kept & ~lost)) - ends.share(game(~lost))).abs()

    drawn = (torch.rand(samples, len(kept), generator=generator) < 0.5) & kept
    found = gaps(drawn)
    grown, largest = torch.zeros_like(kept), -1.0
    for _ in range(min(greedy, len(members))):
        tries = grown.repeat(len(members), 1)
        tries[torch.arange(len(members)), members] = True
        values = gaps(tries)
        if float(values.max()) <= largest:
            break
        largest, grown = float(values.max()), tries[values.argmax()]
    worst = drawn[found.argmax()] if float(found.max()) > largest else grown
    names = tuple(game.units[i] for i in worst.nonzero()[:, 0].tolist())
    return Completeness(float(found.mean()), max(largest, float(found.max())), names)


def minimality(
    game: Game,
    kept: Bool[Tensor, "units"],
    generator: torch.Generator,
    *,
    samples: int = 5,
    among: Bool[Tensor, "units"] | None = None,
) -> dict[str, float]:
    """What each unit of the circuit is worth: the most that f changes by losing it, besides a random set of others.

    The first such set is empty. A unit worth next to nothing does not belong there. `among` says whose worth (all).
    """
    members = (kept if among is None else kept & among).nonzero()[:, 0]
    lost = (torch.rand(samples, len(kept), generator=generator) < 0.5) & kept
    lost[0] = False
    with_it = (kept & ~lost).repeat(len(members), 1, 1)
    without, rows = with_it.clone(), torch.arange(len(members))
    with_it[rows, :, members], without[rows, :, members] = True, False
    f = scale(game).share(played(game, torch.stack([with_it, without]).flatten(0, 2)))
    one, other = f.view(2, len(members), samples)
    worth = (one - other).abs().amax(1).tolist()
    return {game.units[member]: value for member, value in zip(members.tolist(), worth, strict=True)}


# ---------------------------------------------------------------- chance


class Chance(NamedTuple):
    """Faithfulness of random circuits as large as one, and the share of them (with it counted) that are as faithful."""

    faithfulness: Float[Tensor, "samples"]
    p: float

    @property
    def interval(self) -> tuple[float, float]:
        """Where 95% of them lie."""
        low, high = self.faithfulness.quantile(torch.tensor(INTERVAL)).tolist()
        return low, high


def chance(game: Game, kept: Bool[Tensor, "units"], generator: torch.Generator, *, samples: int = 100) -> Chance:
    """How faithful circuits of so many units are that were drawn at random."""
    count, ends = int(kept.sum()), scale(game)
    found = ends.share(game(random_circuits(len(kept), count, samples, generator)))
    own = ends.share(game(kept[None]))
    return Chance(found, float((1 + (found >= own).sum()) / (1 + samples)))


def random_circuits(units: int, count: int, samples: int, generator: torch.Generator) -> Bool[Tensor, "samples units"]:
    """Circuits of `count` units, each as likely."""
    return torch.stack([best(torch.rand(units, generator=generator), count) for _ in range(samples)])


def band(
    game: Game, counts: Sequence[int], generator: torch.Generator, *, samples: int = 20
) -> Float[Tensor, "counts 3"]:
    """Of random circuits of each size: where 95% of their faithfulness begins, its mean, and where the 95% end."""
    drawn = torch.stack([random_circuits(len(game.units), count, samples, generator) for count in counts])
    f = scale(game).share(played(game, drawn.flatten(0, 1))).view(len(counts), samples)
    low, high = f.quantile(torch.tensor(INTERVAL, dtype=f.dtype), 1)
    return torch.stack([low, f.mean(1), high], 1)


# ---------------------------------------------------------------- stability


@dataclass(frozen=True)
class Stability:
    """Overlap (Jaccard) of the circuits that two resamples of the pairs give: its mean, and where 95% of it lie."""

    mean: float
    low: float
    high: float

    @property
    def stable(self) -> bool:
        """Whether the mean overlap is as high as is asked of a stable method."""
        return self.mean >= STABLE

    def __str__(self) -> str:
        return f"{'stable' if self.stable else 'unstable'}: Jaccard {self.mean:.2f} ({self.low:.2f} to {self.high:.2f})"


def stability(
    each: Float[Tensor, "pairs units"], count: int, generator: torch.Generator, *, samples: int = 200
) -> Stability:
    """Would other pairs of the same kind have given the same `count` strongest units? By resampling the pairs at hand.

    `each` holds every pair's own scores. After Méloux et al. 2025 (arXiv 2510.00845).
    """
    if len(each) < 2:
        raise Refusal(f"{len(each)} pair cannot be resampled; give the scores of each of several pairs")

    def drawn() -> Bool[Tensor, "units"]:
        rows = torch.randint(len(each), (len(each),), generator=generator)
        return strongest(each[rows].mean(0), count)

    found = torch.tensor([jaccard(drawn(), drawn()) for _ in range(samples)])
    low, high = found.quantile(torch.tensor(INTERVAL)).tolist()
    return Stability(float(found.mean()), low, high)


def jaccard(one: Bool[Tensor, "units"], other: Bool[Tensor, "units"]) -> float:
    """The share of either's units that both have; 1 for two empty sets."""
    union = int((one | other).sum())
    return int((one & other).sum()) / union if union else 1.0


# ---------------------------------------------------------------- all of it


@dataclass(frozen=True)
class CircuitReport:
    """Everything there is to say for and against a circuit of so many units.

    `stability` is None where the circuit was searched for as a whole, so that no unit has a score for each pair.
    """

    units: tuple[str, ...]
    faithfulness: float
    curve: Curve
    completeness: Completeness
    minimality: dict[str, float]
    chance: Chance
    stability: Stability | None

    def __str__(self) -> str:
        return "\n".join(f"{name}: {words}" for name, words in self.lines().items())

    def lines(self) -> dict[str, str]:
        """Each judgement by its name, in words."""
        names = ", ".join(self.completeness.worst_set)
        weakest = min(self.minimality, key=lambda name: self.minimality[name])
        low, high = self.chance.interval
        return {
            "faithfulness": f"{self.faithfulness:.2f} with {len(self.units)} units",
            "areas": f"CPR {self.curve.cpr:.2f}, CMD {self.curve.cmd:.2f}",
            "random circuits": (
                f"{float(self.chance.faithfulness.mean()):.2f} ({low:.2f} to {high:.2f}), p = {self.chance.p:.2g}"
            ),
            "completeness": f"off by {self.completeness.mean:.2f}, worst {self.completeness.worst:.2f} without {names}",
            "minimality": f"{weakest} is worth least, {self.minimality[weakest]:.3f}",
            "stability": str(self.stability) if self.stability else "not measured: no pair has scores of its own",
        }


def report(
    game: Game,
    each: Float[Tensor, "pairs units"],
    count: int,
    generator: torch.Generator,
    *,
    ranked: Float[Tensor, "units"] | None = None,
    shares: Sequence[float] = MIB_SHARES,
    samples: int = 20,
) -> CircuitReport:
    """Judge the first `count` units of a ranking: by the size of their mean score, unless `ranked` is given.

    `samples` sets of each kind are drawn. The pairs of `each` should be others than those that the game is played on,
    or the circuit is judged by what it was chosen for.
    """
    if not 1 <= count <= len(game.units) or each.shape[1] != len(game.units):
        raise Refusal(
            f"{count} of {each.shape[1]} scored units are asked for and the game has {len(game.units)}; "
            "score every unit, and ask for at least one"
        )
    ranking = each.mean(0).abs() if ranked is None else ranked
    kept = best(ranking, count)
    weakest = kept & ~best(ranking, max(0, count - LISTED))
    return CircuitReport(
        tuple(game.units[i] for i in kept.nonzero()[:, 0].tolist()),
        float(faithfulness(game, kept[None])[0]),
        curve(ranking, game, shares),
        completeness(game, kept, generator, samples=samples, among=best(ranking, LISTED)),
        minimality(game, kept, generator, among=weakest),
        chance(game, kept, generator, samples=samples),
        stability(each, count, generator) if ranked is None else None,
    )
