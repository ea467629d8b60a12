"""`lobbyctl queue ls | peek`: what waits in queues, without a word of what players sent."""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from redis.asyncio import Redis
from rich.console import Console
from rich.markup import escape

from protocol.envelope import Delivery, Envelope, ServerStatus
from runtime.daemon import EXIT_ERROR
from scripts.commands.status import QUEUE_FIGURES, queue_fields, queue_row, table
from scripts.commands.system import with_redis
from storage.backlogs import Backlogs, Waiting
from storage.queues import DeadLetters, QueueServer, UnknownQueue

_envelope = msgspec.msgpack.Decoder(Envelope)
_deliveries = msgspec.msgpack.Decoder(list[Delivery])
_status = msgspec.msgpack.Decoder(ServerStatus)


async def ls(data_dir: Path, config_file: Path | None, *, as_json: bool) -> int:
    """Print every queue. Answers the exit code."""

    async def work(redis: Redis) -> None:
        found = await queues(redis)
        if as_json:
            print(json.dumps({"queues": found}))
            return
        shown = table("queue", figures=(*QUEUE_FIGURES, "dead"))
        for each in found:
            letters = each["deadLetters"]
            shown.add_row(*queue_row(each), f"[red]{letters:,}[/red]" if letters else "–")
        Console(highlight=False).print(shown)

    return await with_redis(data_dir, config_file, work)


async def queues(redis: Redis) -> list[dict[str, Any]]:
    """Every queue as JSON has it."""
    server = QueueServer(redis)
    found = await server.statistics(await server.ids())
    letters = await DeadLetters(redis).counts([each.queue_id for each in found])
    return [{**queue_fields(each), "deadLetters": letters.get(each.queue_id, 0)} for each in found]


async def peek(data_dir: Path, config_file: Path | None, name: str, most: int, *, as_json: bool) -> int:
    """Print the oldest entries of a queue. Answers the exit code."""

    async def work(redis: Redis) -> int | None:
        try:
            found = await Backlogs(redis).peek(name, most)
        except UnknownQueue as error:
            print(error, file=sys.stderr)
            return EXIT_ERROR
        entries = [_entry(each) for each in found]
        if as_json:
            print(json.dumps({"queueId": name, "entries": entries}, ensure_ascii=False))
        elif not entries:
            print(f"{name} is empty.")
        else:
            _print(entries)
        return None

    return await with_redis(data_dir, config_file, work)


def _print(entries: list[dict[str, Any]]) -> None:
    shown = table("entry", "age", "bytes", "deliveries", "held by", "what", figures=())
    shown.columns[-1].no_wrap = False
    for each in entries:
        facts = (f"{name} {text}" for name, text in each["what"].items())
        shown.add_row(
            each["entryId"],
            f"{each['ageSec']:.1f} s",
            f"{each['bytes']:,}",
            str(each["deliveries"]),
            each["holder"] or "–",
            escape("; ".join(facts)),
        )
    Console(highlight=False).print(shown)


def _entry(waiting: Waiting) -> dict[str, Any]:
    return {
        "entryId": waiting.entry_id,
        "ageSec": waiting.age_sec,
        "bytes": len(waiting.message),
        "deliveries": waiting.deliveries,
        "holder": waiting.holder,
        "what": described(waiting.message),
    }


def described(message: bytes) -> Mapping[str, str]:
    """What a message is and from whom; empty for one that only its reader understands."""
    for described_as in (_as_request, _as_report, _as_deliveries):
        try:
            return dict(described_as(message))
        except msgspec.MsgspecError:
            continue
    return {}


def _as_request(message: bytes) -> Iterator[tuple[str, str]]:
    envelope = _envelope.decode(message)
    yield "request", envelope.type
    yield "from", str(envelope.origin)
    yield "trace", envelope.trace_id
    if envelope.user_id is not None:
        yield "user", envelope.user_id


def _as_report(message: bytes) -> Iterator[tuple[str, str]]:
    report = _status.decode(message)
    yield "report", report.event
    yield "from", report.server_id


def _as_deliveries(message: bytes) -> Iterator[tuple[str, str]]:
    yield "deliveries", str(len(_deliveries.decode(message)))
