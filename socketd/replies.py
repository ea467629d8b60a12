"""What workers send to the node's connections: reads the node's own queue and writes the frames."""

import asyncio
from collections.abc import Sequence
from logging import DEBUG

import msgspec
import structlog

from protocol.connection import error_frame
from protocol.envelope import Close, Delivery, Join, Leave, SignIn, SignOut, Watch
from protocol.errors import INTERNAL, GoodbyeCode, RequestError
from protocol.frames import FrameReader
from protocol.queues import QueueType
from runtime.sealing import Seals, Undecipherable
from socketd.connection import Connection
from socketd.departures import Departures
from socketd.registry import Registry
from storage.errors import StoreAway
from storage.queues import Entry, Outbox, QueueServer, Subscription

log = structlog.get_logger(__name__)

READ_LIMIT = 200
"""Entries of up to 128 deliveries that are taken at once."""

AWAY_PAUSE_S = 0.2
LEASE_S = 5.0

MOST_UNDELIVERED = 16
"""Events that wait for a sign-in: what brings them about may be faster than its reply."""

_decoder = msgspec.msgpack.Decoder(list[Delivery])


class _Named(msgspec.Struct):
    """What every frame says of itself."""

    type: str


_names = msgspec.msgpack.Decoder(_Named)


class Replies:
    """Delivers what comes for this node's connections."""

    def __init__(
        self,
        subscription: Subscription,
        outbox: Outbox,
        server: QueueServer,
        registry: Registry,
        departures: Departures,
        server_id: str,
        seals: Seals,
    ) -> None:
        self._subscription = subscription
        self._outbox = outbox
        self._server = server
        self._registry = registry
        self._departures = departures
        self._server_id = server_id
        self._seals = seals
        self._stopping = False
        self._frames: dict[Connection, list[bytes]] = {}

    @property
    def last_answer_s(self) -> float:
        """When Redis last answered a read, by the loop's clock."""
        return self._subscription.last_answer_s

    async def run(self) -> None:
        """Read until `stop`. Runs as a side task and is never cancelled in a read."""
        while not self._stopping:
            try:
                await self.take_once()
            except StoreAway as error:
                log.warning("cannot read replies", cause=str(error))
                await asyncio.sleep(AWAY_PAUSE_S)

    async def take_once(self) -> None:
        """Read and deliver what is there, waiting a little when nothing is. Raises StoreAway."""
        await self._take_all(await self._subscription.read(READ_LIMIT))

    async def sweep(self) -> None:
        """Deliver what an earlier boot of this node left unacknowledged, and drop what is too old."""
        try:
            while entry := await self._subscription.claim(LEASE_S):
                await self._take_all([entry])
            await self._subscription.tidy(QueueType.SOCKET_MESSAGE)
        except StoreAway as error:
            log.warning("cannot sweep", cause=str(error))

    def stop(self) -> None:
        """End `run` after the read that is under way."""
        self._stopping = True

    async def _take_all(self, entries: Sequence[Entry]) -> None:
        try:
            for entry in entries:
                await self._take(entry)
        finally:
            self._write()

    async def _take(self, entry: Entry) -> None:
        try:
            deliveries = _decoder.decode(entry.message)
        except msgspec.DecodeError as error:
            await self._server.dead_letter(entry, f"not a list of deliveries: {error}")
            return
        for delivery in deliveries:
            if isinstance(delivery.change, Watch):
                self._watch(delivery.connection_id, delivery.change.tid)
            if delivery.topic is None:
                self._deliver(delivery)
                continue
            for connection in self._registry.joined(delivery.topic):
                self._put(connection, delivery.frame)
        self._outbox.acknowledge(entry)

    def _deliver(self, delivery: Delivery) -> None:
        pending = None if delivery.answers is None else self._registry.settle(delivery.answers)
        connection = self._registry.get(delivery.connection_id)
        if connection is None:
            if isinstance(delivery.change, SignIn):  # it was closed while its sign-in was under way
                self._departures.left(delivery.change.user_id, delivery.connection_id)
            return
        if delivery.answers is not None:
            if pending is None:
                return
            delivery = self._opened(delivery, pending.request_id)
        if delivery.user_id not in (None, connection.user_id):
            _lay_by(connection, delivery)
            return
        if delivery.once is not None:
            if delivery.once == connection.last_once:
                return
            connection.last_once = delivery.once
        # A sign-in comes before its reply, so that what the client sends at once finds it signed in.
        if delivery.change is not None:
            self._change(connection, delivery)
        elif delivery.frame:
            self._send(connection, delivery)

    def _send(self, connection: Connection, delivery: Delivery) -> None:
        self._put(connection, delivery.frame)
        if delivery.answers is None and log.is_enabled_for(DEBUG):
            for body in FrameReader(len(delivery.frame)).feed(delivery.frame):
                name = _names.decode(body).type
                log.debug("event", type=name, trace_id=connection.trace, connection=connection.id)

    def _put(self, connection: Connection, frame: bytes) -> None:
        """Have a frame written with what else has come for the connection: each write is a system call."""
        self._frames.setdefault(connection, []).append(frame)

    def _write(self) -> None:
        gathered, self._frames = self._frames, {}
        for connection, frames in gathered.items():
            connection.send(b"".join(frames))

    def _watch(self, connection_id: int, tid: str) -> None:
        """The ticket's events come here, also where the answer that says so comes too late to be heard."""
        connection = self._registry.get(connection_id)
        if connection is None:
            self._departures.unstreamed(tid, connection_id)
        else:
            connection.ticket = tid

    def _opened(self, delivery: Delivery, request_id: int) -> Delivery:
        """The reply as its worker had it, or an error in its place."""
        if not delivery.sealed:
            return delivery
        try:
            frame = self._seals.open(delivery.frame, delivery.seal_context(self._server_id))
        except Undecipherable as error:
            log.error("cannot open a reply", connection=delivery.connection_id, cause=str(error))
            return Delivery(delivery.connection_id, error_frame(request_id, RequestError(INTERNAL)))
        return msgspec.structs.replace(delivery, frame=frame)

    def _change(self, connection: Connection, delivery: Delivery) -> None:
        match delivery.change:
            case SignIn(user_id, trace):
                had = connection.user_id
                if had is not None and had != user_id:
                    self._departures.left(had, connection.id)
                    self._registry.leave_all(connection)
                connection.sign_in(user_id, trace)
            case SignOut(user_id) if connection.user_id == user_id:
                connection.sign_out()
                self._registry.leave_all(connection)
            case Close(_, user_id) if connection.user_id not in (None, user_id):
                return
            case Join(topic):
                self._registry.join(topic, connection)
            case Leave(topic):
                self._registry.leave(topic, connection)
        if delivery.frame:
            self._put(connection, delivery.frame)
        if isinstance(delivery.change, Close):
            self._write()
            connection.close(GoodbyeCode[delivery.change.code])
        if isinstance(delivery.change, SignIn):
            self._catch_up(connection)

    def _catch_up(self, connection: Connection) -> None:
        """Deliver what came for the user before the connection was theirs."""
        laid_by, connection.undelivered = connection.undelivered or (), None
        for delivery in laid_by:
            if delivery.user_id == connection.user_id:
                self._deliver(delivery)


def _lay_by(connection: Connection, delivery: Delivery) -> None:
    """Keep what is for a user whom a request that is under way may yet sign in."""
    if connection.user_id is not None or not connection.in_flight:
        return
    if connection.undelivered is None:
        connection.undelivered = []
    if len(connection.undelivered) < MOST_UNDELIVERED:
        connection.undelivered.append(delivery)
