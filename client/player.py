"""A user's whole stay: register, log in, wait, sign in, and stay signed in, over any of several nodes."""

import asyncio
import time
import uuid
from collections.abc import Callable, Sequence
from ssl import SSLContext
from typing import Any, BinaryIO, Self, cast

from client.connection import DECLARED, Connection
from client.errors import ClientError, RequestFailed, TakenOver, TicketLost
from client.events import DEFAULT_LIMIT, EventStream
from client.link import Endpoint, Link, Route
from client.uploading import send_file
from protocol.errors import INVALID_TICKET, INVALID_TOKEN, SESSION_TAKEN_OVER, TICKET_NOT_FOUND, GoodbyeCode
from protocol.messages import Access, Message
from protocol.messages.auth import (
    Finalize,
    Finalized,
    LoggedIn,
    Login,
    Logout,
    Refresh,
    Register,
    Registered,
    Resume,
    TokenPair,
)
from protocol.messages.connection import Keepalive
from protocol.messages.matching import Search
from protocol.messages.waiting import Place, QueueExpired, QueueReady, QueueUpdate, Stream, TicketStatus

PATIENCE_S = 60.0

NEWS_S = 30.0
"""Who waits is told the place every 15 s at least: after twice that in silence the place is asked for."""

EXPIRY_MARGIN_S = 5.0
"""An access token this near to its end is exchanged rather than presented."""

UpdateCallback = Callable[[QueueUpdate], None]


def new_key(message: Message) -> str | None:
    """An idempotency key for a request that may change something; None for one that takes none.

    Before sign-in a request takes a key when its declaration names a scope for it.
    """
    declared = DECLARED[type(message)]
    takes_one = declared.scope is not None or declared.access is Access.SIGNED_IN
    return uuid.uuid4().hex if takes_one else None


