"""The node's door: listens, keeps time for all connections, and lets them go when the node drains."""

import asyncio
import random
from functools import partial

import structlog

from protocol.connection import BadRequest, RawRequest, event_frame
from protocol.errors import BUSY, BUSY_RETRY_MS, TIMEOUT, GoodbyeCode, RequestError
from protocol.messages.connection import Keepalive
from runtime.settings import LimitsSettings, SocketdSettings
from socketd.connection import Connection
from socketd.departures import Departures
from socketd.dispatch import Dispatcher
from socketd.limits import UserBuckets, network_of
from socketd.registry import Registry
from socketd.replies import Replies
from socketd.timers import SLOT_S, Wheel
from socketd.tls import Certificate, SecureServer
from storage.servers import now_ms

log = structlog.get_logger(__name__)

BACKLOG = 4096

AWAY_AFTER_S = 1.5
"""With Redis silent for this long, who waits for an answer is told BUSY: within 2 s, ticks included."""

IDLE_KEEPALIVES = 3
LINGER_S = 5.0
"""What a closed connection gets to read its last bytes before it is cut."""

RETURN_SPREAD_MS = 2000
"""Clients of a draining node are told to return within this time, each at a moment of its own."""


class Door:
    """Everything of a node that has to do with its clients' sockets."""

    def __init__(
        self,
        settings: SocketdSettings,
        rates: LimitsSettings,
        registry: Registry,
        dispatcher: Dispatcher,
        replies: Replies,
        departures: Departures,
        certificate: Certificate | None = None,
    ) -> None:
        """Without a certificate the door speaks plain TCP."""
        self.limits = settings
        self.rates = rates
        self.users = UserBuckets(rates.requests_per_second)
        self._registry = registry
        self._dispatcher = dispatcher
        self._replies = replies
        self._departures = departures
        self._wheel = Wheel()
        self._certificate = certificate
        self._server: asyncio.Server | SecureServer | None = None
        self._loop = asyncio.get_running_loop()
        self.now_s = self._loop.time
        self.call_soon = self._loop.call_soon
        self.port = settings.port

    # The life of the door.

    async def open(self) -> None:
        """Listen. Raises OSError when the port cannot be had."""
        host, port = self.limits.host, self.limits.port
        if self._certificate is None:
            server = await self._loop.create_server(lambda: Connection(self), host, port, backlog=BACKLOG)
            self.port = server.sockets[0].getsockname()[1]
            self._server = server
            return
        secure = SecureServer(
            self._certificate,
            self._registry,
            lambda: Connection(self),
            partial(network_of, ipv6_prefix=self.rates.ipv6_prefix),
            self.limits.hello_timeout_s,
        )
        self.port = await secure.open(host, port, BACKLOG)
        self._server = secure

    async def accept(self) -> None:
        """Take connections in where that is not the loop's own work. Runs as a side task."""
        if isinstance(self._server, SecureServer):
            await self._server.accept()

    def reload(self) -> None:
        """Read the certificate again, as operators ask with SIGHUP."""
        if self._certificate is None:
            log.info("nothing to reload: there is no certificate")
        else:
            self._certificate.reload()

    async def keep_time(self) -> None:
        """Look after time limits. Runs as a side task for as long as the process lives."""
        while True:
            await asyncio.sleep(SLOT_S)
            self._tick(self.now_s())

    async def drain(self) -> None:
        """Take nobody in, finish what was accepted, say goodbye to each client when it has its answers."""
        self._dispatcher.draining = True
        if self._server is not None:
            self._server.close()
        while len(self._registry):
            for connection in self._registry:
                if not connection.in_flight:
                    retry_after_ms = random.randint(0, RETURN_SPREAD_MS)
                    connection.close(GoodbyeCode.SERVER_DRAINING, retry_after_ms=retry_after_ms)
            await asyncio.sleep(SLOT_S)

    async def close(self) -> None:
        """Stop listening and cut whoever is left."""
        if self._server is None:
            return
        self._server.close()
        for connection in self._registry:
            connection.abort()
        await self._server.wait_closed()
        self._server = None

    # What connections call.

    def opened(self, connection: Connection) -> None:
        """A client has connected."""
        if isinstance(self._server, SecureServer):
            self._server.made(connection)
        connection_id = self._registry.add(connection, connection.peer)
        if connection_id is None:
            self._wheel.put(connection, connection.opened_s + LINGER_S)
            connection.close(GoodbyeCode.TOO_MANY_CONNECTIONS, retry_after_ms=BUSY_RETRY_MS)
            return
        connection.id = connection_id
        self._wheel.put(connection, connection.opened_s + self.limits.hello_timeout_s)

    def greeted(self, connection: Connection) -> None:
        """A client has said hello."""
        self._wheel.take(connection)
        self._wheel.put(connection, self.now_s() + self.limits.keepalive_s - SLOT_S)

    def closed(self, connection: Connection) -> None:
        """A client's socket is gone."""
        self._wheel.take(connection)
        if connection.id:
            self._registry.remove(connection.id, connection.peer)
            if connection.user_id is not None:
                self._departures.left(connection.user_id, connection.id)
            if connection.ticket is not None:
                self._departures.unstreamed(connection.ticket, connection.id)

    def dispatch(self, connection: Connection, request: RawRequest | BadRequest) -> None:
        """A client asks for something."""
        self._dispatcher.dispatch(connection, request, connection.last_received_s)

    def says_goodbye(self, connection: Connection, code: GoodbyeCode) -> None:
        """A client is being sent away: look after it once more, should it not read its last bytes."""
        self._wheel.take(connection)
        self._wheel.put(connection, self.now_s() + LINGER_S)
        log.debug("goodbye", connection=connection.id, code=code.code)

    # Time.

    def _tick(self, now_s: float) -> None:
        self._overdue_requests(now_s)
        keepalive = b""
        for connection in self._wheel.turn(now_s):
            keepalive = keepalive or event_frame(Keepalive(server_time=now_ms()))
            self._look_after(connection, now_s, keepalive)

    def _overdue_requests(self, now_s: float) -> None:
        for number in self._registry.sent_before(now_s - self.limits.request_timeout_s):
            self._dispatcher.refuse(number, RequestError(TIMEOUT))
        if now_s - self._replies.last_answer_s > AWAY_AFTER_S:
            for number in self._registry.sent_before(now_s - AWAY_AFTER_S):
                self._dispatcher.refuse(number, RequestError(BUSY, retry_after_ms=BUSY_RETRY_MS))

    def _look_after(self, connection: Connection, now_s: float, keepalive: bytes) -> None:
        """Close a silent connection, keep the other one alive, and say when to look again."""
        if connection.closing:
            connection.abort()
            return
        if not connection.greeted:
            connection.close(GoodbyeCode.HANDSHAKE_TIMEOUT)
            return
        idle_s = IDLE_KEEPALIVES * self.limits.keepalive_s
        if now_s - connection.last_received_s >= idle_s:
            connection.close(GoodbyeCode.IDLE)
            return
        # A slot early rather than a slot late: the client counts on hearing something in time.
        silence_s = self.limits.keepalive_s - SLOT_S
        if now_s - connection.last_sent_s >= silence_s:
            connection.send(keepalive)
        due_s = min(connection.last_sent_s + silence_s, connection.last_received_s + idle_s)
        self._wheel.put(connection, due_s)
