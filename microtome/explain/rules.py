"""Explaining every component without a language model: short rules, proposed on half the text, scored on the other.

A rule is at most three conditions at once, each of them about the token itself or what stands before it: which token
it is (one of a small set), which token stood one, two or three before or began the line, a token among the last few, a
fact (labels of the text, spelling, repetition), or the opposite of one.

All pairs of conditions are tried. With X (places x conditions) of zeros and ones and w each place's weight in the
balanced accuracy (positive for positives, negative for negatives, summing to 0),

    G = Xᵀ diag(w) X,    G[a, b] = balanced accuracy of (a and b) - 1/2,

and negations follow without counting again: (a and not b) is G[a, a] - G[a, b]. The best few pairs are then lengthened
by every third condition. The best rule of two conditions has to beat the best of one by more than the noise of their
difference (and so on for three): where the data cannot tell them apart the shorter rule wins.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from microtome.core.errors import Refusal
from microtome.explain.conditions import NOTHING, Condition, Fact, Not, Reading, Recently, Rule, TokenIs
from microtome.explain.evidence import (
    THRESHOLD,
    Evidence,
    Part,
    Score,
    balanced,
    balanced_accuracy,
    draw,
    split_after,
    split_windows,
    strongest,
)
from microtome.explain.sentences import phrase, sentence
from microtome.store.catalog import Catalog, Column
from microtome.store.notes import Explanation

VERSION = 2
MOST = 300  # positives of each part
SIZES = (1, 2, 3, 5, 8, 12)  # of sets of tokens
SUPPORT = 2  # positives that a named token must have, and standard errors above nothing that its gain must be
BEAM = 12  # pairs that are lengthened to three
RECENT_CANDIDATES = 6
GROUP = 256  # components explained together
OTHERS = 16  # other components' rules that measure chance
PRICE_OF_TOKEN, PRICE_OF_NOT = 0.0015, 0.003  # in balanced accuracy, of each further token named and of each "not"
MARGIN, NOISE = 0.005, 2.5  # what a longer rule must gain: this much, and this many standard errors, more


def explain_rules(
    catalog: Catalog, progress: Callable[[int], None] | None = None, seed: int = 0, proposals: Catalog | None = None
) -> Iterator[Explanation]:
    """One rule for every component that fires often enough in both parts of the text; the others get none.

    `proposals` is a catalogue of the same dictionary over other text: then rules are proposed from that, and scored on
    all of the first. Without it the text is divided in two.

    Columns are read once, in order; memory is that of the text's tables (about 150 bytes a token) and one group of
    components. The same seed gives the same rules. `progress` is told how many components are done.
    """
    explainer = Explainer.of(catalog, seed, proposals)
    shift = len(catalog.windows["tokens"]) * catalog.context

    def column(component: int) -> Column:
        here = catalog.column(component)
        return here if proposals is None else following(here, proposals.column(component), shift)

    for start in range(0, len(catalog), GROUP):
        numbers = range(start, min(start + GROUP, len(catalog)))
        yield from explainer.explain({n: column(n) for n in numbers})
        if progress:
            progress(numbers.stop)


@dataclass(frozen=True)
class Proposal:
    """What was found for one component on the proposal part, and the held-out evidence it waits to be scored on."""

    component: int
    rule: Rule
    token_rule: Rule
    threshold: float
    seen: Evidence
    held_out: Evidence


@dataclass(frozen=True)
class Explainer:
    reading: Reading
    proposal: Part
    scoring: Part
    seed: int

    @classmethod
    def of(cls, catalog: Catalog, seed: int = 0, proposals: Catalog | None = None) -> "Explainer":
        """Raises Refusal where the same document stands in both catalogues, or they are labelled differently."""
        names = tuple(catalog.manifest["labels"])
        found = [catalog.windows] if proposals is None else [catalog.windows, proposals.windows]
        tokens = np.concatenate([w["tokens"] for w in found]).astype(np.int64)
        reading = Reading(tokens, catalog.vocabulary, np.concatenate([w["labels"] for w in found]), names)
        if proposals is None:
            split = split_windows(found[0]["document"], catalog.manifest["documents"])
        else:
            refuse_common_text(catalog, proposals)
            split = split_after(len(found[0]["tokens"]), len(tokens))
        return cls(reading, Part(tokens, split.proposal), Part(tokens, split.scoring), seed)

    def explain(self, columns: dict[int, Column]) -> Iterator[Explanation]:
        proposals = [p for number, column in columns.items() for p in self.propose(number, column)]
        for number, proposal in enumerate(proposals):
            others = [proposals[(number + step) % len(proposals)] for step in range(1, min(OTHERS + 1, len(proposals)))]
            yield self.judge(proposal, others)

    def propose(self, component: int, column: Column) -> Iterator[Proposal]:
        """One proposal, or none where the component fires too seldom. The rule sees nothing of the scoring part."""
        threshold = THRESHOLD * strongest(column, self.proposal)
        # Two generators, so that nothing in one part of the text changes what is drawn from the other.
        first, second = (np.random.default_rng([self.seed, component, part]) for part in (0, 1))
        seen = draw(column, self.proposal, threshold, MOST, first)
        held_out = draw(column, self.scoring, threshold, MOST, second)
        if seen.enough and held_out.enough:
            rule, token_rule = best_rule(self.reading, seen), best_token_rule(self.reading, seen)
            yield Proposal(component, rule, token_rule, threshold, seen, held_out)

    def judge(self, proposal: Proposal, others: Sequence[Proposal]) -> Explanation:
        """Score a proposal on held-out text, beside the token alone and beside other components' rules."""
        evidence = proposal.held_out
        score, token_score = self.score(proposal.rule, evidence), self.score(proposal.token_rule, evidence)
        chance = [balanced(evidence, other.rule.holds(self.reading, evidence.places)) for other in others]
        return Explanation(
            component=proposal.component, method="rule", text=sentence(proposal.rule, self.reading.vocabulary),
            score=score.value, low=score.low, high=score.high, chance=float(np.mean(chance)) if chance else 0.5,
            baseline=token_score.value, positives=len(evidence.positives),
            negatives=len(evidence.random) + len(evidence.hard), evidence=self.record(proposal, score),
        )  # fmt: skip

    def score(self, rule: Rule, evidence: Evidence) -> Score:
        return balanced_accuracy(evidence, rule.holds(self.reading, evidence.places))

    def record(self, proposal: Proposal, score: Score) -> dict:
        seen = self.score(proposal.rule, proposal.seen)
        return {
            "version": VERSION, "seed": self.seed, "threshold": proposal.threshold,
            "conditions": [self.supported(c, proposal.seen) for c in proposal.rule.conditions],
            "true_positive_rate": score.true_positive_rate,
            "true_negative_rate_random": score.true_negative_rate_random,
            "true_negative_rate_hard": score.true_negative_rate_hard,
            "hard_negatives": len(proposal.held_out.hard), "score_where_proposed": seen.value,
            "positives_where_proposed": len(proposal.seen.positives),
            "token_rule": sentence(proposal.token_rule, self.reading.vocabulary),
        }  # fmt: skip

    def supported(self, condition: Condition, evidence: Evidence) -> dict:
        """In plain values, with the share of positives and of negatives that it holds on where it was proposed."""
        holds, positives = condition.holds(self.reading, evidence.places), len(evidence.positives)
        on_positives, on_negatives = float(holds[:positives].mean()), float(holds[positives:].mean())
        says = phrase(condition, self.reading.vocabulary)
        return {"says": says, **condition.words(), "on_positives": on_positives, "on_negatives": on_negatives}


