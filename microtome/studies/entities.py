"""Does a network know that it knows a name? Components that are active on real names and silent on invented ones.

The names are Python's: modules, exceptions, methods and functions, against names made of their halves with as many
tokens. Components are chosen on half of the names and judged on the other half, for each kind and, as in the paper,
for all kinds at once. Then they are put to work: the direction of a component for known names is added at invented
ones, and that for unknown names at real ones, and it is watched whether the network takes the name to be finished.
Ferrando et al. 2024, Do I Know This Entity? Knowledge Awareness and Hallucinations in Language Models (2411.14257).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from microtome.core.component import Component, Dictionary
from microtome.core.edit import add
from microtome.core.editing import Edit
from microtome.core.effects import effects
from microtome.core.errors import Refusal
from microtome.core.inputs import Tokens
from microtome.core.measure import LOGITS, Measure
from microtome.core.trace import Trace
from microtome.data.corpus import tokenizer_of
from microtome.data.names import Pair, pairs
from microtome.dictionaries import recipes
from microtome.evals.reconstruction import variance
from microtome.explain.grades import middle
from microtome.explain.separation import GENERAL, Activity, last_activity, least, ranked, separation
from microtome.notebook.page import Sentence, Table
from microtome.store.records import Claim
from microtome.studies.chart import Chart, Series
from microtome.studies.slide import LONG, SHORT, Slide, Training
from microtome.studies.study import Report, Setting, Study, Watch, at_least, at_most

FERRANDO = "Ferrando et al. 2024, arXiv 2411.14257"
SIDES = ("known", "unknown")
STRENGTHS = (2.0, 4.0, 8.0)  # times the component's mean activity where it is active; chosen on the half that chose it
ALL = "all at once"


@dataclass(frozen=True)
class Size:
    """The autoencoder, the ordinary text that density is told from, and how many other components stand beside."""

    training: Training = LONG
    width: int = 4096
    general: int = 100_000  # tokens
    most: float = GENERAL  # of ordinary text, on which a component may be active
    controls: int = 20
    shuffles: int = 200  # of which name is real, for what choosing the best of many gives by chance


FULL = Size()
QUICK = Size(SHORT, width=512, general=20_000, controls=8, shuffles=50)


class Entities(Study):
    name = "entities"
    paper = "Ferrando et al. 2024, Do I Know This Entity?, arXiv 2411.14257"
    question = "Which components tell names that exist from names that could, and does the network act on them?"

    def __init__(self, quick: Size = QUICK, full: Size = FULL) -> None:
        self.quick, self.full = quick, full

    def run(self, setting: Setting, watch: Watch) -> Report:
        size = self.quick if setting.quick else self.full
        slide = Slide(setting, size.training, watch)
        names = Names.of(slide, setting.seed)
        sae = slide.learned("latents", recipes.topk, size.width)
        rare = frequencies(slide, sae, size.general) <= size.most
        refuse_none(rare, size)
        separated = Separated.of(slide, sae, names, rare, size.shuffles, setting.seed)
        with watch.stage("steer", 2, "sides") as advance:
            steered = []
            for number, side in enumerate(SIDES, 1):
                steered.append(steer(slide, sae, names, separated, side, size.controls, setting.seed))
                advance(number)
        judged = claims(separated, steered, setting.seed)
        shown = chart(separated, names), table(separated), steering(steered, names.kinds)
        return Report(judged, (Sentence(said(names, steered)), *shown))


STUDY = Entities()


# ---------------------------------------------------------------- the names


@dataclass(frozen=True)
class Names:
    """Pairs of lines that end in a real and in an invented name, as tokens. `chosen_on` marks those to choose by."""

    pairs: list[Pair]
    known: Tokens
    unknown: Tokens
    chosen_on: Bool[Tensor, "pairs"]

    @classmethod
    def of(cls, slide: Slide, seed: int) -> "Names":
        tokenizer = tokenizer_of(slide.model)
        start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]

        def ids(line: str) -> list[int]:
            return [*start, *tokenizer(f"\n{line}", add_special_tokens=False)["input_ids"]]

        found = pairs(seed, lambda line: len(ids(line)))
        known, unknown = (Tokens.of([ids(getattr(p, side)) for p in found]).to(slide.model.device) for side in SIDES)
        half = torch.rand(len(found), generator=torch.Generator().manual_seed(seed)) < 0.5
        return cls(found, known, unknown, half)

    @property
    def kinds(self) -> list[str]:
        return sorted({pair.kind for pair in self.pairs})

    def of_kind(self, kind: str) -> Bool[Tensor, "pairs"]:
        return torch.tensor([pair.kind == kind for pair in self.pairs])


def frequencies(slide: Slide, sae: Dictionary, tokens: int) -> Float[Tensor, "components"]:
    """The share of ordinary held-out tokens on which each component is active."""
    seen = variance(slide.model, sae, slide.text("held_out", tokens).tokens)
    return seen.fired / seen.rows


def refuse_none(rare: Bool[Tensor, "components"], size: Size) -> None:
    if not rare.any():
        raise Refusal(
            f"all {len(rare)} components are active on more than {size.most:.0%} of ordinary text, so none says only "
            f"what names are; train a wider dictionary than {size.width}, or one of fewer active at once"
        )


# ---------------------------------------------------------------- what separates them


class Best(NamedTuple):
    """The component that separates best where it was chosen, how far it does so there and on the other half.

    `by_chance`: the same on the other half, of the best where it is shuffled which name of a pair is real.
    """

    component: int
    chosen: float
    held_out: float
    by_chance: Float[Tensor, "shuffles"]

    @property
    def above(self) -> float:
        """Above the 95th percentile of chance."""
        return self.held_out - float(self.by_chance.quantile(0.95))


@dataclass(frozen=True)
class Separated:
    """For either side the best component of each kind, and of all kinds at once, by the least of them."""

    best: dict[str, dict[str, Best]]
    activity: dict[str, Activity]  # of each side
    rare: Bool[Tensor, "components"]

    @classmethod
    def of(cls, slide: Slide, sae: Dictionary, names: Names, rare: Tensor, shuffles: int, seed: int) -> "Separated":
        activity = {side: last_activity(slide.model, sae, getattr(names, side)) for side in SIDES}
        known, unknown = activity["known"] != 0, activity["unknown"] != 0
        generator = torch.Generator().manual_seed(seed)
        found = {
            "known": scored(known, unknown, names, rare, shuffles, generator),
            "unknown": scored(unknown, known, names, rare, shuffles, generator),
        }
        return cls(found, activity, rare)


def scored(
    first: Bool[Tensor, "pairs components"],
    second: Bool[Tensor, "pairs components"],
    names: Names,
    rare: Bool[Tensor, "components"],
    shuffles: int,
    generator: torch.Generator,
) -> dict[str, Best]:
    """The best of each kind, and of all, on the names of `first` against those of `second`."""
    chance: list[dict[str, tuple[int, float, float]]] = []
    for _ in range(shuffles):
        swap = torch.rand(len(first), 1, generator=generator) < 0.5
        chance.append(bests(torch.where(swap, second, first), torch.where(swap, first, second), names, rare))
    return {
        kind: Best(*best, torch.tensor([drawn[kind][2] for drawn in chance]))
        for kind, best in bests(first, second, names, rare).items()
    }


def bests(
    first: Bool[Tensor, "pairs components"],
    second: Bool[Tensor, "pairs components"],
    names: Names,
    rare: Bool[Tensor, "components"],
) -> dict[str, tuple[int, float, float]]:
    """(component, where chosen, held out) of each kind, and of all at once."""
    chosen, held_out = (over_kinds(first, second, names, half) for half in (names.chosen_on, ~names.chosen_on))
    best = {kind: ranked(scores, rare)[0] for kind, scores in chosen.items()}
    return {kind: (c, float(chosen[kind][c]), float(held_out[kind][c])) for kind, c in best.items()}


def over_kinds(
    first: Bool[Tensor, "pairs components"], second: Bool[Tensor, "pairs components"], names: Names, which: Tensor
) -> dict[str, Float[Tensor, "components"]]:
    """The separation on each kind of name among these pairs, and the least of them."""
    some = {kind: names.of_kind(kind) & which for kind in names.kinds}
    found = {kind: separation(first[rows].float(), second[rows].float()) for kind, rows in some.items()}
    return found | {ALL: least(found)}


# ---------------------------------------------------------------- what they do


class Steered(NamedTuple):
    """What one side's components did at the other side's names, each at its kind, beside others of the same length.

    `natural` is that the name is finished, in nats, at the names that were steered; `other` at their counterparts.
    """

    side: str
    natural: Float[Tensor, "names"]
    other: Float[Tensor, "names"]
    moved: Float[Tensor, "names"]
    controls: Float[Tensor, "controls names"]
    strengths: tuple[float, ...]

    @property
    def rank(self) -> float:
        """The share of the others that moved names as far."""
        return float((self.controls.mean(1) >= self.moved.mean()).float().mean())


def finished(slide: Slide) -> Measure:
    """Log odds that the next token does not go on with the name."""
    goes_on = torch.tensor([text[:1].isalnum() or text[:1] == "_" for text in slide.vocabulary])

    def of(trace: Trace) -> Tensor:
        assert isinstance(trace.inputs, Tokens)
        place = trace.inputs.places(-1, trace.inputs.ids.shape[1])
        logits = trace[LOGITS][place.rows, place.columns]
        on = goes_on.to(logits.device)
        on = torch.cat((on, on.new_ones(logits.shape[-1] - len(on))))
        return logits[:, ~on].logsumexp(-1) - logits[:, on].logsumexp(-1)

    return Measure(of, (LOGITS,), "log odds that the name is finished")


def steer(
    slide: Slide, sae: Dictionary, names: Names, separated: Separated, side: str, controls: int, seed: int
) -> Steered:
    """Add each kind's best component of a side at the other side's names of that kind."""
    parts = [
        steered_kind(slide, sae, names, separated, side, kind, others(separated, side, kind, controls, seed))
        for kind in names.kinds
    ]
    strengths = tuple(part.strengths[0] for part in parts)
    names_of = ("natural", "other", "moved", "controls")
    columns = {name: torch.cat([getattr(part, name) for part in parts], -1) for name in names_of}
    return Steered(side=side, strengths=strengths, **columns)


def steered_kind(
    slide: Slide, sae: Dictionary, names: Names, separated: Separated, side: str, kind: str, beside: Sequence[int]
) -> Steered:
    """One kind's. The strength is chosen where the component was, and told on the other half."""
    target, counterpart = (names.unknown, names.known) if side == "known" else (names.known, names.unknown)
    sign, measure, here = 1.0 if side == "known" else -1.0, finished(slide), names.of_kind(kind)
    best = sae[separated.best[side][kind].component]
    seen = separated.activity[side][here & names.chosen_on, best.index]
    usual = mean_active(seen) * float(best.direction.norm())
    judging = picked(target, here & ~names.chosen_on)
    tried = effects(slide.model, picked(target, here & names.chosen_on),
                    [pushed(best, s * usual) for s in STRENGTHS], measure)  # fmt: skip
    strength = STRENGTHS[int((sign * tried.moved.mean(1)).argmax())]
    cells = [pushed(component, strength * usual) for component in (best, *(sae[c] for c in beside))]
    done = effects(slide.model, judging, cells, measure)
    other = measure(slide.model.run(picked(counterpart, here & ~names.chosen_on), read=measure.reads))
    moved = sign * done.moved
    return Steered(side, done.before, other, moved[0], moved[1:], (strength,))


