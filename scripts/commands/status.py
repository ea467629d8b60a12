"""`lobbyctl status`: a running system's processes, queues and admission, at a glance or as JSON."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from scripts.commands.system import with_redis
from storage.queues import QueueServer, QueueStatistics
from storage.servers import Servers
from storage.tickets import Tickets

STATE_COLOURS = {
    "READY": "green",
    "STARTING": "yellow",
    "DRAINING": "yellow",
    "STOPPED": "bright_black",
    "ERROR": "red",
    "DOWN": "red",
}
NETWORK_COLOURS = {"GOOD": "green", "DEGRADED": "yellow", "BAD": "red"}
ALIVE = frozenset({"STARTING", "READY", "DRAINING"})
LATE_HEARTBEAT_S = 7.5
"""One and a half of the default time between two heartbeats."""

SERVER_FIGURES = ("clients", "cpu %", "mem %", "net", "beat", "pid")
QUEUE_FIGURES = ("length", "of", "pending", "readers", "oldest")
LEDGER_COLOURS = {
    "waiting": "yellow",
    "ready": "cyan",
    "consumed": "green",
    "cancelled": "magenta",
    "expired": "red",
}
FULL_SHARE = 0.8
OLD_S = 5.0


async def show(data_dir: Path, config_file: Path | None, *, as_json: bool) -> int:
    """Print how the system fares. Answers the exit code; raises ConfigError."""

    async def work(redis: Redis) -> None:
        found = await _gather(redis)
        if as_json:
            print(json.dumps(found, ensure_ascii=False))
        else:
            _print(found)

    return await with_redis(data_dir, config_file, work)


async def _gather(redis: Redis) -> dict[str, Any]:
    servers = await Servers(redis).all()
    queue_server = QueueServer(redis)
    queues = await queue_server.statistics(await queue_server.ids())
    # How long places are kept matters only to who gives them out.
    ledger = await Tickets(redis, ttl_s=0).ledger()
    return {
        "servers": [{"serverId": server_id, **fields} for server_id, fields in servers.items()],
        "queues": [queue_fields(queue) for queue in queues],
        "admission": ledger,
    }


def queue_fields(queue: QueueStatistics) -> dict[str, str | float]:
    """A queue as JSON has it."""
    return {
        "queueId": queue.queue_id,
        "queueType": queue.queue_type,
        "length": queue.length,
        "pending": queue.pending,
        "consumers": queue.consumers,
        "oldestAgeSec": queue.oldest_age_sec,
        "maxSize": queue.max_size,
    }


def _print(found: Mapping[str, Any]) -> None:
    console = Console(highlight=False)
    now_s = time.time()
    servers = table("process", "state", "listens on", figures=SERVER_FIGURES)
    for server in found["servers"]:
        servers.add_row(*_server_row(server, now_s))
    queues = table("queue", figures=QUEUE_FIGURES)
    for queue in found["queues"]:
        queues.add_row(*queue_row(queue))
    console.print(servers, "", queues, "", _admission(found["admission"]), sep="\n")
    for server in found["servers"]:
        if server.get("error"):
            console.print(f"{server['serverId']}: {server['error']}", style="red", markup=False)


def table(*columns: str, figures: Sequence[str]) -> Table:
    """A table with some columns of text, and after them some of figures."""
    made = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), header_style="bold bright_black")
    for column in (*columns, *figures):
        made.add_column(column, justify="right" if column in figures else "left", no_wrap=True)
    return made


def _server_row(server: Mapping[str, str], now_s: float) -> list[RenderableType]:
    state = server.get("statusCode", "?")
    is_socket = server.get("serverType") == "SOCKET" and "port" in server
    facts: list[RenderableType] = [
        Text(server["serverId"], "bold"),
        Text(state, STATE_COLOURS.get(state, "red")),
        f"{server['host']}:{server['port']}" if is_socket else "",
    ]
    if state not in ALIVE:
        return facts
    network = server.get("networkStatus", "?")
    return [
        *facts,
        server.get("connections", ""),
        server.get("cpuUsage", "?"),
        server.get("memoryUsage", "?"),
        Text(network, NETWORK_COLOURS.get(network, "red")),
        _heartbeat(now_s - int(server.get("lastHeartbeat", 0)) / 1000),
        server.get("pid", ""),
    ]


def _heartbeat(age_s: float) -> Text:
    return Text(f"{max(0.0, age_s):.1f} s", "red" if age_s > LATE_HEARTBEAT_S else "green")


def queue_row(queue: Mapping[str, Any]) -> list[RenderableType]:
    """A queue's cells, from what JSON has of it."""
    length, most, oldest_s = queue["length"], queue["maxSize"], queue["oldestAgeSec"]
    return [
        Text(queue["queueId"], "bold"),
        Text(f"{length:,}", "red" if length > FULL_SHARE * most else "yellow" if length else "bright_black"),
        Text(f"{most:,}", "bright_black"),
        f"{queue['pending']:,}",
        Text(str(queue["consumers"]), "" if queue["consumers"] else "red"),
        Text(f"{oldest_s:.1f} s" if length else "–", "red" if oldest_s > OLD_S else ""),
    ]


def _admission(ledger: Mapping[str, float]) -> Text:
    text = ledger_line(ledger)
    rate = ledger["totalRate"]
    let_in = f"{rate:,.0f} are admitted a minute; {latest_wait(ledger)}"
    text.append("\n" + (let_in if rate else "Nobody is admitted: `lobbyctl admission show` says why."))
    return text


def latest_wait(ledger: Mapping[str, float]) -> str:
    """How long players waited; the average forgets those of long ago."""
    return f"the latest waited {ledger['avgWaitSec']:.1f} s on average"


def ledger_line(ledger: Mapping[str, float]) -> Text:
    """The ledger as the sum that it is."""
    text = Text(f"{ledger['issued']:,.0f} tickets", "bold")
    for name, colour in LEDGER_COLOURS.items():
        count = ledger[name]
        text.append(" = " if name == "waiting" else " + ", "bright_black")
        text.append(f"{count:,.0f} {name}", f"bold {colour}" if count else "bright_black")
    return text
