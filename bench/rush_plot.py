"""The rush as a drawing in plain SVG: who waits over time, admissions beside the rate, and the waits."""

import math
from collections import Counter
from collections.abc import Sequence
from xml.sax.saxutils import escape

from bench.rush_figures import Rush, waiting

WIDTH, PANEL_HEIGHT, LEFT, RIGHT, GAP = 860, 200, 70, 20, 70
COLOURS = ("#2563eb", "#d97706", "#7c3aed", "#059669")
RATE_COLOUR = "#dc2626"
INK, FAINT = "#1f2937", "#e5e7eb"
BUCKETS = 40
TICKS = 5
CURVE_STEP_MS = 250

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


def draw(rush: Rush) -> str:
    """The drawing as SVG."""
    panels = [_waiting(rush), _rate(rush), _waits(rush)]
    height = 60 + len(panels) * (PANEL_HEIGHT + GAP)
    title = f"{rush.players:,} players at {rush.rate:,.0f} a second"
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


def _waiting(rush: Rush) -> Panel:
    curve = waiting(rush, CURVE_STEP_MS)
    panel = Panel(0, "waiting, by seconds since the opening", _span(curve), max(count for _, count in curve))
    panel.line(curve, COLOURS[0])
    return panel


def _rate(rush: Rush) -> Panel:
    span = _span(waiting(rush, CURVE_STEP_MS))
    seconds = Counter(int(ticket.ready_ms / 1000 - rush.opened_at) for ticket in rush.admitted)
    bars = sorted(seconds.items())
    panel = Panel(1, "admitted in each second", span, 1.2 * max(rush.rate, *seconds.values()))
    panel.bars(bars, 1, COLOURS[0])
    panel.line([(max(span[0], 0), rush.rate), (span[1], rush.rate)], RATE_COLOUR)
    panel.legend([("the rate set", RATE_COLOUR)])
    return panel


def _waits(rush: Rush) -> Panel:
    """A histogram of waits by tier."""
    waits: dict[str, list[float]] = {}
    for ticket in rush.admitted:
        waits.setdefault(ticket.tier, []).append(rush.wait_s(ticket))
    longest = max(max(each) for each in waits.values()) or 1.0
    width = longest / BUCKETS
    counted = {
        tier: Counter(min(int(wait / width), BUCKETS - 1) for wait in waits[tier]) for tier in sorted(waits)
    }
    most = max(max(counts.values()) for counts in counted.values())
    panel = Panel(2, "players by how long they waited since the opening", (0, longest), most)
    colours = dict(zip(counted, COLOURS, strict=False))
    for tier, counts in counted.items():
        panel.bars(
            [(bucket * width, count) for bucket, count in sorted(counts.items())], width, colours[tier]
        )
    panel.legend(list(colours.items()))
    return panel


def _round_up(value: float) -> float:
    """The next number whose fifths are easily read."""
    power = 10.0 ** math.floor(math.log10(max(value, 1)))
    return next(step * power for step in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if step * power >= value)


def _span(curve: Points) -> tuple[float, float]:
    return float(math.floor(curve[0][0])), curve[-1][0]


def svg_text(
    x: float, y: float, text: str, *, size: int = 11, anchor: str = "start", weight: str = "normal",
    colour: str = INK,
) -> str:  # fmt: skip
    """A line of text."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" font-weight="{weight}" '
        f'fill="{colour}">{escape(text)}</text>'
    )
