"""Curves and points as SVG: drawn in plain text, nothing fetched, no script.

Colours are variables that the page sets for light and dark grounds. Every series is also told apart by its mark, and
every point says its numbers when a pointer rests on it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from microtome.core.errors import Refusal

WIDTH, HEIGHT = 640, 400
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 16, 48  # around the axes; the legend stands below
COLOURS = 6  # that the page's style knows: --c0 to --c5
LEGEND_ROW, LEGEND_COLUMN = 20, 3

Number = int | float
Style = Literal["line", "dashed", "points", "hollow"]


@dataclass(frozen=True)
class Series:
    """Numbers against numbers. Series of one colour belong together, such as measured points and the law through them.

    `hollow` points are those that a fit never saw. A series without a name is left out of the legend.
    """

    name: str
    x: Sequence[Number]
    y: Sequence[Number]
    colour: int = 0
    style: Style = "line"


@dataclass(frozen=True)
class Chart:
    """Series on logarithmic axes. Everything must be above zero."""

    title: str
    x: str
    y: str
    series: Sequence[Series]


def svg(chart: Chart) -> str:
    """The chart as one element of SVG. Raises Refusal for a chart without points or with numbers not above zero."""
    xs, ys = ([n for s in chart.series for n in values(s)] for values in (lambda s: s.x, lambda s: s.y))
    if not xs or min(*xs, *ys) <= 0:
        raise Refusal(f"the chart {chart.title!r} has logarithmic axes; give points, all of them above zero")
    across = Axis(*padded(xs), LEFT, WIDTH - RIGHT)
    up = Axis(*padded(ys), HEIGHT - BOTTOM, TOP)
    named = [s for s in chart.series if s.name]
    height = HEIGHT + LEGEND_ROW * math.ceil(len(named) / LEGEND_COLUMN)
    parts = [
        *(grid_x(across, tick) for tick in across.ticks()), *(grid_y(up, tick) for tick in up.ticks()),
        label(chart.x, (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8),
        label(chart.y, 14, (TOP + HEIGHT - BOTTOM) / 2, turned=True),
        *(drawn(s, across, up) for s in chart.series), *(legend(s, i) for i, s in enumerate(named)),
    ]  # fmt: skip
    return (
        f'<figure><figcaption>{escape(chart.title)}</figcaption><svg viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(chart.title, quote=True)}">{"".join(parts)}</svg></figure>'
    )


class Axis:
    """From numbers to pixels, by their logarithms."""

    def __init__(self, low: Number, high: Number, start: Number, stop: Number):
        self.low, self.high, self.start, self.stop = low, high, start, stop

    def __call__(self, number: Number) -> float:
        share = math.log(number / self.low) / math.log(self.high / self.low)
        return self.start + share * (self.stop - self.start)

    def ticks(self) -> list[float]:
        """Numbers to write beside the axis, about four to eight: 1, 2, 5 a decade, or fewer, or evenly spaced ones."""
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        for steps in ((1, 2, 5), (1,)):
            found = [s * 10.0**e for e in range(first, last + 1) for s in steps]
            found = [t for t in found if self.low <= t <= self.high]
            if len(found) <= 8:
                break
        return found if len(found) >= 3 else self._even()

    def _even(self) -> list[float]:
        rough = (self.high - self.low) / 5
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(s * unit for s in (1, 2, 5, 10) if s * unit >= rough)
        return [i * step for i in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


def padded(numbers: Sequence[Number]) -> tuple[float, float]:
    """A range a little wider than these numbers."""
    low, high = min(numbers), max(numbers)
    by = max((high / low) ** 0.04, 1.02)
    return low / by, high * by


def short(number: Number) -> str:
    """1048576 as 1.05M, 0.0313 as 0.0313."""
    for size, letter in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:,.0f}" if number >= 1000 else f"{number:.3g}"


def grid_x(axis: Axis, tick: Number) -> str:
    at = axis(tick)
    line = f'<path class="grid" d="M{at:.1f} {TOP}V{HEIGHT - BOTTOM}"/>'
    return line + f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{short(tick)}</text>'


def grid_y(axis: Axis, tick: Number) -> str:
    at = axis(tick)
    line = f'<path class="grid" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>'
    return line + f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{short(tick)}</text>'


def label(words: str, x: Number, y: Number, turned: bool = False) -> str:
    turn = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turned else ""
    return f'<text class="axis" x="{x:.1f}" y="{y:.1f}" text-anchor="middle"{turn}>{escape(words)}</text>'


def drawn(series: Series, across: Axis, up: Axis) -> str:
    places = [(across(x), up(y)) for x, y in zip(series.x, series.y, strict=True)]
    if series.style in ("line", "dashed"):
        return line(series, "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places))
    told = (f"{series.name or 'point'}: {short(x)}, {short(y)}" for x, y in zip(series.x, series.y, strict=True))
    return "".join(dot(series, *place, words) for place, words in zip(places, told, strict=True))


def line(series: Series, path: str) -> str:
    dashes = ' stroke-dasharray="5 4"' if series.style == "dashed" else ""
    return f'<path d="{path}" fill="none" stroke="{colour(series)}" stroke-width="1.8"{dashes}/>'


def dot(series: Series, x: Number, y: Number, words: str) -> str:
    fill = "var(--ground)" if series.style == "hollow" else colour(series)
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{fill}" stroke="{colour(series)}" stroke-width="1.8">'
        f"<title>{escape(words)}</title></circle>"
    )


def colour(series: Series) -> str:
    return f"var(--c{series.colour % COLOURS})"


def legend(series: Series, place: int) -> str:
    row, column = divmod(place, LEGEND_COLUMN)
    x, y = LEFT + column * (WIDTH - LEFT) / LEGEND_COLUMN, HEIGHT + row * LEGEND_ROW + 8
    shapes: dict[str, Callable[[], str]] = {
        "line": lambda: line(series, f"M{x:.1f} {y}h22"), "dashed": lambda: line(series, f"M{x:.1f} {y}h22"),
        "points": lambda: dot(series, x + 11, y, series.name), "hollow": lambda: dot(series, x + 11, y, series.name),
    }  # fmt: skip
    return shapes[series.style]() + f'<text x="{x + 28:.1f}" y="{y + 4}">{escape(series.name)}</text>'
