"""Drawings that are no curves: arrows in a plane, and cells coloured by kind. SVG in plain text, as charts are."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from microtome.studies.chart import Number

PANEL, GAP, TITLE, FOOT = 150, 14, 20, 34  # pixels


class Drawing(ABC):
    """Something that a page can show."""

    title: str

    @abstractmethod
    def svg(self) -> str:
        """As one element, `figure`."""


def figure(title: str, width: Number, height: Number, parts: Sequence[str]) -> str:
    """A drawing with its caption. Colours are variables of the page, for light and dark grounds."""
    return (
        f'<figure><figcaption>{escape(title)}</figcaption><svg viewBox="0 0 {width:g} {height:g}" role="img" '
        f'aria-label="{escape(title, quote=True)}">{"".join(parts)}</svg></figure>'
    )


def words(text: str, x: Number, y: Number) -> str:
    return f'<text class="axis" x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{escape(text)}</text>'


Point = tuple[Number, Number]


@dataclass(frozen=True)
class Arrows(Drawing):
    """Panels side by side, each with a name and vectors from its middle; `reach` is half its width."""

    title: str
    panels: Sequence[tuple[str, Sequence[Point]]]
    reach: Number = 1.3

    def svg(self) -> str:
        width = len(self.panels) * (PANEL + GAP) - GAP
        parts = (self._panel(i * (PANEL + GAP), *panel) for i, panel in enumerate(self.panels))
        return figure(self.title, width, PANEL + TITLE, list(parts))

    def _panel(self, left: Number, name: str, vectors: Sequence[Point]) -> str:
        x, y, scale = left + PANEL / 2, TITLE + PANEL / 2, PANEL / 2 / self.reach
        axes = f'<path class="grid" d="M{left} {y}h{PANEL}M{x} {TITLE}v{PANEL}"/>'
        drawn = (arrow(x, y, x + scale * a, y - scale * b, i, (a, b)) for i, (a, b) in enumerate(vectors))
        return axes + "".join(drawn) + words(name, x, 13)


def arrow(x: Number, y: Number, to_x: Number, to_y: Number, feature: int, vector: Point) -> str:
    colour = f"var(--c{feature % 6})"
    told = f"<title>feature {feature}: ({vector[0]:.2f}, {vector[1]:.2f})</title>"
    line = f'<path d="M{x:.1f} {y:.1f}L{to_x:.1f} {to_y:.1f}" stroke="{colour}" stroke-width="2.2" fill="none"/>'
    return line + f'<circle cx="{to_x:.1f}" cy="{to_y:.1f}" r="4" fill="{colour}">{told}</circle>'


@dataclass(frozen=True)
class Tiles(Drawing):
    """Panels side by side, each with a name and rows (from below) of cells, which are places in `kinds`."""

    title: str
    x: str
    y: str
    kinds: Sequence[str]
    panels: Sequence[tuple[str, Sequence[Sequence[int]]]]

    def svg(self) -> str:
        side = PANEL * 1.6
        width = len(self.panels) * (side + GAP) + GAP
        parts = [self._panel(GAP + i * (side + GAP), side, *panel) for i, panel in enumerate(self.panels)]
        below = TITLE + side
        parts += [words(self.x, width / 2, below + 14), *self._legend(width, below + FOOT)]
        parts += [f'<g transform="rotate(-90 8 {below / 2})">{words(self.y, 8, below / 2 + 4)}</g>']
        return figure(self.title, width, below + FOOT + 12, parts)

    def _panel(self, left: Number, side: Number, name: str, rows: Sequence[Sequence[int]]) -> str:
        high, wide = side / len(rows), side / len(rows[0])
        told = [f"<title>{escape(kind)}</title></rect>" for kind in self.kinds]
        cells = (
            f'<rect x="{left + j * wide:.1f}" y="{TITLE + side - (i + 1) * high:.1f}" width="{wide:.1f}" '
            f'height="{high:.1f}" fill="var(--c{kind % 6})" fill-opacity=".75">{told[kind]}'
            for i, row in enumerate(rows)
            for j, kind in enumerate(row)
        )
        return "".join(cells) + words(name, left + side / 2, 13)

    def _legend(self, width: Number, y: Number) -> list[str]:
        each = width / len(self.kinds)
        return [
            f'<rect x="{i * each + 4:.1f}" y="{y - 9:.1f}" width="11" height="11" fill="var(--c{i % 6})" '
            f'fill-opacity=".75"/><text x="{i * each + 20:.1f}" y="{y:.1f}">{escape(kind)}</text>'
            for i, kind in enumerate(self.kinds)
        ]
