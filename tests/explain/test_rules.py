"""Rules that were planted are found again, by a search that never saw the text they are scored on."""

from pathlib import Path

import numpy as np
import pytest

from microtome.core.errors import Refusal
from microtome.explain.conditions import Condition, Fact, Not, Recently, Rule, TokenIs
from microtome.explain.evidence import Part
from microtome.explain.rules import Explainer, explain_rules
from microtome.store.catalog import Column
from tests.explain import planted

TEXT = planted.reading()
WORD = {word: number for number, word in enumerate(planted.WORDS)}


def fact(name: str) -> Fact:
    return Fact(TEXT.fact_names.index(name), name)


def token(slot: str, *words: str) -> TokenIs:
    return TokenIs(slot, tuple(WORD[w] for w in words))


PLANTED = {
    "one token": (token("here", "def"),),
    "a set of tokens": (token("here", "def", "if", "("),),
    "the token before": (token("before 1", "def"),),
    "two tokens before": (token("before 1", ".", ","), token("before 2", " self", "name", "1")),
    "a token in a place": (token("here", " the", " of"), fact("in a string")),
    "a token out of a place": (token("here", " the", " of"), Not(fact("in a string"))),
    "a fact": (fact("function name at def"),),
    "a place after a token": (token("before 1", "name"), fact("in a string")),
    "three at once": (
        token("before 2", "1", ",", "if", "name", "def", ")"),
        token("before 1", "(", ".", " x", "\n", " of"),
        fact("in a string"),
    ),
    "a token lately": (token("here", ")", "(", "name", "1"), Recently(WORD["if"])),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_rule_is_found_through_noise(name: str) -> None:
    rule = Rule.of(*PLANTED[name])
    column = planted.firing(TEXT, rule, np.random.default_rng(1), misses=0.02, extra=0.0001)
    found = next(planted.explainer(TEXT).explain({7: column}))
    assert found.score >= 0.95
    assert found.low <= found.score <= found.high
    assert plain(found.evidence["conditions"]) == plain([c.words() for c in PLANTED[name]])


def plain(conditions: list[dict]) -> set[str]:
    """Conditions without their order, or that of their tokens."""
    kept = [{k: v for k, v in c.items() if k != "says" and not k.startswith("on_")} for c in conditions]
    return {str({k: sorted(v) if k == "tokens" else v for k, v in c.items()}) for c in kept}


def test_the_token_baseline_of_a_pure_token_component_is_its_score() -> None:
    column = planted.firing(TEXT, Rule.of(token("here", "def", "if")), np.random.default_rng(2))
    found = next(planted.explainer(TEXT).explain({0: column}))
    assert found.score == found.baseline == 1.0
    assert found.evidence["hard_negatives"] == 0
    assert found.text == "`if` or `def`" or found.text == "`def` or `if`"


def test_a_component_that_fires_at_random_scores_half_within_its_interval() -> None:
    generator, explainer = np.random.default_rng(3), planted.explainer(TEXT)
    columns = {n: planted.at_random(TEXT, generator.uniform(0.005, 0.1), generator) for n in range(300)}
    found = list(explainer.explain(columns))
    assert len(found) == 300
    assert np.mean([e.low <= 0.5 <= e.high for e in found]) > 0.92
    assert abs(np.mean([e.score for e in found]) - 0.5) < 0.01
    assert abs(np.mean([e.chance for e in found]) - 0.5) < 0.01


def moved_in(column: Column, windows: np.ndarray, times: float, generator: np.random.Generator) -> Column:
    """The same activations, but for those of some windows: these, times a factor, go to random tokens there."""
    moved = windows[column.token // planted.CONTEXT]
    places = (np.flatnonzero(windows)[:, None] * planted.CONTEXT + np.arange(1, planted.CONTEXT)).ravel()
    chosen = generator.choice(places, moved.sum(), replace=False)
    token = np.concatenate([column.token[~moved], chosen.astype(np.uint32)])
    value = np.concatenate([column.value[~moved], generator.permutation(column.value[moved]) * np.float16(times)])
    order = np.argsort(token)
    return Column(token[order], value[order])


def test_rules_do_not_depend_on_the_scoring_windows_nor_held_out_evidence_on_the_others() -> None:
    generator, explainer, split = np.random.default_rng(4), planted.explainer(TEXT), planted.split()
    column = planted.firing(TEXT, Rule.of(token("here", "name"), fact("in a string")), generator, 0.1, 0.01)
    before = next(explainer.propose(5, column))
    other = next(explainer.propose(5, moved_in(column, split.scoring, 3, generator)))
    assert before.rule == other.rule
    assert before.token_rule == other.token_rule
    assert before.threshold == other.threshold
    assert (before.seen.places == other.seen.places).all()
    assert split.scoring[before.held_out.places // planted.CONTEXT].all()
    assert split.proposal[before.seen.places // planted.CONTEXT].all()
    elsewhere = next(explainer.propose(5, moved_in(column, split.proposal, 1, generator)))
    assert (elsewhere.held_out.places == before.held_out.places).all()


def test_too_few_firings_get_no_explanation() -> None:
    nothing = Column(np.zeros(0, np.uint32), np.zeros(0, np.float16))
    few = Column(np.array([70, 200, 999], np.uint32), np.ones(3, np.float16))
    assert not list(planted.explainer(TEXT).explain({0: nothing, 1: few}))


def test_a_catalogue_is_explained_in_order_and_the_same_way_each_time(tmp_path: Path) -> None:
    generator = np.random.default_rng(5)
    columns = [planted.firing(TEXT, Rule.of(*rule), generator, 0.02, 0.001) for rule in PLANTED.values()]
    columns.insert(3, Column(np.zeros(0, np.uint32), np.zeros(0, np.float16)))
    catalog, told = planted.catalog(tmp_path / "catalog", TEXT, columns), []
    found = list(explain_rules(catalog, told.append))
    assert [e.component for e in found] == [n for n in range(len(columns)) if n != 3]
    assert told == [len(columns)]
    assert found == list(explain_rules(catalog))
    assert {e.method for e in found} == {"rule"}


def test_text_without_labels_is_explained_by_its_words(tmp_path: Path) -> None:
    plain_text = planted.Reading(TEXT.tokens, planted.WORDS, np.zeros((*TEXT.tokens.shape, 0), bool), ())
    rule = Rule.of(Fact(plain_text.fact_names.index("capitalised"), "capitalised"))
    column = planted.firing(plain_text, rule, np.random.default_rng(6))
    assert next(planted.explainer(plain_text).explain({0: column})).score == 1.0


def test_parts_must_not_overlap_to_be_held_out() -> None:
    split = planted.split()
    assert not (split.proposal & split.scoring).any()
    assert not set(Part(TEXT.tokens, split.proposal).places) & set(Part(TEXT.tokens, split.scoring).places)


def test_conditions_say_what_they_are() -> None:
    kinds: list[Condition] = [token("here", "def"), Recently(3), fact("digits"), Not(fact("digits"))]
    assert [c.words()["kind"] for c in kinds] == ["token", "recent", "fact", "not"]


def test_rules_proposed_from_another_text_are_scored_on_all_of_the_first(tmp_path: Path) -> None:
    generator = np.random.default_rng(5)
    other = planted.reading(seed=1)
    texts = {"scoring": TEXT, "proposals": other}
    catalogs = {
        name: planted.catalog(
            tmp_path / name, text, [planted.firing(text, Rule.of(*rule), generator) for rule in PLANTED.values()], name
        )
        for name, text in texts.items()
    }
    found = list(explain_rules(catalogs["scoring"], proposals=catalogs["proposals"]))
    assert len(found) == len(PLANTED) and min(e.score for e in found) > 0.9
    explainer = Explainer.of(catalogs["scoring"], 0, catalogs["proposals"])
    first, second = TEXT.tokens.size, other.tokens.size
    assert explainer.scoring.places.max() < first <= explainer.proposal.places.min()
    assert explainer.proposal.places.max() < first + second and len(explainer.scoring.places) > 0.9 * first


def test_rules_are_not_proposed_from_the_documents_they_are_scored_on(tmp_path: Path) -> None:
    columns = [planted.firing(TEXT, Rule.of(*rule), np.random.default_rng(5)) for rule in PLANTED.values()]
    catalog = planted.catalog(tmp_path / "catalog", TEXT, columns)
    with pytest.raises(Refusal, match="rules proposed from 'module_0' would be scored on it"):
        list(explain_rules(catalog, proposals=catalog))
