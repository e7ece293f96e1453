"""Nothing that an explainer is shown is ever in its own test; passages are what they say they are."""

import numpy as np
import pytest

from microtome.explain.conditions import Rule, TokenIs
from microtome.explain.passages import LENGTH, Shelf, draw, in_bands, shown
from microtome.store.catalog import Column
from tests.explain import planted

TEXT = planted.reading()
EXPLAINER = planted.explainer(TEXT)
CONTEXT = TEXT.context


def columns() -> list[Column]:
    generator = np.random.default_rng(0)
    rule = Rule.of(TokenIs("here", (planted.WORDS.index("def"),)))
    return [planted.firing(TEXT, rule, generator), *(planted.at_random(TEXT, s, generator) for s in (0.001, 0.01, 0.3))]


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("seed", range(3))
def test_no_window_that_was_shown_is_tested_on(number: int, seed: int) -> None:
    column = columns()[number]
    seen = shown(column, EXPLAINER.proposal, 40, np.random.default_rng(seed))
    drawn = draw(column, EXPLAINER.proposal, EXPLAINER.scoring, 50, np.random.default_rng(seed))
    tested = np.concatenate([p.starts for p in (drawn.firing, drawn.silent, drawn.strongest, drawn.blind)])
    assert len(seen) and len(tested)
    assert not set(seen.starts // CONTEXT) & set(tested // CONTEXT)


def test_two_passages_are_one_or_have_no_token_in_common() -> None:
    starts = Shelf(EXPLAINER.scoring).starts
    places = (starts[:, None] + np.arange(LENGTH)).ravel()
    assert len(np.unique(places)) == len(places)
    assert (places % CONTEXT > 0).all() and (places // CONTEXT == np.repeat(starts // CONTEXT, LENGTH)).all()


def test_silent_is_zero_throughout_and_firing_exceeds_the_threshold() -> None:
    column = columns()[2]
    drawn = draw(column, EXPLAINER.proposal, EXPLAINER.scoring, 50, np.random.default_rng(0))
    active = dict(zip(column.token.tolist(), column.value.tolist(), strict=True))
    assert not any(active.get(place, 0) for place in drawn.silent.places.ravel().tolist())
    assert (drawn.firing.active.max(1) > drawn.threshold).all()
    told = [active.get(place, 0.0) for place in drawn.firing.places.ravel().tolist()]
    np.testing.assert_allclose(drawn.firing.active.ravel(), told)
    assert (drawn.firing.tokens == TEXT.tokens.ravel()[drawn.firing.places]).all()


def test_the_threshold_is_of_the_text_that_explanations_are_proposed_from() -> None:
    column = columns()[2]
    inside = EXPLAINER.proposal.inside[column.token]
    louder = Column(column.token, np.where(inside, column.value, 100 * column.value))
    drawn = [draw(c, EXPLAINER.proposal, EXPLAINER.scoring, 50, np.random.default_rng(0)) for c in (column, louder)]
    assert drawn[0].threshold == drawn[1].threshold


def test_the_strongest_are_shown_and_every_tenth_of_the_ranks_is_drawn_from() -> None:
    column = columns()[3]
    every = Shelf(EXPLAINER.proposal).of(column).active.max(1)
    seen = shown(column, EXPLAINER.proposal, 10, np.random.default_rng(0)).active.max(1)
    assert sorted(seen)[-5:] == sorted(every)[-5:]
    chosen = in_bands(np.arange(1000), 20, np.random.default_rng(0))
    assert (np.bincount(chosen // 100, minlength=10) == 2).all()
    assert len(in_bands(np.arange(1000), 7, np.random.default_rng(0))) == 7