class Player:
    """One user over any of `endpoints`, from registering to logging out.

    Every request is asked again, with the same idempotency key and after a pause, while the server
    is busy, gives no answer or loses the connection: for at most `patience_s` seconds. A connection
    that is lost after signing in is replaced at once, and the stay resumed.

    `on_event` gets each event's name and Struct; after a resume it gets "auth.resume" and the
    `Resumed` state, as events may have been missed. `ticket` is set from logging in to signing in,
    `tokens` and `user_id` from then on.

    Any request raises RequestFailed when it is refused; `TakenOver` once somebody else has come in
    as this user, or what else ended the stay; and, when patience ends, what went wrong last.
    """

    __slots__ = (
        "_access_until_s",
        "_link",
        "_on_update",
        "_patience_s",
        "_place_is_known",
        "_refresh_key",
        "_stream",
        "_turn",
        "on_event",
        "ticket",
        "tokens",
        "user_id",
    )

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        *,
        name: str = "lobbyd-client",
        local_address: str | None = None,
        ssl: SSLContext | None = None,
        patience_s: float = PATIENCE_S,
        on_event: Callable[[str, Message], None] | None = None,
    ) -> None:
        if not endpoints:
            raise ValueError("A player needs at least one endpoint (host, port).")
        route = Route(endpoints, name, local_address, ssl)
        self._link = Link(route, restore=self._restore, on_event=self._take_event, on_end=self._take_end)
        self._patience_s = patience_s
        self._on_update: UpdateCallback | None = None
        self._place_is_known = False
        self._turn: asyncio.Future[bool | TicketLost] | None = None
        self._stream: EventStream | None = None
        self._access_until_s = 0.0
        self._refresh_key: str | None = None
        self.on_event = on_event
        self.ticket: LoggedIn | None = None
        self.tokens: TokenPair | None = None
        self.user_id: str | None = None

    @property
    def connection(self) -> Connection | None:
        """The connection of the moment, None before the first request."""
        return self._link.connection

    async def request(self, message: Message) -> Message:
        """Ask for anything; the answer is of the type that the request's declaration names."""
        return await self._link.request(message, new_key(message), self._patience_s)

    async def send_file(self, task_id: str, file: BinaryIO, offset: int = 0) -> None:
        """Send the bytes that an accepted `file_upload` waits for, from `offset` (`uploadOffset`) on.

        Several chunks are under way at a time. Raises what reading the file raises.
        """
        await send_file(self.request, task_id, file, offset)

    def events(self, limit: int = DEFAULT_LIMIT) -> EventStream:
        """Return an async iterator over the events from now on, across reconnects.

        It ends with `close` and `logout`, and raises what else ended the stay. At most `limit` wait
        for the reader, then the oldest are lost. A newer call takes the events over.
        """
        if self._stream is not None:
            self._stream.end()
        self._stream = EventStream(limit)
        if self._link.ended is not None:
            self._stream.end(self._link.ended)
        return self._stream

    # Coming in.

    async def register(self, username: str, password: str, email: str, nickname: str) -> Registered:
        """Make an account. Raises ValueError for a password of a length that is not taken."""
        message = Register(username=username, password=password, email=email, nickname=nickname)
        return cast(Registered, await self.request(message))

    async def login(
        self,
        username: str,
        password: str,
        fingerprint: str | None = None,
        auto_match: Search | None = None,
    ) -> LoggedIn:
        """Get a place in the waiting room; begins a new stay, whatever came of the last one.

        `auto_match` are the opponents to look for once the player has come in.
        """
        message = Login(
            username=username, password=password, client_fingerprint=fingerprint, auto_match=auto_match
        )
        return await self._log_in(message)

    async def login_with(
        self, refresh_token: str, fingerprint: str | None = None, auto_match: Search | None = None
    ) -> LoggedIn:
        """As `login`, with the refresh token of an earlier stay."""
        message = Login(refresh_token=refresh_token, client_fingerprint=fingerprint, auto_match=auto_match)
        return await self._log_in(message)

    async def wait_until_ready(self, on_update: UpdateCallback | None = None) -> None:
        """Wait for this player's turn, however long it takes and whatever happens to the nodes.

        `on_update` is told the place at first and at each change. Raises TicketLost when the place
        is gone, TakenOver when a newer login holds it.
        """
        self._on_update = on_update
        try:
            while not await self._wait_on_one_connection():
                pass
        finally:
            self._on_update = self._turn = None

    async def finalize(self) -> Finalized:
        """Spend the READY ticket: sign in. Raises TicketLost when its time is over."""
        ticket = self._held_ticket()
        message = Finalize(tid=ticket.tid, client_id=ticket.client_id)
        finalized = cast(Finalized, await self._ask_with_ticket(message, self._patience_s))
        self._take_tokens(finalized)
        self.ticket, self.user_id = None, finalized.user_id
        self._link.hold()
        return finalized

    async def sign_in(
        self,
        username: str,
        password: str,
        on_update: UpdateCallback | None = None,
        auto_match: Search | None = None,
    ) -> Finalized:
        """Log in, wait for the turn, and sign in; wait again if the turn was lost with the connection."""
        ticket = await self.login(username, password, auto_match=auto_match)
        is_ready = ticket.status is TicketStatus.READY
        while True:
            if not is_ready:
                await self.wait_until_ready(on_update)
            try:
                return await self.finalize()
            except RequestFailed as refused:
                if refused.code != INVALID_TICKET.code:
                    raise
                is_ready = False

    # Going out.

    async def logout(self) -> None:
        """End the stay: its tokens are worth nothing afterwards."""
        if self.tokens is not None:
            await self.request(Logout(refresh_token=self.tokens.refresh_token))
        self.tokens = None
        self.close()

    def close(self) -> None:
        """Leave without logging out: the tokens, or the place in the waiting room, stay good for a while."""
        if self._stream is not None:
            self._stream.end()
        self._link.close(ClientError("This player has left: log in again."))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()

    # The rest.

    async def _log_in(self, message: Login) -> LoggedIn:
        if self.tokens is not None or self._link.ended is not None:
            self._link.start_over()
        self.ticket = self.tokens = self.user_id = self._refresh_key = None
        self.ticket = cast(LoggedIn, await self.request(message))
        return self.ticket

    def _held_ticket(self) -> LoggedIn:
        if self.ticket is None:
            raise TicketLost("NONE")
        return self.ticket

    async def _ask_with_ticket(self, message: Stream | Finalize, patience_s: float | None) -> Message:
        try:
            return await self._link.request(message, new_key(message), patience_s)
        except RequestFailed as refused:
            if refused.code == TICKET_NOT_FOUND.code:
                self.ticket = None
                raise TicketLost(refused.code) from refused
            if refused.code == SESSION_TAKEN_OVER.code:
                taken_over = TakenOver(GoodbyeCode.TAKEN_OVER.code, refused.message)
                self._link.end(taken_over)
                raise taken_over from refused
            raise

    async def _wait_on_one_connection(self) -> bool:
        """Stream the ticket until it is READY; False when there is reason to ask for the place again.

        That is when the connection has gone, or nothing is heard: an event is a hint and can be lost.
        """
        ticket = self._held_ticket()
        self._turn = turn = asyncio.get_running_loop().create_future()
        self._place_is_known = False
        message = Stream(tid=ticket.tid, client_id=ticket.client_id)
        place = cast(Place, await self._ask_with_ticket(message, patience_s=None))
        if place.status is TicketStatus.READY:
            return True
        if place.status is not TicketStatus.PENDING:
            raise TicketLost(place.status.value)
        # Events that came along with the reply have been told by now, and are newer.
        if not self._place_is_known:
            self._tell_place(_as_update(place))
        if self.connection is None:
            return False
        ends: set[asyncio.Future[Any]] = {turn, self.connection.closed}
        while True:
            self._place_is_known = False
            ended, _ = await asyncio.wait(ends, timeout=NEWS_S, return_when=asyncio.FIRST_COMPLETED)
            if ended or not self._place_is_known:
                break
        if turn.done() and isinstance(turn.result(), TicketLost):
            self.ticket = None
            raise turn.result()
        return turn.done() and turn.result() is True

    def _take_event(self, name: str, event: Message) -> None:
        match event:
            case Keepalive():
                return
            case QueueUpdate():
                self._tell_place(event)
            case QueueReady() if self.ticket is not None and event.tid == self.ticket.tid:
                self._decide(True)
            case QueueExpired() if self.ticket is not None and event.tid == self.ticket.tid:
                self._decide(TicketLost(event.reason))
        if self._stream is not None:
            self._stream.push(event)
        if self.on_event is not None:
            self.on_event(name, event)

    def _tell_place(self, update: QueueUpdate) -> None:
        self._place_is_known = True
        if self._on_update is not None:
            self._on_update(update)

    def _take_end(self, error: Exception) -> None:
        self._decide(False)
        if self._stream is not None:
            self._stream.end(error)

    def _decide(self, verdict: bool | TicketLost) -> None:
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(verdict)

    async def _restore(self, connection: Connection) -> None:
        """Sign a new connection in as this player, if signed in."""
        if self.tokens is None:
            return
        tokens = self.tokens
        if time.monotonic() >= self._access_until_s:
            tokens = await self._refresh(connection, tokens)
        try:
            resumed = await connection.request(Resume(access_token=tokens.access_token))
        except RequestFailed as refused:
            if refused.code != INVALID_TOKEN.code:
                raise
            tokens = await self._refresh(connection, tokens)
            resumed = await connection.request(Resume(access_token=tokens.access_token))
        # Later, when the connection is in place for what the callback may want to ask.
        asyncio.get_running_loop().call_soon(self._take_event, DECLARED[Resume].name, resumed)

    async def _refresh(self, connection: Connection, tokens: TokenPair) -> TokenPair:
        """Exchange the refresh token.

        Its key is kept until there is an answer: presenting the token again with another key would
        count as theft and revoke the whole family.
        """
        message = Refresh(refresh_token=tokens.refresh_token)
        self._refresh_key = self._refresh_key or new_key(message)
        fresh = cast(TokenPair, await connection.request(message, key=self._refresh_key))
        self._refresh_key = None
        self._take_tokens(fresh)
        return fresh

    def _take_tokens(self, tokens: TokenPair) -> None:
        self.tokens = tokens
        self._access_until_s = time.monotonic() + tokens.expires_in - EXPIRY_MARGIN_S


def _as_update(place: Place) -> QueueUpdate:
    return QueueUpdate(
        position=place.position,
        estimated_wait_sec=place.estimated_wait_sec,
        total_waiting=place.total_waiting,
        opens_at=place.opens_at,
    )
