"""`lobbyctl matching [why]`: the queues of players, and what one of them waits for."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from rich.console import Console

from runtime.config import load
from runtime.daemon import EXIT_ERROR
from scripts.commands.admission_look import in_words
from scripts.commands.status import table
from scripts.commands.system import Stores, with_redis, with_stores
from scripts.commands.user_look import is_known
from storage.matches import Bucket, MatchBoard, Standing, Waiter
from storage.users import fold
from workers.matching.crowd import Crowd
from workers.matching.pairing import Reach, Widening, quality
from workers.matching.room import widenings

COLUMNS = ("waiting", "oldest", "matched", "in vain", "wait", "quality")


@dataclass(frozen=True)
class Reason:
    """Why a player still waits. `reach` is how far the search goes now, `following` its next step, if any.

    `found` counts those in reach who wait for the same number of players, the player among them.
    """

    is_connected: bool
    reach: Reach
    following: Reach | None
    found: int


async def show(data_dir: Path, config_file: Path | None, *, as_json: bool) -> int:
    """Print the queues of players. Answers the exit code."""

    async def work(redis: Redis) -> None:
        buckets = await MatchBoard(redis).buckets()
        if as_json:
            print(json.dumps({"queues": [_bucket(each) for each in buckets]}))
        elif not buckets:
            print("Nobody waits for opponents, and nobody did lately.")
        else:
            _print(buckets)

    return await with_redis(data_dir, config_file, work)


async def why(data_dir: Path, config_file: Path | None, username: str, *, as_json: bool) -> int:
    """Print where a player stands and what they wait for. Answers the exit code. Raises ConfigError."""
    user_id = fold(username)
    searches = widenings(load(config_file, environ=os.environ, overrides=[]).matching)

    async def work(stores: Stores) -> int | None:
        board = MatchBoard(stores.redis)
        standing = await board.standing(user_id)
        if standing is None and not await is_known(stores, user_id):
            return EXIT_ERROR
        reason = None
        if standing is not None and standing.meeting is None:
            present = user_id in await board.present([user_id])
            reason = _reason(standing, searches, await board.waiting(), is_connected=present)
        if as_json:
            print(json.dumps(_explained(user_id, standing, reason), ensure_ascii=False))
        else:
            print(*_explanation(user_id, standing, reason), sep="\n")
        return None

    return await with_stores(data_dir, config_file, work)


# The queues.


def _bucket(bucket: Bucket) -> dict[str, Any]:
    return {
        "difficulty": bucket.difficulty,
        "level": bucket.level,
        "waiting": bucket.waiting,
        "oldestSec": bucket.oldest_ms / 1000,
        "matched": bucket.matched,
        "timedOut": bucket.timed_out,
        "waitSec": None if bucket.wait_ms is None else round(bucket.wait_ms / 1000, 3),
        "quality": None if bucket.cost is None else round(quality(bucket.cost), 3),
    }


def _print(buckets: Sequence[Bucket]) -> None:
    shown = table("queue", figures=COLUMNS)
    for bucket in buckets:
        facts = _bucket(bucket)
        shown.add_row(
            f"{bucket.difficulty} {bucket.level}",
            f"{bucket.waiting:,}",
            f"{facts['oldestSec']:.1f} s" if bucket.waiting else "",
            f"{bucket.matched:,}",
            f"{bucket.timed_out:,}",
            "" if facts["waitSec"] is None else f"{facts['waitSec']:.1f} s",
            "" if facts["quality"] is None else f"{100 * facts['quality']:.0f}%",
        )
    console = Console(highlight=False)
    console.print(shown)
    console.print(
        f"{sum(bucket.waiting for bucket in buckets):,} wait; wait and quality follow the latest matches, "
        "100% is among equals."
    )


# One player.


def _reason(
    standing: Standing, searches: Mapping[str, Widening], waiting: Sequence[Waiter], *, is_connected: bool
) -> Reason:
    waiter = standing.waiter
    search = searches[waiter.difficulty]
    crowd = Crowd(searches)
    crowd.replace(waiting)
    now_ms = waiter.since_ms + standing.waited_ms
    return Reason(
        is_connected=is_connected,
        reach=search.at(standing.waited_ms),
        following=next((row for row in search.rows if row.after_ms > standing.waited_ms), None),
        found=crowd.in_reach(waiter, now_ms),
    )


def _waits_for(standing: Standing, reason: Reason) -> str:
    if not reason.is_connected:
        return "connection"
    return "opponents" if reason.found < standing.waiter.size else "match"


def _explained(user_id: str, standing: Standing | None, reason: Reason | None) -> dict[str, Any]:
    if standing is None:
        return {"userId": user_id, "status": None, "waitsFor": None}
    waiter = standing.waiter
    found: dict[str, Any] = {
        "userId": user_id,
        "status": "matched" if standing.meeting else "matching",
        "difficulty": waiter.difficulty,
        "level": waiter.level,
        "region": waiter.region or None,
        "players": waiter.size,
        "waitsFor": None,
    }
    if standing.meeting is not None:
        return found | {
            "gameSessionId": standing.meeting.session_id,
            "matchedUsers": list(standing.meeting.others),
        }
    assert reason is not None
    following = reason.following
    return found | {
        "waitSec": standing.waited_ms / 1000,
        "leftSec": max(0, standing.left_ms) / 1000,
        "connected": reason.is_connected,
        "levels": reason.reach.levels,
        "otherRegions": reason.reach.other_regions,
        "inReach": reason.found,
        "widerInSec": None if following is None else (following.after_ms - standing.waited_ms) / 1000,
        "waitsFor": _waits_for(standing, reason),
    }


def _explanation(user_id: str, standing: Standing | None, reason: Reason | None) -> list[str]:
    if standing is None:
        return [f"{user_id} neither waits for opponents nor has any."]
    waiter = standing.waiter
    wanted = f"{waiter.difficulty}, level {waiter.level}, {waiter.region or 'any region'}"
    if standing.meeting is not None:
        others = ", ".join(standing.meeting.others)
        return [f"{user_id} ({wanted}) is in session {standing.meeting.session_id} with {others}."]
    assert reason is not None
    left = in_words(max(0, standing.left_ms) / 1000)
    return [
        f"{user_id} has waited {in_words(standing.waited_ms / 1000)} for a match of {waiter.size} ({wanted}),"
        f" and waits {left} more at most.",
        _search(waiter, reason),
        _cause(standing, reason),
    ]


def _search(waiter: Waiter, reason: Reason) -> str:
    low, high = max(1, waiter.level - reason.reach.levels), min(100, waiter.level + reason.reach.levels)
    levels = f"level {low}" if low == high else f"levels {low} to {high}"
    regions = "all regions" if reason.reach.other_regions or not waiter.region else waiter.region
    return f"The search reaches {levels}, {regions}: {reason.found - 1:,} others wait there."


def _cause(standing: Standing, reason: Reason) -> str:
    match _waits_for(standing, reason):
        case "connection":
            return "Waits for the player: not connected, so not matched; the place is kept until then."
        case "match":
            return "Can be matched, and is now, unless no matching worker runs or others are not connected."
    if reason.following is None:
        return "Waits for somebody to come: the search is as wide as it gets."
    wider_s = (reason.following.after_ms - standing.waited_ms) / 1000
    return f"Waits for somebody to come, or for the search to widen in {in_words(wider_s)}."
