"""A simulated evening: players come as they do after work, and the worker's own pairing finds them opponents.

Time is simulated, so that an evening takes seconds; what is drawn is the pairing's doing alone: how long
players wait, for whom, and how many wait in vain, by difficulty and level.
"""

import asyncio
import math
import random
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import replace

from bench import harness
from bench.harness import Result, at_least, at_most, quantile, rounded
from bench.matching_crowd import SEED, USUAL, one
from bench.matching_plot import draw
from storage.matches import Waiter
from workers.matching.crowd import Crowd, Found

EVENING_S = 4 * 3600
PEAK_PER_S = 3.0
"""Players who come in a second when most do: about 15,000 in the evening."""

STEP_MS = 250
LEVELS_PER_BUCKET = 10
SIZES = {2: 85, 4: 12, 8: 3}
SOON_S = 10.0
LONGEST_S = 60.0


@dataclass
class Bucket:
    """What happened to the players of a difficulty and ten levels."""

    waits_s: list[float] = field(default_factory=list)
    qualities: list[float] = field(default_factory=list)
    in_vain: int = 0


@dataclass(frozen=True)
class Evening:
    """What happened. Points are (hour, value)."""

    buckets: dict[tuple[str, int], Bucket]
    arrivals: list[tuple[float, float]]
    waiting: list[tuple[float, float]]
    waits: list[tuple[float, float]]


async def measure(path: Path) -> Result:
    """Simulate an evening and draw it into a file."""
    machine, began_s = harness.machine(), time.perf_counter()
    evening = simulate()
    await asyncio.to_thread(path.write_text, draw(evening), "utf-8")
    waits = [wait_s for bucket in evening.buckets.values() for wait_s in bucket.waits_s]
    qualities = [each for bucket in evening.buckets.values() for each in bucket.qualities]
    in_vain = sum(bucket.in_vain for bucket in evening.buckets.values())
    figures = {
        "players": float(len(waits) + in_vain),
        "wait_mean_s": rounded(sum(waits) / len(waits)),
        "wait_p50_s": rounded(quantile(waits, 0.5)),
        "wait_p99_s": rounded(quantile(waits, 0.99)),
        "wait_longest_s": rounded(max(waits)),
        "matched_within_10_s_ratio": rounded(sum(wait <= SOON_S for wait in waits) / (len(waits) + in_vain)),
        "in_vain_ratio": rounded(in_vain / (len(waits) + in_vain)),
        "quality_mean_ratio": rounded(sum(qualities) / len(qualities)),
        "simulated_in_s": rounded(time.perf_counter() - began_s),
    }
    goals = [
        at_most("mean wait, s", figures["wait_mean_s"], SOON_S),
        at_least("share matched within 10 s", figures["matched_within_10_s_ratio"], 0.5),
        at_most("longest wait, s", figures["wait_longest_s"], LONGEST_S),
    ]
    return Result("matching_evening", figures, goals, machine)


def simulate() -> Evening:
    """An evening with the default settings."""
    crowd = Crowd(USUAL)
    evening = Evening(defaultdict(Bucket), [], [], [])
    waiting: dict[int, Waiter] = {}
    coming = _coming()
    following = next(coming, None)
    minute: list[float] = []
    came = 0
    for now_ms in range(0, (EVENING_S + int(LONGEST_S) + 1) * 1000, STEP_MS):
        for entry in [
            each.entry for each in waiting.values() if now_ms - each.since_ms > LONGEST_S * 1000 - STEP_MS
        ]:
            evening.buckets[_bucket(waiting.pop(entry))].in_vain += 1
            crowd.hear([entry])
        entries = []
        while following is not None and following.since_ms <= now_ms:
            waiting[following.entry] = following
            crowd.hear([following])
            entries.append(following.entry)
            following = next(coming, None)
        came += len(entries)
        met = [found for entry in entries if (found := crowd.meet(entry, now_ms)) is not None]
        for found in [*met, *crowd.sweep(now_ms)]:
            minute += _note(evening, found, waiting, now_ms)
            crowd.hear(player.entry for player in found.match.players)
        if now_ms % 60_000 == 0:
            hour = now_ms / 3_600_000
            evening.arrivals.append((hour, came))
            evening.waiting.append((hour, len(waiting)))
            if minute:
                evening.waits.append((hour, sum(minute) / len(minute)))
            minute, came = [], 0
    return evening


def _note(evening: Evening, found: Found, waiting: dict[int, Waiter], now_ms: int) -> list[float]:
    waits = []
    for player in found.match.players:
        waiter = waiting.pop(player.entry)
        bucket = evening.buckets[_bucket(waiter)]
        waits.append((now_ms - waiter.since_ms) / 1000)
        bucket.waits_s.append(waits[-1])
        bucket.qualities.append(found.match.quality)
    return waits


def _bucket(waiter: Waiter) -> tuple[str, int]:
    return waiter.difficulty, (waiter.level - 1) // LEVELS_PER_BUCKET


def _coming() -> Iterator[Waiter]:
    """Who comes, in order: few at first, most in the middle of the evening."""
    chance = random.Random(SEED)
    at_s, number = 0.0, 0
    while True:
        share = 0.15 + 0.85 * math.sin(math.pi * min(at_s / EVENING_S, 1.0)) ** 2
        at_s += chance.expovariate(PEAK_PER_S * share)
        if at_s >= EVENING_S:
            return
        number += 1
        wish = one(number, chance)
        (size,) = chance.choices(list(SIZES), list(SIZES.values()))
        since_ms = int(at_s * 1000)
        wish = replace(wish, size=size)
        yield Waiter(wish.user_id, number, wish.difficulty, wish.level, wish.region, wish.size, since_ms, 0.0)
