"""The cost that is worked out is what a step holds and sends."""

import pytest

from microtome.core.errors import Refusal
from microtome.dictionaries.parallel.cost import cost_of
from tests.dictionaries.parallel import jobs
from tests.dictionaries.parallel.crew import Crew

pytestmark = pytest.mark.timeout(1100)


def test_a_step_sends_and_holds_what_was_worked_out(two: Crew) -> None:
    cost = cost_of(jobs.WIDTH, jobs.D, jobs.K, jobs.ROWS, latent=2)
    for each in two.run(jobs.exchanged, latent=2):
        assert each["parameters"] == cost.parameters
        assert [[4 * sent, 4 * received] for sent, received in each["seen"]] == [
            [cost.sent_candidates_bytes, cost.received_candidates_bytes]
        ]


def test_twice_the_ranks_hold_half_and_a_width_must_divide() -> None:
    one, two = (cost_of(2**20, 512, 32, 4096, latent=latent) for latent in (16, 32))
    assert one.parameters - 512 == 2 * (two.parameters - 512)
    with pytest.raises(Refusal, match="width 1000 does not divide over 64 ranks; take 1024, or other ranks"):
        cost_of(1000, 512, 32, 4096, latent=64)
