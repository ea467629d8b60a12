"""Charts in plain SVG, one below the other."""

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

WIDTH, PANEL_HEIGHT, LEFT, RIGHT, GAP = 860, 200, 70, 20, 70
COLOURS = ("#2563eb", "#d97706", "#7c3aed", "#059669")
RATE_COLOUR = "#dc2626"
INK, FAINT = "#1f2937", "#e5e7eb"
TICKS = 5

Points = Sequence[tuple[float, float]]


class Panel:
    """One chart: axes from the origin `(x0, 0)` to `(x1, y1)`, and what is drawn in them.

    `unit` is that of x.
    """

    def __init__(self, number: int, title: str, x: tuple[float, float], y1: float, unit: str = "s") -> None:
        self._unit = unit
        self._top = 60 + number * (PANEL_HEIGHT + GAP)
        self._x0, self._x1 = x
        self._y1 = _round_up(y1)
        self.parts = [svg_text(LEFT, self._top - 14, title, size=14, weight="bold")]
        self._axes()

    def _axes(self) -> None:
        for step in range(TICKS + 1):
            y_value = self._y1 * step / TICKS
            x_value = self._x0 + (self._x1 - self._x0) * step / TICKS
            y, x = self._y(y_value), self._x(x_value)
            self.parts += [
                f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="{FAINT}"/>',
                svg_text(LEFT - 8, y + 4, f"{y_value:,.0f}", anchor="end"),
                svg_text(x, self._top + PANEL_HEIGHT + 18, f"{x_value:.3g} {self._unit}", anchor="middle"),
            ]

    def line(self, points: Points, colour: str) -> None:
        """A line through these points."""
        path = " ".join(f"{self._x(x):.1f},{self._y(y):.1f}" for x, y in points)
        self.parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')

    def bars(self, bars: Points, width: float, colour: str) -> None:
        """Bars that begin at these x, `width` wide."""
        for x, y in bars:
            left, right = self._x(x), self._x(x + width)
            self.parts.append(
                f'<rect x="{left:.1f}" y="{self._y(y):.1f}" width="{max(right - left - 0.5, 0.5):.1f}" '
                f'height="{self._y(0) - self._y(y):.1f}" fill="{colour}" fill-opacity="0.6"/>'
            )

    def legend(self, entries: Sequence[tuple[str, str]]) -> None:
        """Names in their colours, at the right."""
        for number, (name, colour) in enumerate(reversed(entries)):
            self.parts.append(
                svg_text(WIDTH - RIGHT - number * 110, self._top - 14, name, anchor="end", colour=colour)
            )

    def _x(self, value: float) -> float:
        return LEFT + (value - self._x0) / ((self._x1 - self._x0) or 1) * (WIDTH - LEFT - RIGHT)

    def _y(self, value: float) -> float:
        return self._top + PANEL_HEIGHT * (1 - min(value / self._y1, 1.05))


def page(title: str, panels: Sequence[Panel]) -> str:
    """A drawing of these panels, as SVG."""
    height = 60 + len(panels) * (PANEL_HEIGHT + GAP)
    parts = [
        svg_text(LEFT, 26, title, size=18, weight="bold"),
        *(part for panel in panels for part in panel.parts),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" font-family="sans-serif">\n<rect width="100%" height="100%" fill="white"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def svg_text(
    x: float, y: float, text: str, *, size: int = 11, anchor: str = "start", weight: str = "normal",
    colour: str = INK,
) -> str:  # fmt: skip
    """A line of text."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" font-weight="{weight}" '
        f'fill="{colour}">{escape(text)}</text>'
    )


def _round_up(value: float) -> float:
    """The next number whose fifths are easily read."""
    power = 10.0 ** math.floor(math.log10(max(value, 1)))
    return next(step * power for step in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if step * power >= value)
