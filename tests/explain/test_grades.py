"""Scores against brute force, and intervals that hold the truth as often as they say."""

import numpy as np
import pytest

from microtome.explain.grades import area, balanced_accuracy, correlation, graded, middle


def test_the_area_is_the_share_of_pairs_in_order() -> None:
    generator = np.random.default_rng(0)
    said, true = generator.integers(5, size=30).astype(float), generator.random(30) < 0.4
    pairs = [(a > b) + (a == b) / 2 for a in said[true] for b in said[~true]]
    assert area(said, true, np.ones((1, 30)))[0] == pytest.approx(np.mean(pairs))


def test_weights_are_repetitions() -> None:
    generator = np.random.default_rng(1)
    said, true, times = generator.random(12), np.arange(12) < 5, generator.integers(1, 4, size=12)
    again = np.repeat(np.arange(12), times)
    for figure in (area, balanced_accuracy):
        weighted = figure(said, true, times[None].astype(float))
        np.testing.assert_allclose(weighted, figure(said[again], true[again], np.ones((1, len(again)))))
    s, a = generator.random((12, 4)), generator.random((12, 4))
    repeated = correlation(s[again], a[again], np.ones((1, len(again))))
    np.testing.assert_allclose(correlation(s, a, times[None].astype(float)), repeated)
    assert repeated[0] == pytest.approx(np.corrcoef(s[again].ravel(), a[again].ravel())[0, 1])


def test_what_knows_nothing_scores_by_chance_and_what_knows_all_scores_one() -> None:
    true, each = np.arange(20) < 5, np.ones((1, 20))
    for said in (np.zeros(20), np.ones(20)):
        assert balanced_accuracy(said, true, each)[0] == area(said, true, each)[0] == 0.5
    assert balanced_accuracy(true.astype(float), true, each)[0] == area(true.astype(float), true, each)[0] == 1.0
    active = np.random.default_rng(0).random((6, 8))
    assert correlation(np.ones((6, 8)), active, np.ones((1, 6)))[0] == 0.0
    assert correlation(3 * active + 1, active, np.ones((1, 6)))[0] == pytest.approx(1.0)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    generator, rate, true = np.random.default_rng(3), 0.7, np.arange(60) < 30
    held = 0
    for _ in range(200):
        said = (np.where(true, generator.random(60) < rate, generator.random(60) > rate)).astype(float)
        grade = graded("d", 0.5, 60, lambda w, s=said: balanced_accuracy(s, true, w), generator)
        held += grade.low <= rate <= grade.high
    assert held / 200 > 0.89
    mean, low, high = middle(generator.normal(1.0, 1.0, 400), generator)
    assert low < mean < high and high - low == pytest.approx(4 / 20, rel=0.2)