def following(first: Column, second: Column, shift: int) -> Column:
    """The firings in two texts as those in one, in which the second text follows the first."""
    token = np.concatenate([first.token, second.token + np.array(shift, second.token.dtype)])
    return Column(token, np.concatenate([first.value, second.value]))


def refuse_common_text(scoring: Catalog, proposals: Catalog) -> None:
    one, other = scoring.manifest, proposals.manifest
    common = sorted(set(one["documents"]) & set(other["documents"]))
    if common:
        raise Refusal(f"rules proposed from {common[0]!r} would be scored on it; catalogue other documents")
    if one["labels"] != other["labels"] or one["context"] != other["context"]:
        raise Refusal("the two catalogues have other labels or another context; make both alike")


# --------------------------------------------------------------------------------------------------- candidates


@dataclass(frozen=True)
class Candidates:
    """Conditions with their answers at every place of some evidence, and what naming each costs."""

    conditions: Sequence[Condition]
    answers: Bool[np.ndarray, "places conditions"]
    prices: Float[np.ndarray, "conditions"]


def candidates(reading: Reading, places: Int[np.ndarray, "places"], weights: Float[np.ndarray, "places"]) -> Candidates:
    groups = [facts(reading, places), *token_sets(reading, places, weights), recent_tokens(reading, places, weights)]
    conditions = [c for group in groups for c in group.conditions]
    answers, prices = [g.answers for g in groups], [g.prices for g in groups]
    return Candidates(conditions, np.concatenate(answers, 1), np.concatenate(prices))


