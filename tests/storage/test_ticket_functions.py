"""The Functions of the waiting room and of sessions refuse before they write, and are loaded when missing."""

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from storage import keys
from storage.admission import AdmissionSettings
from storage.holders import Entrance
from storage.raises import Raises
from storage.sessions import Reused, Sessions, SignedIn
from storage.tickets import LIBRARY, Asker, Place, Tickets
from storage.whereabouts import Whereabouts
from storage.wire import Command, Wire
from tests.storage.room import DEADLINE_S, MANY, REFRESH_TTL_S, RIGHTS, TTL_S, Room, open_room
from tests.storage.stay import token


class Caught(Exception):
    """A command that was about to be sent."""

    def __init__(self, command: Command) -> None:
        super().__init__(command)
        self.command = command


class Catcher:
    """Catches commands on their way to Redis."""

    async def execute_command(self, *args: Any) -> Any:
        """Raise what was to be sent."""
        raise Caught(args)


@dataclass
class Scene:
    """A room in the middle of its life: one is READY, two wait, one is gone, one is signed in."""

    room: Room
    ready: Place
    waiting: Place
    streamer: Asker
    signed_in: SignedIn


async def set_scene(room: Room) -> Scene:
    """Set the scene anew."""
    await room.redis.flushall()
    await room.settings.configure(6_000_000, 1)
    signed_in = await room.sign_in("eve", fresh=token("one", 1))
    no_show = await room.login("no-show")
    await room.admit_ids(deadline_s=0.001)
    await room.login("gone")
    await room.pass_time(TTL_S + 1)
    streamer = room.asker()
    ready = await room.login("ada", streamer)
    ready = await room.tickets.stream(ready.tid, ready.client_id, streamer)
    await room.redis.zrem(keys.PORTAL_WAITING, ready.tid)
    await room.redis.zadd(keys.PORTAL_READY, {ready.tid: await room.now_ms() + int(DEADLINE_S * 1000)})
    await room.redis.zadd(keys.PORTAL_UNTOLD, {ready.tid: 1})
    await room.redis.hset(keys.ticket(ready.tid), "status", "READY")
    (waiting, *_) = await room.crowd(2, streaming=True)
    assert no_show.tid in (await room.look()).ready
    return Scene(room, ready, waiting, streamer, signed_in)


Ask = Callable[[Scene, Tickets, Sessions], Awaitable[Any]]

CALLS: dict[str, Ask] = {
    "issue": lambda scene, tickets, _: tickets.issue(
        scene.room.place(), "new", scene.room.asker(), Entrance(), MANY, scene.room.record()
    ),
    "hand over": lambda scene, tickets, _: tickets.issue(
        scene.room.place(), "user-0", scene.room.asker(), Entrance(), MANY, scene.room.record()
    ),
    "stream": lambda scene, tickets, _: tickets.stream(
        scene.waiting.tid, scene.waiting.client_id, scene.room.asker()
    ),
    "cancel": lambda scene, tickets, _: tickets.cancel(
        scene.ready.tid, scene.ready.client_id, "ada", scene.room.record()
    ),
    "admit": lambda _, tickets, __: tickets.admit(MANY, DEADLINE_S),
    "told": lambda scene, tickets, _: tickets.told([scene.ready.tid]),
    "untold": lambda _, tickets, __: tickets.untold(0, MANY),
    "survey": lambda _, tickets, __: tickets.survey(0, MANY, 0, 0),
    "touch": lambda scene, tickets, _: tickets.touch([(scene.ready.tid, scene.streamer.address)]),
    "ledger": lambda _, tickets, __: tickets.ledger(),
    "stand": lambda _, tickets, __: AdmissionSettings(tickets._redis).standing("ada"),
    "finalize": lambda scene, _, sessions: sessions.finalize(
        (scene.ready.tid, scene.ready.client_id, "ada"), scene.room.asker(), RIGHTS,
        (None, token("two", 1)), scene.signed_in.issued_ms, scene.room.record(),
    ),
    "resume": lambda scene, _, sessions: sessions.resume("eve", "one", scene.room.asker()),
    "check": lambda scene, _, sessions: sessions.check("eve", token("one", 7), scene.room.record()),
    "rotate": lambda scene, _, sessions: sessions.rotate(
        "eve", token("one", 1), token("one", 2).hash, scene.signed_in.issued_ms, scene.room.record(), RIGHTS
    ),
    "raise": lambda scene, _, sessions: Raises(sessions._redis, TTL_S).grant("ada", scene.room.record()),
    "leave": lambda scene, _, sessions: Whereabouts(cast(Wire, sessions._redis)).left(
        [("eve", scene.streamer.address)]
    ),
    "where": lambda _, __, sessions: LIBRARY.call(
        sessions._redis, "session_where", [keys.session("eve")]
    ),
    "expel": lambda _, __, sessions: sessions.expel("eve"),
    "expel who waits": lambda _, __, sessions: sessions.expel("ada"),
    "revoke": lambda scene, _, sessions: sessions.revoke("eve", "one", scene.room.record()),
}  # fmt: skip


