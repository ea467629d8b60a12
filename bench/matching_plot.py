"""An evening as a drawing in plain SVG: who waits over time, and waits and quality by bucket."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from bench.drawing import COLOURS, Panel, page
from bench.harness import quantile
from storage.matches import DIFFICULTIES

if TYPE_CHECKING:
    from bench.matching_evening import Bucket, Evening

TENS = 10
BAR = 0.27


def draw(evening: "Evening") -> str:
    """The drawing as SVG."""
    panels = [
        _over_time(evening),
        _waits_over_time(evening),
        _by_bucket(evening, 2, "wait in s, mean, by ten levels", lambda bucket: _mean(bucket.waits_s)),
        _by_bucket(
            evening,
            3,
            "wait in s, 99 of 100 players, by ten levels",
            lambda bucket: quantile(bucket.waits_s, 0.99) if bucket.waits_s else 0.0,
        ),
        _by_bucket(evening, 4, "quality in %, by ten levels", lambda bucket: 100 * _mean(bucket.qualities)),
        _by_bucket(
            evening,
            5,
            "waited in vain, in % of players, by ten levels",
            lambda bucket: 100 * bucket.in_vain / ((bucket.in_vain + len(bucket.waits_s)) or 1),
        ),
    ]
    players = sum(len(bucket.waits_s) + bucket.in_vain for bucket in evening.buckets.values())
    return page(f"{players:,} players in an evening", panels)


def _over_time(evening: "Evening") -> Panel:
    most = max(count for _, count in [*evening.arrivals, *evening.waiting])
    panel = Panel(0, "players by the hour", (0, evening.arrivals[-1][0]), most, unit="h")
    panel.line(evening.arrivals, COLOURS[0])
    panel.line(evening.waiting, COLOURS[1])
    panel.legend([("come a minute", COLOURS[0]), ("waiting", COLOURS[1])])
    return panel


def _waits_over_time(evening: "Evening") -> Panel:
    panel = Panel(
        1,
        "mean wait in s by the hour",
        (0, evening.arrivals[-1][0]),
        max(wait for _, wait in evening.waits),
        unit="h",
    )
    panel.line(evening.waits, COLOURS[2])
    return panel


def _by_bucket(evening: "Evening", number: int, title: str, value: "Callable[[Bucket], float]") -> Panel:
    found = {key: value(bucket) for key, bucket in evening.buckets.items()}
    panel = Panel(number, title, (0, 100), max(found.values()) or 1.0, unit="")
    for place, difficulty in enumerate(DIFFICULTIES):
        bars = [
            (TENS * (tens + 0.1 + place * BAR), height)
            for (each, tens), height in sorted(found.items())
            if each == difficulty
        ]
        panel.bars(bars, TENS * BAR, COLOURS[place])
    panel.legend(list(zip(DIFFICULTIES, COLOURS, strict=False)))
    return panel


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