def facts(reading: Reading, places: Int[np.ndarray, "places"]) -> Candidates:
    """The facts that are not nearly the same everywhere in this evidence."""
    answers = reading.facts[places]
    share = answers.mean(0)
    useful = np.flatnonzero((share > 0.005) & (share < 0.995))
    conditions = [Fact(int(number), reading.fact_names[number]) for number in useful]
    return Candidates(conditions, answers[:, useful], np.zeros(len(useful)))


def token_sets(
    reading: Reading, places: Int[np.ndarray, "places"], weights: Float[np.ndarray, "places"]
) -> Iterator[Candidates]:
    """For every slot, the tokens that speak for the component most, in sets of growing size."""
    for slot, values in reading.slots.items():
        yield growing_sets(slot, values[places], weights)


def growing_sets(slot: str, values: Int[np.ndarray, "places"], weights: Float[np.ndarray, "places"]) -> Candidates:
    distinct, number = np.unique(values, return_inverse=True)
    ranked = telling(distinct, number, weights)
    rank = np.full(len(distinct), len(distinct))
    rank[ranked] = np.arange(len(ranked))
    sizes = np.array(sorted({min(size, len(ranked)) for size in SIZES} - {0}), np.int64)
    conditions = [TokenIs(slot, tuple(distinct[ranked[:size]].tolist())) for size in sizes]
    return Candidates(conditions, rank[number][:, None] < sizes, PRICE_OF_TOKEN * np.maximum(sizes - 1, 0.0))


def telling(
    distinct: Int[np.ndarray, "values"], number: Int[np.ndarray, "places"], weights: Float[np.ndarray, "places"]
) -> Int[np.ndarray, "chosen"]:
    """Which of the distinct values are clearly commoner at positives than at negatives, the most telling first."""
    gain, noise = (np.bincount(number, w, len(distinct)) for w in (weights, weights**2))
    support = np.bincount(number, weights > 0, len(distinct))
    order = np.argsort(-gain, kind="stable")
    clear = gain > SUPPORT * np.sqrt(noise)
    return order[(clear & (support >= SUPPORT) & (distinct != NOTHING))[order]]


def recent_tokens(
    reading: Reading, places: Int[np.ndarray, "places"], weights: Float[np.ndarray, "places"]
) -> Candidates:
    """The tokens whose presence among the last few speaks for the component most."""
    recent = reading.recent(places)
    ordered = np.sort(recent, axis=1)
    fresh = ordered != NOTHING
    fresh[:, 1:] &= ordered[:, 1:] != ordered[:, :-1]
    gain = np.bincount(ordered[fresh], np.broadcast_to(weights[:, None], ordered.shape)[fresh], 1)
    best = np.argpartition(-gain, min(RECENT_CANDIDATES, len(gain) - 1))[:RECENT_CANDIDATES]
    best = np.sort(best[gain[best] > 0])
    answers = (recent[:, :, None] == best).any(1)
    return Candidates([Recently(int(token)) for token in best], answers, np.zeros(len(best)))


# --------------------------------------------------------------------------------------------------- the search


def best_token_rule(reading: Reading, evidence: Evidence) -> Rule:
    """The baseline: the best "the token is one of these"."""
    sets = growing_sets("here", reading.slots["here"][evidence.places], evidence.weights)
    if not sets.conditions:
        return Rule.of(TokenIs("here", ()))
    return Rule.of(sets.conditions[int(np.argmax(evidence.weights @ sets.answers - sets.prices))])