def pushed(component: Component, length: float) -> Edit:
    """A vector of this length, along what the component writes, at the last token."""
    return add(component, length / float(component.direction.norm())).at(pos=-1)


def mean_active(values: Float[Tensor, "names"]) -> float:
    active = values[values != 0]
    return float(active.mean()) if len(active) else 1.0


def picked(rows: Tokens, which: Bool[Tensor, "rows"]) -> Tokens:
    return Tokens(rows.ids[which.to(rows.ids.device)], rows.mask[which.to(rows.mask.device)])


def others(separated: Separated, side: str, kind: str, count: int, seed: int) -> list[int]:
    """Other rare components at random, of those that are active on some name of either side."""
    active = torch.cat(list(separated.activity.values())).ne(0).any(0) & separated.rare
    active[separated.best[side][kind].component] = False
    found = active.nonzero()[:, 0]
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(seed))
    return found[order[:count]].tolist()


# ---------------------------------------------------------------- what they show


def claims(separated: Separated, steered: Sequence[Steered], seed: int) -> tuple[Claim, ...]:
    generator, found = np.random.default_rng(seed), []
    for one in steered:
        best, way = separated.best[one.side], "finished" if one.side == "known" else "unfinished"
        over = (one.moved - one.controls.mean(0)).numpy()
        found += [
            at_least(f"separation of each kind's best component for {one.side} names, held out, less the 95th "
                     "percentile of chance, mean of the kinds", 1e-9, mean_above(best), source=FERRANDO),
            at_least(f"the same of one component for all kinds of {one.side} names, by the least of them", 1e-9,
                     best[ALL].above, source=FERRANDO),
            at_least(f"adding them makes names more {way} than others of their length do, nats, lower end of 95%",
                     1e-9, middle(over, generator)[1], source=FERRANDO),
            at_most(f"share of others that do as much, for {one.side} names", 0.1, one.rank, source=FERRANDO),
        ]  # fmt: skip
    natural = (steered[0].other - steered[0].natural).numpy()
    name = "real names are more finished than invented ones, nats, lower end of 95%"
    found.append(at_least(name, 1e-9, middle(natural, generator)[1], source="the measure's own check"))
    return tuple(found)


