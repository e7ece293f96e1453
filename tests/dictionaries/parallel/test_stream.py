"""Dictionaries that are each on one rank learn from a stream that one of them reads as if each had read it alone."""

import pytest
import torch

from microtome.core.errors import Refusal
from microtome.dictionaries.parallel.group import ALONE, Group
from microtome.dictionaries.parallel.stream import dealt, streamed
from tests.dictionaries.parallel import jobs
from tests.dictionaries.parallel.crew import Crew

pytestmark = pytest.mark.timeout(1100)


@pytest.mark.parametrize("several_sites", [True, False])
def test_each_learns_what_it_would_alone(two: Crew, several_sites: bool) -> None:
    found = two.run(jobs.each_its_own, several_sites=several_sites)
    kinds = [["sae", "sae"], ["units of a token"]]
    for each, mine in zip(found, kinds, strict=True):
        for kind, learned in zip(mine, each["learned"], strict=True):
            expected = jobs.alone(kind)["learned"]
            assert all(torch.equal(x, expected[name]) for name, x in learned.items())


def test_things_are_dealt_once_each() -> None:
    dealt_out = [dealt(list(range(7)), Group(None, 3, rank)) for rank in range(3)]
    assert sorted(sum(map(list, dealt_out), [])) == list(range(7))


def test_rank_0_alone_reads() -> None:
    assert [x.tolist() for x in streamed([torch.ones(1, 2)], ALONE)] == [[[1.0, 1.0]]]
    with pytest.raises(Refusal, match="rank 0 was given no batches; rank 0 alone reads them"):
        next(streamed(None, ALONE))
