"""Who comes to be matched: levels and regions as a game may have them."""

import random
import time
from collections.abc import Sequence

from runtime.settings import MatchingSettings
from storage.matches import DIFFICULTIES, Waiter, Wish
from workers.matching.crowd import Crowd, widening

SEED = 20241218
WAIT_MS = 60_000
REGIONS = {"seoul": 50, "tokyo": 20, "singapore": 12, "frankfurt": 10, "virginia": 8}
SHARES = {"easy": 50, "medium": 35, "hard": 15}
MEAN_LEVEL, SPREAD = 30, 15
"""Levels are spread normally, cut at 1 and 100."""

NARROW = dict.fromkeys(DIFFICULTIES, widening("0:0"))
"""A search that never widens."""

USUAL = {name: widening(getattr(MatchingSettings(), name)) for name in DIFFICULTIES}
"""The search of the default settings."""


def one(number: int, chance: random.Random) -> Wish:
    """A player, drawn by chance."""
    level = min(100, max(1, round(chance.gauss(MEAN_LEVEL, SPREAD))))
    (region,) = chance.choices(list(REGIONS), list(REGIONS.values()))
    (difficulty,) = chance.choices(list(SHARES), list(SHARES.values()))
    return Wish(f"player{number:06}", difficulty, level, region, 2, WAIT_MS)


def crowd(count: int) -> list[Wish]:
    """So many players of whom each has one who fits, in any order."""
    chance = random.Random(SEED)
    players = []
    for number in range(0, count, 2):
        wish = one(number, chance)
        players += [wish, Wish(f"player{number + 1:06}", *_alike(wish))]
    chance.shuffle(players)
    return players


def pairs(count: int) -> list[Wish]:
    """So many players of whom each two that follow each other fit."""
    return sorted(crowd(count), key=lambda wish: wish.user_id)


def strangers(count: int) -> list[Wish]:
    """So many players as they come: nobody sees to it that anybody fits."""
    chance = random.Random(SEED)
    return [one(number, chance) for number in range(count)]


def misfits(count: int) -> list[Wish]:
    """Players who want to be eight, and are seven at most of a level and region: they wait."""
    places = [
        (difficulty, level, f"region{region}")
        for region in range(24)
        for difficulty in DIFFICULTIES
        for level in range(1, 101)
        for _ in range(7)
    ]
    random.Random(SEED).shuffle(places)
    return [Wish(f"misfit{number:06}", *place, 8, WAIT_MS) for number, place in enumerate(places[:count])]


def _alike(wish: Wish) -> tuple[str, int, str, int, int]:
    return wish.difficulty, wish.level, wish.region, wish.size, wish.wait_ms


def pure_pairing_s(players: Sequence[Wish]) -> float:
    """How long the pairing alone takes for them, in seconds: memory only, all at once."""
    crowd_of = Crowd(NARROW)
    waiters = [
        Waiter(wish.user_id, entry, *_alike(wish)[:4], since_ms=entry, skill=0.0)
        for entry, wish in enumerate(players, 1)
    ]
    began_s = time.perf_counter()
    crowd_of.hear(waiters)
    matched = sum(len(found.match.players) for found in crowd_of.sweep(len(players)))
    took_s = time.perf_counter() - began_s
    assert matched == len(players)
    return took_s
