"""`lobbyctl admission rate | pause | resume`: change how many are let in, and say what came of it."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from redis.asyncio import Redis

from runtime.daemon import EXIT_ERROR
from scripts.commands.admission_look import a_minute, in_words, wait_s
from scripts.commands.asking import says_yes
from scripts.commands.operators import operator
from scripts.commands.system import with_redis
from storage.admission import AdmissionSettings, Change, Settings
from storage.tickets import Tickets


async def rate(
    data_dir: Path, config_file: Path | None, total_rate: int | None, *, is_sure: bool, as_json: bool
) -> int:
    """Set the rate, in players a minute, once the operator has seen what it does. Answers the exit code.

    None is what is configured.
    """

    async def work(redis: Redis) -> int | None:
        settings = AdmissionSettings(redis)
        now = await settings.show()
        ledger = await Tickets(redis, ttl_s=0).ledger()
        wanted = now.configured_rate if total_rate is None else total_rate
        print(_projection(now, ledger, wanted), file=sys.stderr if as_json else sys.stdout)
        as_configured = ", as configured" if total_rate is None else ""
        if not is_sure and not says_yes(f"Let in {a_minute(wanted)}{as_configured}, all pods together?"):
            return EXIT_ERROR
        change = await settings.set_rate(total_rate, operator())
        facts = {
            "waiting": int(ledger["waiting"]),
            "lastWaitSecBefore": wait_s(ledger, now.total_rate),
            "lastWaitSecAfter": wait_s(ledger, 0 if now.paused else wanted),
        }
        said = f"Set: {a_minute(change.after)}{as_configured}, {change.before:,.0f} before."
        _print(change, facts, said, as_json=as_json)
        return None

    return await with_redis(data_dir, config_file, work)


async def pause(data_dir: Path, config_file: Path | None, *, as_json: bool) -> int:
    """Let nobody in. Answers the exit code."""

    async def work(redis: Redis) -> None:
        change = await AdmissionSettings(redis).pause(operator())
        said = "Paused: nobody is let in until `lobbyctl admission resume`."
        _print(change, {}, said if change.is_changed else "It is paused already.", as_json=as_json)

    return await with_redis(data_dir, config_file, work)


async def resume(data_dir: Path, config_file: Path | None, *, as_json: bool) -> int:
    """Let players in again. Answers the exit code."""

    async def work(redis: Redis) -> None:
        change = await AdmissionSettings(redis).resume(operator())
        said = f"Resumed: {a_minute(change.after)}."
        _print(change, {}, said if change.is_changed else "It is not paused.", as_json=as_json)

    return await with_redis(data_dir, config_file, work)


def _projection(now: Settings, ledger: Mapping[str, float], total_rate: float) -> str:
    waiting = int(ledger["waiting"])
    lines = [f"{waiting:,} player{' waits' if waiting == 1 else 's wait'}."]
    if waiting:
        at_old = in_words(wait_s(ledger, now.rate))
        at_new = in_words(wait_s(ledger, total_rate))
        lines.append(
            f"The last in line waits {at_old} at {now.rate:,.0f} a minute, and {at_new} at {total_rate:,.0f}."
        )
    if now.opens_at is not None:
        lines.append(f"Nobody is let in before the opening at {now.opens_at}: waits count from then on.")
    if now.paused:
        lines.append("Admission is paused: the rate counts from `lobbyctl admission resume` on.")
    return "\n".join(lines)


def _print(change: Change, facts: Mapping[str, float | None], said: str, *, as_json: bool) -> None:
    found = {"changed": change.is_changed, "before": change.before, "after": change.after, **facts}
    print(json.dumps(found) if as_json else said)
