"""Schedules are factors between their ends, continuous where they join."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtome.core.errors import Refusal
from microtome.core.schedule import Cosine, Linear, WarmUp


def test_a_warm_up_moves_at_once_and_ends_at_one() -> None:
    rise = WarmUp(4)
    assert [rise(step) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert WarmUp(0)(0) == 1


@pytest.mark.parametrize("kind", [Linear, Cosine])
def test_a_decay_is_one_before_last_after_and_halfway_in_the_middle(kind: type) -> None:
    fall = kind(10, 20, last=0.2)
    assert fall(0) == fall(10) == 1
    assert fall(15) == pytest.approx(0.6)
    assert fall(20) == fall(1000) == pytest.approx(0.2)


@given(st.integers(0, 50), st.integers(1, 50), st.floats(0, 1))
def test_decays_never_rise(start: int, length: int, last: float) -> None:
    for kind in (Linear, Cosine):
        factors = [kind(start, start + length, last)(step) for step in range(start + length + 3)]
        assert all(after <= before + 1e-12 for before, after in zip(factors, factors[1:], strict=False))


def test_a_cosine_decay_is_half_a_wave() -> None:
    assert Cosine(0, 8)(2) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)


def test_schedules_multiply_and_are_values() -> None:
    both = WarmUp(10) * Linear(20, 30)
    assert [both(step) for step in (4, 15, 25, 30)] == pytest.approx([0.5, 1, 0.5, 0])
    assert both == WarmUp(10) * Linear(20, 30) and "stop=30" in repr(both)


def test_a_decay_that_takes_no_time_is_refused() -> None:
    with pytest.raises(Refusal, match="a decay from step 7 to 7 takes no time; let stop be after start"):
        Linear(7, 7)
