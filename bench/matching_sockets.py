"""Matching through real sockets: a node, matching workers, and players who are signed in and ask."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, cast

import msgspec
from msgspec import Raw

from bench import harness
from bench.harness import CannotMeasure, quantile
from bench.matching_crowd import crowd, pairs
from bench.rush_accounts import make_accounts
from bench.system import HOST, System, running_system
from protocol.codec import encode
from protocol.frames import FrameReader, frame
from protocol.messages import Message
from protocol.messages.auth import Resume
from protocol.messages.connection import PROTOCOL_VERSION, Hello
from protocol.messages.matching import Difficulty, FindMatch, Preferences
from runtime.secrets import Secrets
from runtime.settings import AuthSettings
from storage.connections import connect_wire
from storage.matches import Matches, Wish
from storage.sessions import Rights
from workers.login.tokens import Tokens

BURST = 5_000
IDLE_ROUNDS = 200
SIGN_IN_AT_ONCE = 500
RECEIVE_LIMIT_BYTES = 1_048_576
GIVE_UP_S = 30.0
SETTLE_S = 1.0


class _Message(msgspec.Struct):
    """What a seat looks at in a message."""

    type: str
    id: int = 0
    status: int = 0
    data: Raw = Raw(b"\x80")


class _Match(msgspec.Struct, rename="camel"):
    game_session_id: str | None = None


_messages = msgspec.msgpack.Decoder(_Message)
_matches = msgspec.msgpack.Decoder(_Match)


class Seat(asyncio.Protocol):
    """One player's connection. `session_id` is the match that was told last, `took_s` how long that took."""

    def __init__(self, user_id: str, token: str) -> None:
        self.user_id = user_id
        self._token = token
        self._frames = FrameReader(RECEIVE_LIMIT_BYTES)
        self._id = 0
        self._asked_s = 0.0
        self.session_id: str | None = None
        self.told_s = self.took_s = 0.0
        self.answered = asyncio.Event()
        self.told = asyncio.Event()
        self.refusal: int | None = None

    async def sit_down(self, port: int) -> None:
        """Connect and sign in. Raises CannotMeasure."""
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self, HOST, port)
        for name, message in (
            ("hello", Hello(protocol=PROTOCOL_VERSION, client="bench")),
            ("auth.resume", Resume(access_token=self._token)),
        ):
            self._send(name, message)
            await self.answered.wait()
        if self.refusal is not None:
            raise CannotMeasure(f"{self.user_id} could not sign in: {self.refusal}.")

    def ask(self, wish: Wish) -> None:
        """Look for opponents."""
        self.told.clear()
        self.session_id = None
        request = FindMatch(
            difficulty=Difficulty(wish.difficulty),
            level=wish.level,
            preferences=Preferences(region=wish.region),
        )
        self._asked_s = time.perf_counter()
        self._send("game.match", request)

    def _send(self, name: str, message: Message) -> None:
        self._id += 1
        self.answered.clear()
        self._transport.write(frame(encode({"type": name, "id": self._id, "data": message})))

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Note answers and matches."""
        for body in self._frames.feed(data):
            message = _messages.decode(body)
            if message.type == "reply":
                self.refusal = message.status if message.status >= 400 else None
                self.answered.set()
            if message.type == "MATCH_FOUND" or message.status == 200:
                session_id = _matches.decode(message.data).game_session_id
                if session_id is not None:
                    self.session_id = session_id
                    self.told_s = time.perf_counter()
                    self.took_s = self.told_s - self._asked_s
                    self.told.set()


async def through_sockets(workers: int, rate: int, seconds: float) -> dict[str, float]:
    """Idle pairs, a burst, and a steady stream. Raises CannotMeasure."""
    count = max(BURST, int(rate * seconds))
    harness.allow_files(2 * count + harness.SPARE_FILES)
    async with running_system({}, workers={"matching": workers}) as system:
        seats = await _sit_down(system, count)
        wire = connect_wire(system.redis_url)
        matches = Matches(wire, session_ttl_s=3600)
        try:
            figures = await _idle(seats[0], seats[1], matches)
            await asyncio.sleep(SETTLE_S)
            figures |= await _burst(seats[:BURST])
            await _free(seats, matches)
            await asyncio.sleep(SETTLE_S)
            return figures | await _steady(seats, rate, int(rate * seconds))
        finally:
            await wire.aclose()


async def _sit_down(system: System, count: int) -> list[Seat]:
    tokens = Tokens(Secrets(system.secret.encode()), AuthSettings().access_token_ttl_s)
    seats = []
    for refresh in await make_accounts(system, count):
        user_id, token = tokens.read_refresh(refresh)
        access = tokens.access(user_id, token, Rights("NORMAL", ""), int(time.time() * 1000))
        seats.append(Seat(user_id, access))
    for first in range(0, count, SIGN_IN_AT_ONCE):
        some = seats[first : first + SIGN_IN_AT_ONCE]
        await asyncio.gather(*(seat.sit_down(system.ports[0]) for seat in some))
    return seats


async def _idle(one: Seat, other: Seat, matches: Matches) -> dict[str, float]:
    """A pair at a time, nothing else: from the second's request to the first's MATCH_FOUND."""
    wish = pairs(2)[0]
    took_s = []
    for _ in range(IDLE_ROUNDS):
        one.ask(wish)
        await one.answered.wait()
        began_s = time.perf_counter()
        other.ask(wish)
        await asyncio.gather(one.told.wait(), other.told.wait())
        took_s.append(one.told_s - began_s)
        await matches.finish(one.session_id or "", [one.user_id, other.user_id])
    return {
        "sockets_idle_p50_ms": 1000 * quantile(took_s, 0.5),
        "sockets_idle_p99_ms": 1000 * quantile(took_s, 0.99),
    }


async def _burst(seats: Sequence[Seat]) -> dict[str, float]:
    began_s = time.perf_counter()
    for seat, wish in zip(seats, crowd(len(seats)), strict=True):
        seat.ask(wish)
    await _all_told(seats)
    return _figures("sockets_burst", seats, max(seat.told_s for seat in seats) - began_s)


async def _steady(seats: Sequence[Seat], rate: int, count: int) -> dict[str, float]:
    began_s = time.perf_counter()
    for number, wish in enumerate(pairs(count)):
        if (pause_s := began_s + number / rate - time.perf_counter()) > 0:
            await asyncio.sleep(pause_s)
        seats[number].ask(wish)
    await _all_told(seats[:count])
    return _figures("sockets_steady", seats[:count], time.perf_counter() - began_s)


async def _all_told(seats: Sequence[Seat]) -> None:
    waiting = [asyncio.ensure_future(seat.told.wait()) for seat in seats]
    _, left = await asyncio.wait(waiting, timeout=GIVE_UP_S)
    for each in left:
        each.cancel()


async def _free(seats: Sequence[Seat], matches: Matches) -> None:
    """End all sessions, as their games' servers would."""
    players: dict[str, list[str]] = {}
    for seat in seats:
        if seat.session_id is not None:
            players.setdefault(seat.session_id, []).append(seat.user_id)
    await asyncio.gather(*(matches.finish(session_id, names) for session_id, names in players.items()))


def _figures(name: str, seats: Sequence[Seat], all_s: float) -> dict[str, Any]:
    waits = [seat.took_s for seat in seats if seat.told.is_set()] or [GIVE_UP_S]
    return {
        f"{name}_matched_ratio": sum(seat.told.is_set() for seat in seats) / len(seats),
        f"{name}_all_s": all_s,
        f"{name}_p50_ms": 1000 * quantile(waits, 0.5),
        f"{name}_p99_ms": 1000 * quantile(waits, 0.99),
    }
