"""One player of the rush, as cheap as it can be: no task, no future, and a timer only for a retry.

Built from protocol/ alone, since the generator shares the machine with what it measures.
"""

import asyncio
import time
from enum import IntEnum
from typing import Protocol, cast

import msgspec

from bench.rush_story import Stage, Story
from protocol.codec import encode
from protocol.errors import INVALID_TICKET
from protocol.frames import FrameReader, frame
from protocol.messages import REQUESTS, Message
from protocol.messages.auth import Finalize, Login, Resume
from protocol.messages.connection import PROTOCOL_VERSION, Hello, Ping
from protocol.messages.waiting import Stream

RECEIVE_LIMIT_BYTES = 1_048_576
KEY = "rush"
"""An idempotency key belongs to a user or a ticket: everybody may use the same."""

TRY_AGAIN = {429, 503}
NO_ANSWER = 504
RETRY_MS = 500
"""Pause before asking again where the server does not say."""

NAMES = {declared.data: declared.name for declared in REQUESTS.values()}


class Asked(IntEnum):
    """The ids of requests: a player has one of a kind in flight at most."""

    PING = 0
    HELLO = 1
    LOGIN = 2
    STREAM = 3
    FINALIZE = 4
    RESUME = 5


class _Data(msgspec.Struct, rename="camel", frozen=True):
    """What a player looks at, of all that is sent."""

    tid: str = ""
    client_id: str = ""
    status: str = ""
    position: int = 0
    estimated_wait_sec: int | None = None
    access_token: str = ""
    reason: str = ""
    code: str = ""


class _Error(msgspec.Struct, rename="camel", frozen=True):
    code: str = ""
    retry_after_ms: int = RETRY_MS


class _Said(msgspec.Struct):
    type: str
    id: int = 0
    status: int = 0
    data: _Data = _Data()
    error: _Error = _Error()


_decoder = msgspec.msgpack.Decoder(_Said)


def _frame(asked: Asked, message: Message, key: str | None = None) -> bytes:
    fields: dict[str, object] = {"type": NAMES[type(message)], "id": asked.value, "data": message}
    if key is not None:
        fields["key"] = key
    return frame(encode(fields))


HELLO = _frame(Asked.HELLO, Hello(protocol=PROTOCOL_VERSION, client="bench.rush"))
PING = _frame(Asked.PING, Ping())


class Surroundings(Protocol):
    """What a player needs of its crowd."""

    is_open: bool

    def moved(self, player: "Player", was: Stage) -> None:
        """The player's stage has changed."""

    def hung_up(self, player: "Player") -> None:
        """The player's connection is gone and the player is not lost."""