def best_rule(reading: Reading, evidence: Evidence) -> Rule:
    """The conjunction of at most three conditions with the largest weight."""
    found = candidates(reading, evidence.places, evidence.weights)
    literals = best_conjunction(found.answers.astype(np.float32), evidence.weights, found.prices)
    return Rule(tuple(found.conditions[n] if yes else Not(found.conditions[n]) for n, yes in literals))


Literal = tuple[int, bool]  # a condition's number, and whether it must hold (or must not)


Worth = tuple[float, tuple[Literal, ...]]  # balanced accuracy above 1/2 with the prices paid, and for what


def best_conjunction(
    answers: Float[np.ndarray, "places conditions"],
    weights: Float[np.ndarray, "places"],
    prices: Float[np.ndarray, "conditions"],
) -> tuple[Literal, ...]:
    """The best single condition, unless the best pair or the best triple (begun with a good pair) is clearly better."""
    together = ((answers * weights[:, None].astype(np.float32)).T @ answers).astype(np.float64)
    everything = float(weights.sum())
    pairs = best_pairs(together, prices, everything)
    triples = [lengthened(answers, weights, prices, pair) for _, pair in pairs]
    chosen = best_single(np.diag(together), prices, everything)[1]
    for longer in (max(pairs, default=None), max(triples, default=None)):
        if longer and clearly_better(held(answers, longer[1]), held(answers, chosen), weights):
            chosen = longer[1]
    return chosen


def held(answers: Shaped[np.ndarray, "places conditions"], literals: tuple[Literal, ...]) -> Bool[np.ndarray, "places"]:
    return np.logical_and.reduce([answers[:, number] == yes for number, yes in literals])


def clearly_better(one: Bool[np.ndarray, "n"], other: Bool[np.ndarray, "n"], weights: Float[np.ndarray, "n"]) -> bool:
    """Whether the gain exceeds the noise of the places where the two differ."""
    changed = one != other
    gain, noise = weights @ (one.astype(float) - other), np.sqrt(np.sum(weights[changed] ** 2))
    return bool(gain > MARGIN + NOISE * noise)


def best_single(gains: Float[np.ndarray, "n"], prices: Float[np.ndarray, "n"], everything: float) -> Worth:
    both = np.stack([gains - prices, everything - gains - prices - PRICE_OF_NOT])
    sign, number = np.unravel_index(np.argmax(both), both.shape)
    return float(both[sign, number]), ((int(number), bool(sign == 0)),)


def best_pairs(together: Float[np.ndarray, "n n"], prices: Float[np.ndarray, "n"], everything: float) -> list[Worth]:
    """The best pairs: both hold, the first and not the second, neither."""
    alone, price = np.diag(together), prices[:, None] + prices
    both = together - price
    first = alone[:, None] - together - price - PRICE_OF_NOT
    neither = everything + together - alone[:, None] - alone - price - 2 * PRICE_OF_NOT
    worth = np.stack([both, first, neither])
    worth[[0, 2]] += np.where(np.tri(len(alone), dtype=bool), -np.inf, 0.0)  # these two are symmetric
    best = np.argpartition(-worth.ravel(), min(BEAM, worth.size - 1))[:BEAM]
    return [pair_of(worth, *map(int, np.unravel_index(place, worth.shape))) for place in best]


def pair_of(worth: Float[np.ndarray, "3 n n"], kind: int, first: int, second: int) -> Worth:
    return float(worth[kind, first, second]), ((first, kind < 2), (second, kind == 0))


def lengthened(
    answers: Float[np.ndarray, "places conditions"],
    weights: Float[np.ndarray, "places"],
    prices: Float[np.ndarray, "conditions"],
    pair: tuple[Literal, ...],
) -> Worth:
    """The best third condition for a pair."""
    left = weights * held(answers, pair)
    paid = sum(prices[n] + PRICE_OF_NOT * (not yes) for n, yes in pair)
    positive = left.astype(np.float32) @ answers
    both = np.stack([positive - prices, left.sum() - positive - prices - PRICE_OF_NOT]) - paid
    sign, number = np.unravel_index(np.argmax(both), both.shape)
    return float(both[sign, number]), (*pair, (int(number), bool(sign == 0)))
