"""`lobbyctl queue ls | peek`: what waits in queues, without a word of what players sent."""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from redis.asyncio import Redis
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from protocol.envelope import Delivery, Envelope, ServerStatus
from runtime.daemon import EXIT_ERROR
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
        columns = ("queue", "type", "length", "of", "pending", "readers", "oldest", "dead letters")
        table = _table(*columns, figures=6)
        for each in found:
            letters = each["deadLetters"]
            table.add_row(
                each["queueId"],
                each["queueType"],
                f"{each['length']:,}",
                f"{each['maxSize']:,}",
                f"{each['pending']:,}",
                str(each["consumers"]),
                f"{each['oldestAgeSec']:.1f} s" if each["length"] else "–",
                f"[red]{letters:,}[/red]" if letters else "–",
            )
        Console(highlight=False).print(table)

    return await with_redis(data_dir, config_file, work)


async def queues(redis: Redis) -> list[dict[str, Any]]:
    """Every queue as JSON has it."""
    server = QueueServer(redis)
    found = await server.statistics(await server.ids())
    letters = await DeadLetters(redis).counts([each.queue_id for each in found])
    return [
        {
            "queueId": each.queue_id,
            "queueType": each.queue_type,
            "length": each.length,
            "maxSize": each.max_size,
            "pending": each.pending,
            "consumers": each.consumers,
            "oldestAgeSec": each.oldest_age_sec,
            "deadLetters": letters.get(each.queue_id, 0),
        }
        for each in found
    ]


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
    table = _table("entry", "age", "bytes", "deliveries", "held by", "what", figures=0)
    for each in entries:
        facts = (f"{name} {text}" for name, text in each["what"].items())
        table.add_row(
            each["entryId"],
            f"{each['ageSec']:.1f} s",
            f"{each['bytes']:,}",
            str(each["deliveries"]),
            each["holder"] or "–",
            escape("; ".join(facts)),
        )
    Console(highlight=False).print(table)


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


def _table(*columns: str, figures: int) -> Table:
    """A table whose last columns, so many of them, are figures."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, header_style="bold bright_black")
    for index, column in enumerate(columns):
        is_figure = index >= len(columns) - figures
        table.add_column(column, justify="right" if is_figure else "left", no_wrap=index == 0)
    return table