async def caught(scene: Scene, ask: Ask) -> Command:
    """The command that a call sends."""
    catcher = Catcher()
    with pytest.raises(Caught) as command:
        await ask(scene, Tickets(catcher, TTL_S), Sessions(catcher, REFRESH_TTL_S, TTL_S))
    return command.value.command


async def everything(room: Room) -> dict[bytes, bytes]:
    """All that a Redis holds, byte by byte."""
    names = await room.redis.execute_command("KEYS", "*")
    return {name: await room.redis.dump(name) or b"" for name in names}


async def break_key(room: Room, name: str) -> None:
    """Let a key hold what no Function expects of it: a stream, or of the one that is a stream a list."""
    await room.redis.delete(name)
    if name == keys.EVENT_BUS:
        await room.redis.execute_command("RPUSH", name, "of no use here")
    else:
        await room.redis.xadd(name, {"of": "no use here"})


@pytest.mark.parametrize("name", CALLS)
async def test_what_refuses_a_key_has_written_nothing(redis_url: str, name: str) -> None:
    async with open_room(redis_url) as room:
        scene = await set_scene(room)
        count = int((await caught(scene, CALLS[name]))[2])
        assert count > 0 or name == "leave"
        for index in range(count):
            command = await caught(await set_scene(room), CALLS[name])
            await break_key(room, str(command[3 + index]))
            before = await everything(room)
            with pytest.raises(ResponseError, match="WRONGTYPE"):
                await room.redis.execute_command(*command)
            assert await everything(room) == before


@pytest.mark.parametrize("name", ["admit", "survey", "untold", "touch", "hand over"])
async def test_what_refuses_a_ticket_on_its_way_has_written_nothing(redis_url: str, name: str) -> None:
    """The last of several, so that those before it were all right."""
    async with open_room(redis_url) as room:
        scene = await set_scene(room)
        asker = room.asker()
        last = await room.login("last", asker)
        await room.tickets.stream(last.tid, last.client_id, asker)
        await room.redis.zadd(keys.PORTAL_UNTOLD, {last.tid: 2, "tid_unknown": 1})
        ask = CALLS[name]
        if name == "touch":
            owned = [(scene.ready.tid, scene.streamer.address), (last.tid, asker.address)]
            ask = lambda _, tickets, __: tickets.touch(owned)  # noqa: E731
        broken = keys.ticket_client(scene.waiting.tid) if name == "hand over" else keys.ticket(last.tid)
        command = await caught(scene, ask)
        await break_key(room, broken)
        before = await everything(room)
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            await room.redis.execute_command(*command)
        assert await everything(room) == before


@pytest.mark.parametrize("name", CALLS)
async def test_a_lost_library_is_loaded_by_whoever_misses_it(redis_url: str, name: str) -> None:
    async with open_room(redis_url) as room:
        scene = await set_scene(room)
        await room.redis.function_flush()
        with contextlib.suppress(Reused):  # that is what "check" finds
            await CALLS[name](scene, room.tickets, room.sessions)
        assert len(await room.redis.function_list(library="lobbyd_tickets_*")) == 1


class Forgetful:
    """A Redis that loses its libraries again, twice, as soon as it has them back."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._losses = 2

    async def execute_command(self, *args: Any) -> Any:
        answer = await self._redis.execute_command(*args)
        if args[:2] == ("FUNCTION", "LOAD") and self._losses:
            self._losses -= 1
            await self._redis.execute_command("FUNCTION", "FLUSH")
        return answer


async def test_a_library_that_is_lost_again_is_loaded_again(redis_url: str) -> None:
    async with open_room(redis_url) as room:
        await room.redis.function_flush()
        admission = await Tickets(Forgetful(room.redis), TTL_S).admit(MANY, DEADLINE_S)
        assert admission.admitted == []


async def test_every_function_is_tried_here(redis_url: str) -> None:
    async with open_room(redis_url) as room:
        await LIBRARY.load(room.redis)
        library = await room.redis.execute_command("FUNCTION", "LIST", "LIBRARYNAME", "lobbyd_tickets_*")
        registered = {
            dict(zip(function[::2], function[1::2], strict=True))[b"name"].decode()
            for function in library[0][5]
        }
        tried = {(await caught(await set_scene(room), ask))[1] for ask in CALLS.values()}
        assert registered == tried
