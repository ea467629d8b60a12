"""`lobbyctl admission show | why`: how many are let in, how long players wait, where one of them stands."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from rich.console import Console

from protocol.messages.waiting import TicketStatus
from runtime.daemon import EXIT_ERROR
from scripts.commands.status import LEDGER_COLOURS, latest_wait, ledger_line
from scripts.commands.system import Stores, with_redis, with_stores
from scripts.commands.user_look import is_known
from storage.admission import AdmissionSettings, Settings, Standing
from storage.tickets import Tickets
from storage.users import fold

NODE_SAYS_S = 75.0
"""A node says once a minute who of its players is there (socketd/presence.py), and may be late."""


async def show(data_dir: Path, config_file: Path | None, *, as_json: bool) -> int:
    """Print how many are let in, who decided that and how long players wait. Answers the exit code."""

    async def work(redis: Redis) -> None:
        settings = await AdmissionSettings(redis).show()
        ledger = await Tickets(redis, ttl_s=0).ledger()
        if as_json:
            print(json.dumps(_shown(settings, ledger), ensure_ascii=False))
        else:
            console = Console(highlight=False, soft_wrap=True)
            console.print(_rate_in_words(settings), ledger_line(ledger), sep="\n", markup=False)
            console.print(_waits_in_words(settings, ledger), markup=False)

    return await with_redis(data_dir, config_file, work)


async def why(data_dir: Path, config_file: Path | None, username: str, *, as_json: bool) -> int:
    """Print where a player stands and what they wait for. Answers the exit code."""
    user_id = fold(username)

    async def work(stores: Stores) -> int | None:
        settings = AdmissionSettings(stores.redis)
        standing, now = await settings.standing(user_id), await settings.show()
        if standing is None and not await is_known(stores, user_id):
            return EXIT_ERROR
        if as_json:
            print(json.dumps(_explained(user_id, standing, now), ensure_ascii=False))
        elif standing is None:
            print(
                f"{user_id} has no ticket, so waits for nothing: not logged in, signed in already, "
                "or the place was given up or has expired."
            )
        else:
            print(*_explanation(user_id, standing, now), sep="\n")
        return None

    return await with_stores(data_dir, config_file, work)


def wait_s(ledger: Mapping[str, float], rate: float) -> int | None:
    """How long all who wait would take at a rate a minute, in seconds; None while nobody is let in.

    As players' estimates it goes by how many have really left the line of late for each that the rate let in.
    """
    return math.ceil(ledger["waiting"] * 60 / (rate * ledger["outflow"])) if rate > 0 else None


def a_minute(rate: float) -> str:
    """A rate in words."""
    return f"{rate:,.0f} player{'' if rate == 1 else 's'} a minute"


def in_words(seconds: float | None) -> str:
    """A time that people can grasp. None is one without an end."""
    if seconds is None:
        return "without end"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


# Showing all.


def _shown(settings: Settings, ledger: Mapping[str, float]) -> dict[str, Any]:
    counters = ("issued", *LEDGER_COLOURS)
    return {
        "totalRate": settings.total_rate,
        "rate": settings.rate,
        "podRate": settings.pod_rate,
        "podCount": settings.pod_count,
        "configuredRate": settings.configured_rate,
        "paused": settings.paused,
        "setBy": settings.set_by,
        "setAt": settings.set_at,
        "ledger": {name: ledger[name] for name in counters},
        "opensAt": settings.opens_at,
        "avgWaitSec": ledger["avgWaitSec"],
        "estimateErrorSec": ledger["estimateErrorSec"],
        "lastWaitSec": wait_s(ledger, settings.total_rate),
    }


def _rate_in_words(settings: Settings) -> str:
    by_pod = f" ({settings.pod_rate:,.1f} for each pod of {settings.pod_count})" if settings.pod_rate else ""
    rate = f"{a_minute(settings.rate)}{by_pod}"
    lines = [f"Let in: {rate}."]
    if settings.paused:
        lines = ["PAUSED: nobody is let in.", f"`lobbyctl admission resume` lets in {rate}."]
    if settings.opens_at is not None:
        lines.insert(0, f"CLOSED: nobody is let in before the opening at {settings.opens_at}.")
    if settings.operator_rate is None:
        lines.append("The rate is the configured one.")
    else:
        lines.append(f"The rate was set by an operator; configured are {settings.configured_rate:,.0f}.")
    if settings.set_by is not None:
        lines.append(f"Last changed by {settings.set_by} at {settings.set_at}.")
    return "\n".join(lines)


def _waits_in_words(settings: Settings, ledger: Mapping[str, float]) -> str:
    waiting = int(ledger["waiting"])
    if not waiting:
        return f"Nobody waits; {latest_wait(ledger)}."
    last = in_words(wait_s(ledger, settings.total_rate))
    off = f"estimates were {ledger['estimateErrorSec']:.1f} s off"
    since = "from now" if settings.opens_at is None else "from the opening on"
    return f"The last in line waits {last} {since}; {latest_wait(ledger)}, {off}."


# Explaining one.


def _waits_for(standing: Standing, now: Settings) -> str:
    if standing.status is not TicketStatus.PENDING:
        return "finalize"
    if standing.is_passed_over:
        return "player"
    if now.paused:
        return "paused"
    return "rate" if standing.opens_at is None else "opening"


def _is_connected(standing: Standing) -> bool:
    return standing.node is not None and standing.unseen_s <= NODE_SAYS_S


def _explained(user_id: str, standing: Standing | None, now: Settings) -> dict[str, Any]:
    if standing is None:
        return {"userId": user_id, "status": None, "waitsFor": None}
    return {
        "userId": user_id,
        "status": standing.status.value,
        "tier": standing.tier,
        "position": standing.position,
        "totalWaiting": standing.total_waiting,
        "sinceIssueSec": standing.since_issue_s,
        "estimatedWaitSec": None if standing.wait_s is None else math.ceil(standing.wait_s),
        "opensAt": standing.opens_at,
        "connected": _is_connected(standing),
        "node": standing.node,
        "unseenSec": standing.unseen_s,
        "placeKeptSec": standing.kept_s,
        "finalizeDeadlineSec": standing.deadline_s,
        "waitsFor": _waits_for(standing, now),
    }


def _explanation(user_id: str, standing: Standing, now: Settings) -> list[str]:
    place = ""
    if standing.is_passed_over:
        place = f", passed over, tier {standing.tier}"
    elif standing.status is TicketStatus.PENDING:
        place = f", place {standing.position:,} of {standing.total_waiting:,}, tier {standing.tier}"
    return [
        f"{user_id} is {standing.status.value}{place}; logged in {in_words(standing.since_issue_s)} ago.",
        _connection(standing),
        _reason(standing, now),
    ]


def _connection(standing: Standing) -> str:
    seen = f"last seen {in_words(standing.unseen_s)} ago"
    if _is_connected(standing):
        return f"Connected through {standing.node}, {seen}."
    through = "Not connected" if standing.node is None else f"Was connected through {standing.node}"
    return f"{through}, {seen}; the place is kept for {in_words(standing.kept_s)} more."


def _reason(standing: Standing, now: Settings) -> str:
    match _waits_for(standing, now):
        case "finalize":
            return f"Waits for nobody: the game client has {in_words(standing.deadline_s)} left to finalize."
        case "player":
            return "The turn came while nobody was there: it comes again as soon as the player is back."
        case "paused":
            return "Waits for the end of the pause: `lobbyctl admission resume`."
        case "opening":
            return (
                f"Waits for the opening at {standing.opens_at}: places are drawn then, this is the last one."
            )
        case _ if standing.wait_s is None:
            return (
                f"Waits for its turn at {a_minute(now.total_rate)}; nobody has come in yet to tell how long."
            )
        case _:
            turn = in_words(math.ceil(standing.wait_s))
            return f"Waits for its turn, in about {turn}, at {a_minute(now.total_rate)}."
