"""Sketches of parts add up to the sketch of the whole, bit for bit, in any order; and they say what is true."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.core.errors import Refusal
from microtome.store.sketches import BINS, NOWHERE, QUANTILES, SAMPLE, TOP, Sketches, hashed

COMPONENTS, CONTEXT = 3, 4
Entry = tuple[int, int, float]  # place, component, value
activations = st.floats(-2.0, 70_000.0, width=32).filter(lambda v: v != 0) | st.sampled_from([0.5, 1.0, 2.0, 2.0**-20])
entries = st.dictionaries(st.tuples(st.integers(0, 400), st.integers(0, COMPONENTS - 1)), activations, max_size=300)


def sketched(found: list[Entry], components: int = COMPONENTS) -> Sketches:
    place, component, value = (np.array([e[i] for e in found]) for i in range(3))
    return Sketches.of(
        place.astype(np.int64), component.astype(np.int64), value.astype(np.float32), components, CONTEXT
    )


def same(one: Sketches, other: Sketches) -> bool:
    pairs = zip(one.arrays().items(), other.arrays().items(), strict=True)
    return all(a[0] == b[0] and np.array_equal(a[1], b[1]) for a, b in pairs)


@settings(max_examples=60, deadline=None)
@given(entries, st.integers(0, 2**32 - 1))
def test_the_parts_add_up_to_the_whole_in_any_order(found: dict[tuple[int, int], float], seed: int) -> None:
    """Windows are dealt to three workers at random; each gets its entries in an order of its own."""
    generator = np.random.default_rng(seed)
    listed = [(place, component, value) for (place, component), value in found.items()]
    worker = generator.integers(0, 3, 102)
    a, b, c = (sketched([e for e in listed if worker[e[0] // CONTEXT] == n]) for n in range(3))
    shuffled = [listed[i] for i in generator.permutation(len(listed))]
    assert same(a + b, b + a) and same((a + b) + c, a + (b + c))
    assert same(a + b + c, sketched(shuffled))
    assert same(a + Sketches.none(COMPONENTS), a)


@settings(max_examples=30, deadline=None)
@given(entries)
def test_rows_are_those_of_brute_force(found: dict[tuple[int, int], float]) -> None:
    rows = sketched([(p, c, v) for (p, c), v in found.items()]).rows(1000)
    for component in range(COMPONENTS):
        values = np.array([np.float32(v) for (_, c), v in found.items() if c == component], np.float64).clip(-2, 65504)
        assert rows["count"][component] == len(values) == rows["histogram"][component].sum()
        np.testing.assert_allclose(rows["sum"][component], values.sum(), rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(rows["sum_squares"][component], (values**2).sum(), rtol=1e-6, atol=1e-6)
        edges = np.linspace(0, rows["histogram_end"][component], BINS + 1)
        inside = values[values > 0]
        assert rows["max"][component] == np.float32(inside.max(initial=0))
        assert np.histogram(inside, edges)[0].tolist()[1:] == rows["histogram"][component].tolist()[1:]


def test_half_of_a_histogram_or_more_lies_below_the_maximum() -> None:
    rows = sketched([(n, 0, v) for n, v in enumerate([0.1, 3.0, 5.9])], 1).rows(10)
    assert rows["max"][0] <= rows["histogram_end"][0] <= 2 * rows["max"][0]


def test_the_strongest_are_one_a_window_and_equals_go_by_place() -> None:
    found = sketched([(0, 0, 2.0), (1, 0, 3.0), (3, 0, 3.0), (9, 0, 5.0), (4, 0, 3.0)], 1)
    assert found.top_place[0][:4].tolist() == [9, 1, 4, NOWHERE]


def test_the_sample_is_uniform_over_windows_and_does_not_look_at_activations() -> None:
    windows = np.arange(5000)
    place = windows * CONTEXT + 1
    rising = Sketches.of(place, np.zeros_like(place), 1.0 + windows.astype(np.float32), 1, CONTEXT)
    falling = Sketches.of(place, np.zeros_like(place), 9000.0 - windows.astype(np.float32), 1, CONTEXT)
    assert np.array_equal(rising.sample_place, falling.sample_place)
    assert np.array_equal(np.sort(rising.sample_place[0]), np.sort(place[np.argsort(hashed(place))[:SAMPLE]]))
    assert abs(rising.sample_place[0].mean() / CONTEXT - 2500) < 4 * 5000 / (12 * SAMPLE) ** 0.5


def test_exemplars_are_the_strongest_and_then_fifths_of_the_ranks_falling() -> None:
    count = 47  # fewer than are sampled: the fifths are exact
    place = np.arange(count) * CONTEXT + 1
    value = np.random.default_rng(0).permutation(count).astype(np.float32) + 1
    exemplars = Sketches.of(place, np.zeros_like(place), value, 1, CONTEXT).exemplars()[0]
    at = value[(exemplars - 1) // CONTEXT]
    assert at[:TOP].tolist() == sorted(value.tolist(), reverse=True)[:TOP]
    for fifth, ranks in enumerate(np.array_split(np.sort(value)[::-1], QUANTILES)):
        shown = at[TOP + 4 * fifth : TOP + 4 * fifth + 4]
        assert set(shown.tolist()) <= set(ranks.tolist()) and (np.diff(shown) < 0).all()


def test_no_two_places_have_one_hash_and_an_empty_slot_comes_last() -> None:
    places = np.arange(100_000, dtype=np.uint32)
    found = hashed(places)
    assert len(np.unique(found)) == len(places) and (hashed(np.array([NOWHERE])) >= found).all()


def test_other_numbers_of_components_do_not_add() -> None:
    with pytest.raises(Refusal, match="sketches of 3 and of 4 components do not add; give one dictionary's"):
        _ = Sketches.none(3) + Sketches.none(4)
