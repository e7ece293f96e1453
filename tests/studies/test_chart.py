"""Points stand where their logarithms say, ticks are round numbers inside the range, the drawing is well-formed."""

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtome.core.errors import Refusal
from microtome.studies.chart import HEIGHT, WIDTH, Axis, Chart, Series, padded, short, svg

positive = st.floats(1e-6, 1e18)


@given(positive, positive, st.floats(0, 1))
def test_an_axis_is_linear_in_the_logarithm(one: float, two: float, share: float) -> None:
    low, high = padded([one, two])
    axis = Axis(low, high, 10.0, 110.0)
    between = math.exp(math.log(low) + share * math.log(high / low))
    assert axis(between) == pytest.approx(10 + 100 * share, abs=1e-6)
    assert low < min(one, two) and high > max(one, two)


@given(positive, st.floats(1.0, 1e9))
def test_ticks_are_few_round_and_inside(low: float, times: float) -> None:
    low, high = padded([low, low * times])
    ticks = Axis(low, high, 0.0, 1.0).ticks()
    assert all(low <= t <= high * (1 + 1e-9) for t in ticks) and ticks == sorted(set(ticks))
    assert 1 <= len(ticks) <= 20


def chart() -> Chart:
    return Chart(
        "Loss <of> sums", "n", "loss & more",
        [
            Series("law", [10.0, 100.0, 1000.0], [0.5, 0.3, 0.2]),
            Series("", [10.0, 1000.0], [0.1, 0.1], 0, "dashed"),
            Series("seen", [10.0, 100.0], [0.5, 0.3], 1, "points"),
            Series("held out", [1000.0], [0.2], 1, "hollow"),
        ],
    )  # fmt: skip


def test_a_chart_is_well_formed_and_holds_every_point() -> None:
    root = ElementTree.fromstring(svg(chart()))
    circles = [e for e in root.iter("circle") if e.find("title") is not None]
    assert len(circles) == 3 + 2  # those of the two series, and one each in the legend
    assert "law" in "".join(root.itertext()) and root.find("figcaption").text == "Loss <of> sums"
    for circle in circles:
        assert 0 < float(circle.get("cx")) < WIDTH and 0 < float(circle.get("cy")) < HEIGHT + 40
    lines = [e.get("d") for e in root.iter("path") if e.get("class") != "grid" and "h" not in e.get("d")]
    assert [len(re.findall(r"[ML]", d)) for d in lines] == [3, 2]


@pytest.mark.parametrize("series", [[], [Series("a", [1.0], [0.0])], [Series("a", [], [])]])
def test_what_has_no_logarithm_is_refused(series: list[Series]) -> None:
    with pytest.raises(Refusal, match="the chart 'empty' has logarithmic axes"):
        svg(Chart("empty", "x", "y", series))


@pytest.mark.parametrize(
    ("number", "said"), [(0.03125, "0.0312"), (256.0, "256"), (4096.0, "4,096"), (2e6, "2M"), (1.5e12, "1.5T")]
)
def test_numbers_are_said_shortly(number: float, said: str) -> None:
    assert short(number) == said