def mean_above(best: Mapping[str, Best]) -> float:
    return float(np.mean([one.above for kind, one in best.items() if kind != ALL]))


def said(names: Names, steered: Sequence[Steered]) -> str:
    counts = ", ".join(f"{int(names.of_kind(k).sum())} {k}s" for k in names.kinds)
    known, unknown = steered
    return (
        f"{len(names.pairs)} pairs of names of as many tokens: {counts}. Components are chosen on "
        f"{int(names.chosen_on.sum())} of them and judged on the rest. Real names are finished by "
        f"{float(unknown.natural.mean()):.2f} nats (log odds that the next token does not go on with the name), "
        f"invented ones by {float(known.natural.mean()):.2f}."
    )


def chart(separated: Separated, names: Names) -> Chart:
    """The paper's: on what share of real and of invented names each component is active, a colour for each kind."""
    series, size = [], Series("as often", [0.01, 1.0], [0.01, 1.0], 5, "dashed")
    for colour, kind in enumerate(names.kinds):
        here = names.of_kind(kind)
        shares = {side: (separated.activity[side][here] != 0).float().mean(0) for side in SIDES}
        shown = separated.rare & ((shares["known"] > 0.1) | (shares["unknown"] > 0.1))
        x, y = (shares[side][shown].clamp(min=0.01).tolist() for side in ("unknown", "known"))
        series += [Series(kind, x, y, colour, "points")] if x else []
    return Chart("Components on real and on invented names", "share of invented names on which it is active",
                 "share of real names", [size, *series])  # fmt: skip


def table(separated: Separated) -> Table:
    rows = [
        [f"{side}, {kind}", str(best.component), f"{best.chosen:+.2f}", f"{best.held_out:+.2f}",
         f"{float(best.by_chance.quantile(0.95)):+.2f}"]
        for side, of_side in separated.best.items() for kind, best in of_side.items()
    ]  # fmt: skip
    columns = ("names", "component", "where chosen", "held out", "by chance, 95%")
    caption = "Separation: the share of one side's names on which it is active, less the other's."
    return Table(columns, rows, caption, numeric=(1, 2, 3, 4))


def steering(steered: Sequence[Steered], kinds: Sequence[str]) -> Table:
    rows = [
        [f"{one.side}, at {'invented' if one.side == 'known' else 'real'} names",
         ", ".join(f"{kind} {strength:g}" for kind, strength in zip(kinds, one.strengths, strict=True)),
         f"{float(one.moved.mean()):+.2f}", f"{float(one.controls.mean()):+.2f}", f"{one.rank:.0%}"]
        for one in steered
    ]  # fmt: skip
    columns = ("added", "strength, times the usual", "moved as foretold, nats", "others of their length",
               "others that do as much")  # fmt: skip
    return Table(columns, rows, numeric=(2, 3, 4))
