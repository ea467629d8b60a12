"""Players over real sockets who submit scores and read boards: signed in, some requests of each under way."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable
from typing import cast

import msgspec

from bench.callers import RECEIVE_LIMIT_BYTES, SETTLE_S
from bench.harness import CannotMeasure
from bench.rush_accounts import make_accounts
from bench.system import HOST, System
from protocol.codec import encode
from protocol.frames import FrameReader, frame
from protocol.messages import REQUESTS, Message
from protocol.messages.auth import Resume
from protocol.messages.connection import PROTOCOL_VERSION, Hello
from protocol.messages.ranking import BoardType, SubmitScore
from runtime.secrets import Secrets
from runtime.settings import AuthSettings
from storage.servers import now_ms
from storage.sessions import NextToken, Rights
from workers.login.tokens import Tokens

NAMES = {declared.data: declared.name for declared in REQUESTS.values()}


class _Heard(msgspec.Struct):
    """What is looked at in a frame."""

    type: str
    id: int = 0
    status: int = 0
    data: msgspec.Raw = msgspec.Raw(b"\x80")


class _Task(msgspec.Struct, rename="camel"):
    task_id: str = ""


class _Place(msgspec.Struct):
    score: int


class _Update(msgspec.Struct, rename="camel"):
    type: str
    task_id: str = ""
    rankings: list[_Place] = []


_frames = msgspec.msgpack.Decoder(_Heard)
_tasks = msgspec.msgpack.Decoder(_Task)
_updates = msgspec.msgpack.Decoder(_Update)


Tops = list[tuple[int, float]]
"""Scores, and when they were heard of."""


class Meter:
    """How long answers took, and how long after it was submitted (`heard_s`) and answered (`lag_s`) a score's
    player heard that it is on the boards, in seconds.

    `asked` are scores and when they were submitted, `tops` the best scores that subscribers heard of, by
    subscriber and board.
    """

    def __init__(self) -> None:
        self.took_s: list[float] = []
        self.lag_s: list[float] = []
        self.heard_s: list[float] = []
        self.asked: list[tuple[int, float]] = []
        self.tops: dict[tuple[int, str], Tops] = defaultdict(list)
        self.refused = 0

    def clear(self) -> None:
        """Begin anew."""
        self.__init__()  # type: ignore[misc]


class Player(asyncio.Protocol):
    """A signed-in connection. `make` makes its next request."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._frames = FrameReader(RECEIVE_LIMIT_BYTES)
        self._asked_s: dict[int, float] = {}
        self._answered_s: dict[str, tuple[float, float]] = {}
        self._early_s: dict[str, float] = {}
        self._id = 0
        self._make: Callable[[], Message] | None = None
        self._idle = asyncio.Event()

    @classmethod
    async def open(cls, meter: Meter, port: int, access_token: str) -> "Player":
        """Connect and sign in. Raises CannotMeasure when that is refused."""
        loop = asyncio.get_running_loop()
        _, player = await loop.create_connection(lambda: cls(meter), HOST, port)
        for message in (Hello(protocol=PROTOCOL_VERSION, client="bench"), Resume(access_token=access_token)):
            player.ask(message)
            await player.idle()
        if meter.refused:
            raise CannotMeasure("A player could not sign in.")
        return player

    async def idle(self) -> None:
        """Wait until everything has been answered."""
        await self._idle.wait()

    @property
    def asked(self) -> int:
        """How many requests it has sent."""
        return self._id

    def begin(self, make: Callable[[], Message], under_way: int) -> None:
        """Keep so many requests under way."""
        self._make = make
        for _ in range(under_way):
            self.ask(make())

    def stop(self) -> None:
        """Ask nothing more."""
        self._make = None

    def ask(self, message: Message) -> None:
        """Send one request."""
        self._id += 1
        self._idle.clear()
        self._asked_s[self._id] = now_s = time.perf_counter()
        if isinstance(message, SubmitScore):
            self._meter.asked.append((message.score, now_s))
        self._transport.write(frame(encode({"type": NAMES[type(message)], "id": self._id, "data": message})))

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Take answers and events."""
        for body in self._frames.feed(data):
            heard = _frames.decode(body)
            if heard.type == "reply":
                self._answer(heard)
            elif heard.type == "RANKING_UPDATE":
                self._update(_updates.decode(heard.data))

    def _answer(self, heard: _Heard) -> None:
        now_s, asked_s = time.perf_counter(), self._asked_s.pop(heard.id)
        self._meter.took_s.append(now_s - asked_s)
        if heard.status == 202:
            task_id = _tasks.decode(heard.data).task_id
            self._answered_s[task_id] = asked_s, now_s
            if task_id in self._early_s:
                self._visible(task_id, self._early_s.pop(task_id))
        elif heard.status != 200:
            self._meter.refused += 1
        if self._make is not None:
            self.ask(self._make())
        elif not self._asked_s:
            self._idle.set()

    def _update(self, update: _Update) -> None:
        now_s = time.perf_counter()
        if update.rankings:
            self._meter.tops[id(self), update.type].append((update.rankings[0].score, now_s))
        elif update.type == BoardType.TOTAL.value:
            self._visible(update.task_id, now_s)

    def _visible(self, task_id: str, heard_s: float) -> None:
        if task_id not in self._answered_s:
            self._early_s[task_id] = heard_s
            return
        asked_s, answered_s = self._answered_s.pop(task_id)
        self._meter.lag_s.append(max(0.0, heard_s - answered_s))
        self._meter.heard_s.append(heard_s - asked_s)


async def sign_in(system: System, count: int, meter: Meter) -> list[Player]:
    """So many players, spread over the nodes."""
    tokens = Tokens(Secrets(system.secret.encode()), AuthSettings().access_token_ttl_s)
    players = []
    for number, refresh in enumerate(await make_accounts(system, count)):
        user_id, token = tokens.read_refresh(refresh)
        family = NextToken(token.family, token.number, "")
        access = tokens.access(user_id, family, Rights(role="NORMAL", permissions=""), now_ms())
        port = system.ports[number % len(system.ports)]
        players.append(await Player.open(meter, port, access))
    return players


async def closed_loop(
    players: list[Player], make: Callable[[], Message], seconds: float, under_way: int = 1
) -> float:
    """Everybody asks again as soon as answered; answers a second. The meter has the rest."""
    meter = players[0]._meter
    for player in players:
        player.begin(make, under_way)
    await asyncio.sleep(SETTLE_S)
    meter.clear()
    start_s = time.perf_counter()
    await asyncio.sleep(seconds)
    per_s = len(meter.took_s) / (time.perf_counter() - start_s)
    for player in players:
        player.stop()
    await settled(players)
    return per_s


async def paced(players: list[Player], make: Callable[[], Message], per_s: float, seconds: float) -> None:
    """Ask at a steady pace, whoever has been answered or not. The meter has the rest."""
    meter = players[0]._meter
    meter.clear()
    start_s = time.perf_counter()
    asked = 0
    while (gone_s := time.perf_counter() - start_s) < seconds:
        while asked < gone_s * per_s:
            players[asked % len(players)].ask(make())
            asked += 1
        await asyncio.sleep(0.002)
    await settled(players)


async def settled(players: list[Player]) -> None:
    """Wait until everything is answered, and a moment for what is under way behind the answers."""
    for player in players:
        await player.idle()
    await asyncio.sleep(1.0)
