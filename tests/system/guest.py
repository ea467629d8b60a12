"""Players as the tests see them: one connection each, which remembers what it has heard."""

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from ssl import SSLContext
from typing import Self, TypeVar, cast

import pytest

from client import Connection, ConnectionLost, Endpoint, RequestFailed
from protocol.messages import Message
from protocol.messages.auth import Finalize, Finalized, LoggedIn, Login, Register, Resume, Resumed
from protocol.messages.connection import Ping
from protocol.messages.waiting import Place, QueueReady, Stream, TicketStatus

HEARING_S = 60.0
"""How long a test waits for something that must come."""

PASSWORD = "correct horse battery"

M = TypeVar("M", bound=Message)


@dataclass(frozen=True)
class Pass:
    """A ticket as its player holds it."""

    tid: str
    client_id: str

    @classmethod
    def of(cls, answer: Message) -> "Pass":
        """The pass in the answer to a login."""
        logged_in = cast(LoggedIn, answer)
        return cls(logged_in.tid, logged_in.client_id)

    @property
    def stream(self) -> Stream:
        """The request for this ticket's events."""
        return Stream(tid=self.tid, client_id=self.client_id)

    @property
    def finalize(self) -> Finalize:
        """The request that spends it."""
        return Finalize(tid=self.tid, client_id=self.client_id)


class Guest:
    """One connection to a node. `left` is whether it was dropped by its own side."""

    connection: Connection

    def __init__(self) -> None:
        self.heard: list[Message] = []
        self.left = False
        self._more = asyncio.Event()

    @classmethod
    async def at(
        cls, endpoint: Endpoint, *, local_address: str | None = None, ssl: SSLContext | None = None
    ) -> Self:
        """Connect and say hello. Raises as `Connection.open`."""
        guest = cls()
        guest.connection = await Connection.open(
            *endpoint, on_event=guest._hear, local_address=local_address, ssl=ssl
        )
        return guest

    async def ask(self, message: Message, key: str | None = None) -> Message:
        """The answer to a request. Raises RequestFailed."""
        return await self.connection.request(message, key=key)

    async def ask_until_served(self, message: Message, key: str | None = None) -> Message:
        """The answer to a request, which is asked again where a busy machine has none in time.

        Raises RequestFailed for any other refusal.
        """
        key = key or uuid.uuid4().hex  # what was done all the same is not done twice
        async with asyncio.timeout(HEARING_S):
            while True:
                try:
                    return await self.ask(message, key)
                except RequestFailed as refused:
                    if refused.code not in {"BUSY", "TIMEOUT"}:
                        raise
                    await asyncio.sleep((refused.retry_after_ms or 0) / 1000)

    async def refusal(self, message: Message, key: str | None = None) -> RequestFailed:
        """See that a request is refused. Answers the refusal."""
        with pytest.raises(RequestFailed) as refusal:
            await self.ask(message, key)
        return refusal.value

    async def refused(self, message: Message, code: str, key: str | None = None) -> RequestFailed:
        """See that a request is refused with this code. Answers the refusal."""
        refusal = await self.refusal(message, key)
        assert refusal.code == code, refusal
        return refusal

    async def hear(self, kind: type[M], count: int = 1) -> M:
        """Wait until `count` events of a kind have come. Answers the last of them."""
        await self._until(lambda: len(self.all(kind)) >= count)
        return self.all(kind)[count - 1]

    async def hear_of(self, kind: type[M], fits: Callable[[M], bool]) -> M:
        """Wait for an event of a kind that fits. Answers the first that does."""
        await self._until(lambda: any(map(fits, self.all(kind))))
        return next(filter(fits, self.all(kind)))

    def all(self, kind: type[M]) -> list[M]:
        """The events of a kind that have come."""
        return [event for event in self.heard if isinstance(event, kind)]

    async def gone(self) -> ConnectionLost:
        """Wait for the connection's end, which the node brings about."""
        async with asyncio.timeout(HEARING_S):
            return await self.connection.closed

    async def is_served(self) -> None:
        """See that the node has dealt with all that was sent before on this connection."""
        await self.ask(Ping())

    def leave(self) -> None:
        """Drop the connection."""
        self.left = True
        self.connection.abort()

    # A player's steps.

    async def register(self, name: str, key: str | None = None) -> None:
        """Make an account with the password of all."""
        await self.ask_until_served(registration(name), key)

    async def log_in(self, name: str, key: str | None = None) -> Pass:
        """A place in the waiting room."""
        return Pass.of(await self.ask_until_served(Login(username=name, password=PASSWORD), key))

    async def stream(self, ticket: Pass) -> Place:
        """Have the ticket's events come to this connection."""
        return cast(Place, await self.ask(ticket.stream))

    async def wait(self, ticket: Pass) -> None:
        """Stream the ticket until it is READY."""
        place = await self.stream(ticket)
        if place.status is not TicketStatus.READY:
            await self.hear_of(QueueReady, lambda ready: ready.tid == ticket.tid)

    async def finalize(self, ticket: Pass, key: str | None = None) -> Finalized:
        """Spend the ticket."""
        return cast(Finalized, await self.ask_until_served(ticket.finalize, key))

    async def resume(self, access_token: str) -> Resumed:
        """Sign this connection in."""
        return cast(Resumed, await self.ask(Resume(access_token=access_token)))

    async def sign_in(self, name: str) -> Finalized:
        """Log in, wait and finalize, with an account that there is."""
        ticket = await self.log_in(name)
        await self.wait(ticket)
        return await self.finalize(ticket)

    async def sign_up(self, name: str) -> Finalized:
        """Make an account and sign in."""
        await self.register(name)
        return await self.sign_in(name)

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(HEARING_S):
            while not condition():
                self._more.clear()
                await self._more.wait()

    def _hear(self, _: str, event: Message) -> None:
        self.heard.append(event)
        self._more.set()


def registration(name: str, password: str = PASSWORD, email: str | None = None) -> Register:
    """The request for an account."""
    return Register(username=name, password=password, email=email or f"{name}@example.com", nickname=name)
