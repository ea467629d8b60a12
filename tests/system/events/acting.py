"""Players who come in, workers who die, and what is on the bus."""

import contextlib
import sqlite3
import uuid
from typing import Any, cast

import redis

from protocol.announcement import Announcement
from protocol.messages.auth import Login
from protocol.messages.matching import (
    Difficulty,
    Preferences,
    Search,
)
from storage import keys
from storage.events import read_announcement
from tests.system.cluster import Cluster
from tests.system.guest import PASSWORD, Guest, Pass

LEASE_S = 0.5

DYING = """
import os, pkgutil, runpy, signal
owner, _, name = "{step}".rpartition(".")
owner = pkgutil.resolve_name(owner)
kept = getattr(owner, name)
def die(self, *args, **named):
    if {when}:
        os.kill(os.getpid(), signal.SIGKILL)
    return kept(self, *args, **named)
setattr(owner, name, die)
runpy.run_module("workers", run_name="__main__", alter_sys=True)
"""
"""A worker that dies by SIGKILL where it is about to call `step`."""

HANDLED = ("storage.queues.outbox.Outbox.acknowledge", "args[0].queue_id == 'event_bus'")
"""Between handling an announcement and acknowledging it."""

SIGNED_IN = ("workers.login.tokens.Tokens.access", "True")
"""Between spending a ticket and answering it."""


def search(region: str, **more: Any) -> Search:
    return Search(difficulty=Difficulty.EASY, level=5, preferences=Preferences(region=region, **more))


async def ready(name: str, guest: Guest, wanted: Search | None) -> Pass:
    """A READY ticket of a login that asked for opponents."""
    ticket = Pass.of(await guest.ask(Login(username=name, password=PASSWORD, auto_match=wanted)))
    await guest.wait(ticket)
    return ticket


async def come_in(name: str, guest: Guest, wanted: Search | None) -> None:
    await guest.finalize(await ready(name, guest, wanted))


async def game_server(stage: Cluster, arrive: Any) -> Guest:
    """A connection of a game's server."""
    name, guest = await arrive(0)
    rows(stage, "UPDATE users SET role = 'GAME_SERVER' WHERE user_id = ?", name)
    stage.redis.delete(keys.user(name))
    await come_in(name, guest, None)
    return cast(Guest, guest)


def is_heard(stage: Cluster) -> bool:
    """Whether every announcement has been dealt with by everybody."""
    return not stage.redis.xlen(keys.EVENT_BUS)


def standing(stage: Cluster, name: str) -> dict[str, str]:
    return cast("dict[str, str]", stage.redis.hgetall(keys.game_match(name)))


def dying(stage: Cluster, kind: str, step: tuple[str, str], number: int = 9) -> Any:
    """Start a worker that is killed at a step."""
    program = stage.folder / f"dying-{uuid.uuid4().hex[:8]}.py"
    program.write_text(DYING.format(step=step[0], when=step[1]))
    return stage.start_worker(kind, number, program=str(program))


def listen(stage: Cluster) -> str:
    """Where the bus is now: what comes later can be read by `announced`, also once it is dealt with."""
    group = f"test-{uuid.uuid4().hex[:8]}"
    stage.redis.xgroup_create(keys.EVENT_BUS, group, id="$", mkstream=True)
    return group


def announced(stage: Cluster, group: str) -> list[Announcement]:
    """What has been announced since a test listens, which it does no longer then."""
    with redis.Redis.from_url(str(stage.settings["redis.url"])) as raw:
        entries = cast(Any, raw.xreadgroup(group, "test", {keys.EVENT_BUS: ">"}))
        raw.xgroup_destroy(keys.EVENT_BUS, group)
        found = [entry for _, some in entries for entry in some]
        if found:
            raw.xdel(keys.EVENT_BUS, *(entry_id for entry_id, _ in found))
    return [read_announcement(fields[b"m"]) for _, fields in found]


def rows(stage: Cluster, query: str, *values: str) -> list[Any]:
    path = str(stage.settings["database.url"]).removeprefix("sqlite+aiosqlite:///")
    with contextlib.closing(sqlite3.connect(path, timeout=10)) as database, database:
        return database.execute(query, values).fetchall()
