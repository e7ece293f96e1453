"""Figures are of groups that were not learned from; controls are at chance."""

import pytest
import torch

from microtome.core.area import area
from microtome.core.errors import Refusal
from microtome.directions.contrast import Contrast, mean_difference
from microtome.directions.held_out import group_draws, judged, scores, split
from tests.directions.planted import contrast


def test_folds_keep_groups_together_and_judge_each_once(generator: torch.Generator) -> None:
    groups = torch.randint(7, (50,), generator=generator) * 10
    parts = list(split(groups, 3, generator))
    assert torch.stack(parts).sum(0).eq(1).all()
    for judges in parts:
        assert not set(groups[judges].tolist()) & set(groups[~judges].tolist())


def test_a_planted_direction_reads_and_its_controls_do_not(generator: torch.Generator) -> None:
    given, _ = contrast(generator, signal=4.0, d=10, n=150, falls=0.0, size=1.0)
    x, has = torch.cat((given.positive, given.negative)), torch.arange(300) < 150
    found = judged(x, has, torch.arange(300) % 60, mean_difference, generator=generator)
    assert found.area.found > 0.98
    assert found.area.low <= found.area.found <= found.area.high
    assert found.accuracy.low > 0.9
    assert found.shuffled.low < 0.5 < found.shuffled.high
    assert found.random_features.low < 0.5 < found.random_features.high
    assert (found.examples, found.groups) == (300, 60)


def test_a_label_that_is_the_group_is_not_found_by_remembering_groups(generator: torch.Generator) -> None:
    """Each group has a direction of its own and a label of its own: split by groups there is nothing to find."""
    marks = torch.randn(40, 60, generator=generator)
    groups = torch.arange(400) % 40
    x, has = marks[groups] + 0.01 * torch.randn(400, 60, generator=generator), (groups % 2) == 0
    by_group = judged(x, has, groups, mean_difference, generator=generator, shuffles=2)
    by_example = judged(x, has, torch.arange(400), mean_difference, generator=generator, shuffles=2)
    assert by_example.area.found > 0.9
    assert by_group.area.found < 0.75


def test_scores_are_in_halves_of_the_distance_of_means(generator: torch.Generator) -> None:
    given, _ = contrast(generator, d=4, n=20)
    x, has = torch.cat((given.positive, given.negative)), torch.arange(40) < 20
    judges = torch.arange(40) % 4 == 0
    said = scores(x, has, [judges], mean_difference)
    alone = Contrast.of(x[~judges], has[~judges])
    at_means = torch.stack((alone.positive.mean(0), alone.negative.mean(0)))
    direction = mean_difference(alone)
    half = alone.difference.norm() / 2
    torch.testing.assert_close(said[judges], (x[judges] - alone.middle) @ direction / half)
    torch.testing.assert_close((at_means - alone.middle) @ direction / half, torch.tensor([1.0, -1.0]))


def test_draws_are_of_whole_groups(generator: torch.Generator) -> None:
    groups = torch.tensor([3, 3, 5, 7, 7, 7])
    draws = group_draws(groups, generator, 50)
    assert torch.equal(draws[:, 0], draws[:, 1])
    assert torch.equal(draws[:, 3], draws[:, 5])
    assert (draws[:, [0, 2, 3]].sum(1) == 3).all()
    has = torch.tensor([True, False, True, False, True, False])
    assert area(torch.arange(6.0), has, draws).shape == (50,)


def test_more_folds_than_groups_are_refused(generator: torch.Generator) -> None:
    with pytest.raises(Refusal, match="2 groups cannot be split into 5 folds"):
        list(split(torch.tensor([0, 0, 1, 1]), 5, generator))
