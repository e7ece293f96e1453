"""Every scorer: one for the true rule of a planted component, chance for another's; the whole way to a note."""

import numpy as np
import pytest

from microtome.core.errors import Refusal
from microtome.explain.conditions import Rule, TokenIs
from microtome.explain.counter_examples import counter_examples
from microtome.explain.detection import detection, foretold
from microtome.explain.embedding import Words, embedding
from microtome.explain.explainers import ByRules
from microtome.explain.explaining import Explaining, LeftOut, scorers
from microtome.explain.fuzzing import fuzzing, wrong_marks
from microtome.explain.intruder import FarthestPicker, intruder
from microtome.explain.judges import RuleJudge
from microtome.explain.passages import draw
from microtome.explain.simulation import simulation
from microtome.store.notes import Explanation
from tests.explain import planted

TEXT = planted.reading()
EXPLAINER = planted.explainer(TEXT)
WORD = {word: number for number, word in enumerate(planted.WORDS)}
TRUE = Rule.of(TokenIs("before 1", (WORD["def"],)), TokenIs("here", (WORD["name"], WORD["("])))
OTHER = Rule.of(TokenIs("before 1", (WORD["if"],)), TokenIs("here", (WORD["name"], WORD["("])))
COLUMN = planted.firing(TEXT, TRUE, np.random.default_rng(0))


@pytest.fixture
def drawn(numbers: np.random.Generator):
    return draw(COLUMN, EXPLAINER.proposal, EXPLAINER.scoring, 60, numbers)


@pytest.fixture
def numbers() -> np.random.Generator:
    return np.random.default_rng(1)


def detected(judge: RuleJudge, drawn, generator: np.random.Generator):
    return detection(foretold(judge, drawn), drawn, generator)


@pytest.mark.parametrize("score", [detected, fuzzing, simulation])
def test_the_true_rule_scores_near_one_and_another_near_chance(score, drawn, numbers) -> None:
    right, wrong = (score(RuleJudge(rule, TEXT), drawn, numbers) for rule in (TRUE, OTHER))
    assert right.value > 0.9 and right.low <= right.value <= right.high
    assert abs(wrong.value - wrong.chance) < 0.2 and wrong.low <= wrong.value <= wrong.high


@pytest.mark.parametrize("score", [detected, fuzzing])
def test_a_judge_who_always_says_yes_scores_exactly_chance(score, drawn, numbers) -> None:
    class Yes(RuleJudge):
        def fires(self, passages):
            return np.ones(len(passages))

        def fits(self, passages, marks):
            return np.ones(len(passages))

    grade = score(Yes(TRUE, TEXT), drawn, numbers)
    assert grade.value == grade.auc == grade.chance == 0.5


def test_wrong_marks_are_as_many_as_fire_and_stand_on_silent_tokens(drawn, numbers) -> None:
    fires = drawn.firing.active > drawn.threshold
    marks = wrong_marks(drawn.firing, fires, numbers)
    assert not (marks & (drawn.firing.active != 0)).any()
    np.testing.assert_array_equal(marks.sum(1), fires.sum(1))


def test_words_in_common_are_near() -> None:
    near, far, same = (Words().embed(["the cat sat", other])[1] @ Words().embed(["the cat sat", other])[0]
                       for other in ("a cat", "no dog", "sat the Cat"))  # fmt: skip
    assert far == 0.0 < near
    first, second = Words().embed(["the cat sat", "sat the Cat"])
    np.testing.assert_array_equal(first, second)
    assert same == pytest.approx(first @ first)


def test_the_embedding_score_is_of_the_cosine_to_the_sentence(drawn, numbers) -> None:
    class Knows:
        """Embeds what fires along the sentence, the rest across it, some of them exchanged."""

        def __init__(self, wrong: int):
            self.wrong = wrong

        def embed(self, texts):
            fires = np.arange(len(texts) - 1) < len(drawn.firing)
            fires[: self.wrong] = False
            return np.concatenate([[[1.0, 0.0]], np.stack([fires, ~fires], 1)])

    half = len(drawn.firing) // 2
    assert embedding("x", drawn, Knows(0), TEXT.vocabulary, numbers).value == 1.0
    assert embedding("x", drawn, Knows(half), TEXT.vocabulary, numbers).value == pytest.approx(0.75)


def test_an_intruder_is_found_by_who_can_tell_and_by_chance_otherwise(drawn, numbers) -> None:
    class Knows:
        def odd(self, passages, marks) -> int:
            return int(passages.active.max(1).argmin())

    class First:
        def odd(self, passages, marks) -> int:
            return 0

    assert intruder(Knows(), drawn, numbers).value == 1.0
    assert abs(intruder(First(), drawn, numbers, 400).value - 0.2) < 0.08
    assert 0 <= intruder(FarthestPicker(Words(), planted.WORDS), drawn, numbers).value <= 1


def test_counter_examples_are_foretold_and_silent_or_firing_and_missed(drawn) -> None:
    judge = RuleJudge(OTHER, TEXT)
    against = counter_examples(foretold(judge, drawn), drawn)
    assert len(against.silent) and (judge.fires(against.silent) == 1).all() and not against.silent.active.any()
    assert len(against.missed) and (judge.fires(against.missed) == 0).all()
    peaks = against.missed.active.max(1)
    assert (peaks > drawn.threshold).all() and (np.diff(peaks) <= 0).all()
    none = counter_examples(foretold(RuleJudge(TRUE, TEXT), drawn), drawn)
    assert len(none.silent) == len(none.missed) == 0


def test_the_rule_explainer_is_scored_without_a_language_model() -> None:
    by = ByRules(EXPLAINER)
    work = Explaining(
        EXPLAINER, by, scorers(["simulation", "fuzzing", "intruder", "embedding"], Words(), planted.WORDS, by)
    )
    rare = planted.at_random(TEXT, 1e-4, np.random.default_rng(0))
    column = planted.firing(TEXT, Rule.of(TokenIs("here", (WORD["def"],))), np.random.default_rng(0))
    found, left = work.explain(iter([(3, column), (4, rare)]))
    assert isinstance(found, Explanation) and found.score == found.baseline == 1.0 and found.chance == 0.5
    assert found.text == "`def`" and not found.evidence["foretold_but_silent"]
    assert set(found.evidence["grades"]) == {"detection", "fuzzing", "simulation", "intruder", "embedding"}
    assert isinstance(left, LeftOut) and left.component == 4 and "too seldom" in left.reason
    alone = next(
        Explaining(EXPLAINER, by, scorers(["fuzzing"], Words(), planted.WORDS, by)).explain(iter([(3, column)]))
    )
    assert alone.evidence["grades"]["fuzzing"] == found.evidence["grades"]["fuzzing"]  # others change nothing


def test_a_scorer_that_there_is_not_is_refused() -> None:
    with pytest.raises(Refusal, match="no scorer 'fuzz'; there are: detection"):
        scorers(["fuzz"], Words(), planted.WORDS, ByRules(EXPLAINER))