class Player(asyncio.Protocol):
    """A player who logs in by refresh token when told to, waits, and signs in at once when it is time."""

    __slots__ = (
        "_client_id", "_crowd", "_finalize_at", "_frames", "_login_at", "_news_at", "_position", "_token",
        "_transport", "number", "route", "sent_at", "stage", "story",
    )  # fmt: skip

    def __init__(self, crowd: Surroundings, token: str, number: int) -> None:
        self._crowd = crowd
        self._token = token
        self._transport: asyncio.Transport | None = None
        self._frames = FrameReader(RECEIVE_LIMIT_BYTES)
        self._client_id = ""
        self._login_at = self._finalize_at = self._news_at = self.sent_at = 0.0
        self._position = 0
        self.number = self.route = number
        self.stage = Stage.OUTSIDE
        self.story = Story()

    @property
    def ticket_at(self) -> float:
        """When the player got the ticket, in s since the epoch."""
        return self._login_at + self.story.login_s

    def log_in(self) -> None:
        """Ask for a place."""
        self._go(Stage.LOGGING_IN)
        self._login_at = time.time()
        self._ask(Asked.LOGIN)

    def ping(self) -> None:
        """Show that somebody is there."""
        self._write(PING)

    def fail(self, why: str) -> None:
        """This player will not come in."""
        if not self.story.failure:
            self.story.failure = why
        self._go(Stage.LOST)

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello."""
        self._transport = cast(asyncio.Transport, transport)
        self._frames = FrameReader(RECEIVE_LIMIT_BYTES)
        self._write(HELLO)

    def data_received(self, data: bytes) -> None:
        """Take what is said."""
        for body in self._frames.feed(data):
            said = _decoder.decode(body)
            match said.type:
                case "reply":
                    self._take_reply(said)
                case "QUEUE_UPDATE":
                    self._take_update(said.data)
                case "QUEUE_READY":
                    self.story.readies += 1
                    self._take_turn()
                case "QUEUE_EXPIRED" | "KICKED_OUT":
                    self.fail(f"{said.type} {said.data.reason}")
                case "GOODBYE":
                    self.story.failure = self.story.failure or f"GOODBYE {said.data.code}"

    def connection_lost(self, exc: Exception | None) -> None:
        """Come back, unless lost."""
        self._transport = None
        if self.stage is not Stage.LOST:
            self._crowd.hung_up(self)

    # The way in.

    def _take_reply(self, said: _Said) -> None:
        if said.id == Asked.PING:
            return
        asked = Asked(said.id)
        if said.status in TRY_AGAIN:
            self.story.retries += 1
            pause_s = said.error.retry_after_ms / 1000
            asyncio.get_running_loop().call_later(pause_s, self._ask_on, asked, self._transport)
        elif said.status == NO_ANSWER:
            self.story.retries += 1
            self._ask(asked)
        elif said.status >= 400:
            self._take_refusal(asked, said.error.code)
        else:
            self._go_on(asked, said.data)

    def _take_refusal(self, asked: Asked, code: str) -> None:
        """A turn that was lost with the connection comes again; one that came meanwhile needs no answer."""
        if asked is Asked.FINALIZE and code == INVALID_TICKET.code:
            self._go(Stage.WAITING)
            self._ask(Asked.STREAM)
        elif asked is not Asked.STREAM or self.stage is Stage.WAITING:
            self.fail(f"{asked.name} {code}")

    def _go_on(self, asked: Asked, data: _Data) -> None:
        """The request had success."""
        match asked:
            case Asked.HELLO:
                self._after_hello()
            case Asked.LOGIN:
                self._take_ticket(data)
            case Asked.STREAM if data.status == "READY":
                self._take_turn()
            case Asked.STREAM:
                self._take_place(data)
            case Asked.FINALIZE:
                self._take_tokens(data)

    def _after_hello(self) -> None:
        """The first one is for the crowd to go on from; after a return the player goes on where it was."""
        match self.stage:
            case Stage.OUTSIDE:
                self._go(Stage.CONNECTED)
            case Stage.LOGGING_IN:
                self._ask(Asked.LOGIN)
            case Stage.WAITING:
                self._ask(Asked.STREAM)
            case Stage.READY:
                self._ask(Asked.FINALIZE)
            case Stage.IN:
                self._ask(Asked.RESUME)

    def _take_ticket(self, data: _Data) -> None:
        now = time.time()
        self.story.tid, self._client_id = data.tid, data.client_id
        self.story.login_s = now - self._login_at
        self._news_at = now
        self._go(Stage.WAITING)
        self._take_place(data)
        self._ask(Asked.STREAM)

    def _take_update(self, data: _Data) -> None:
        """A place that is told unasked says why, when it is worse; an answer has no room for that."""
        self.story.updates += 1
        if data.position > self._position and not data.reason:
            self.story.worse_places += 1
        self._take_place(data)

    def _take_place(self, data: _Data) -> None:
        story, now = self.story, time.time()
        self._position = data.position
        story.largest_gap_s = max(story.largest_gap_s, now - self._news_at)
        self._news_at = now
        if data.estimated_wait_sec is not None and self._crowd.is_open and story.estimated_at < 0:
            story.estimate_s, story.estimated_at = data.estimated_wait_sec, now

    def _take_turn(self) -> None:
        """READY, by an event or as an answer; whichever comes second says nothing new."""
        if self.stage is not Stage.WAITING:
            return
        self.story.ready_at = self._finalize_at = time.time()
        self.story.largest_gap_s = max(self.story.largest_gap_s, self.story.ready_at - self._news_at)
        self._go(Stage.READY)
        self._ask(Asked.FINALIZE)

    def _take_tokens(self, data: _Data) -> None:
        self.story.pairs += 1
        self.story.finalize_s = time.time() - self._finalize_at
        self._token = data.access_token
        self._go(Stage.IN)

    # Sending.

    def _ask_on(self, asked: Asked, transport: asyncio.Transport | None) -> None:
        """Ask again, unless the connection is another by now: then its hello does so."""
        if transport is self._transport:
            self._ask(asked)

    def _ask(self, asked: Asked) -> None:
        match asked:
            case Asked.HELLO:
                self._write(HELLO)
            case Asked.LOGIN:
                self._write(_frame(asked, Login(refresh_token=self._token), KEY))
            case Asked.STREAM:
                self._write(_frame(asked, Stream(tid=self.story.tid, client_id=self._client_id)))
            case Asked.FINALIZE:
                self._write(_frame(asked, Finalize(tid=self.story.tid, client_id=self._client_id), KEY))
            case Asked.RESUME:
                self._write(_frame(asked, Resume(access_token=self._token)))

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self.sent_at = time.time()
            self._transport.write(data)

    def _go(self, stage: Stage) -> None:
        was, self.stage = self.stage, stage
        if was is not stage:
            self._crowd.moved(self, was)
