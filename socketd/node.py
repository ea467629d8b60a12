"""A socket node put together: what it is made of, and in which order that starts and stops."""

import asyncio
import os
import signal
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric

from protocol.envelope import QueueCreate, ServerStatus, queue_create
from protocol.queues import Lane, QueueType
from runtime.daemon import Daemon, Step
from runtime.exporting import Exporter, process_figures
from runtime.metrics import LoopLag
from runtime.secrets import Secrets
from runtime.settings import Config
from socketd.departures import Departures
from socketd.dispatch import Dispatcher
from socketd.presence import Presence
from socketd.registry import Registry
from socketd.replies import Replies
from socketd.server import Door
from socketd.tls import Certificate
from storage import keys
from storage.connections import connect, connect_blocking, connect_wire
from storage.nodes import Nodes, first_number
from storage.queues import Outbox, QueueServer, Subscription
from storage.reporting import Reporter
from storage.servers import ServerLease
from storage.tickets import Tickets
from storage.whereabouts import Whereabouts

BLOCK_S = 0.5
"""How long a read of the node's queue waits. Short, since an answer also shows that Redis is there."""

SWEEP_S = 5.0
STEP_ATTEMPTS = 5


def node_queue(config: Config) -> QueueCreate:
    """The message that creates the node's own queue: replies and events, before all else."""
    settings = config.socketd
    return queue_create(
        settings.server_id,
        keys.node_queue(settings.server_id),
        QueueType.SOCKET_MESSAGE,
        max_size=settings.queue_max_size,
        expire_s=settings.queue_expire_s,
        lane=Lane.HIGH,
    )


def identity(config: Config, boot_id: str) -> ServerStatus:
    """What of a node's reports stays the same."""
    settings = config.socketd
    return ServerStatus(
        event="",
        server_id=settings.server_id,
        boot_id=boot_id,
        server_type="SOCKET",
        queue_id=keys.node_queue(settings.server_id),
        host=settings.host,
        pid=os.getpid(),
    )


def node_figures(registry: Registry) -> Iterator[Metric]:
    """What a node measures beyond what every process does."""
    yield GaugeMetricFamily("lobbyd_connections", "Connections that the node holds.", len(registry))


class Node:
    """One socket node. Must be made inside a running loop."""

    def __init__(self, config: Config) -> None:
        """Raises ConfigError."""
        settings = config.socketd
        seals = Secrets.load(config.auth, environ=os.environ, data_dir=None).seals()
        self._queue_id = keys.node_queue(settings.server_id)
        boot_id = os.urandom(8).hex()
        self._redis = connect(config.redis.url)
        self._blocking = connect_blocking(config.redis.url, BLOCK_S)
        self._queues = QueueServer(self._redis)
        self._wire = connect_wire(config.redis.url)
        self._outbox = Outbox(self._wire)
        first = first_number()
        registry = Registry(first, settings.max_connections, config.limits.connections_per_ip)
        tickets = Tickets(self._redis, config.login.ticket_ttl_s)
        self._presence = Presence(
            tickets, Nodes(self._redis), registry, settings.server_id, first, config.login.ticket_ttl_s
        )
        self._subscription = Subscription(
            self._redis, self._blocking, {self._queue_id: (node_queue(config), 1)}, boot_id, BLOCK_S
        )
        self._dispatcher = Dispatcher(settings, registry, self._outbox, seals)
        self._departures = Departures(Whereabouts(self._wire), tickets, settings.server_id)
        self._replies = Replies(
            self._subscription,
            self._outbox,
            self._queues,
            registry,
            self._departures,
            settings.server_id,
            seals,
        )
        self._door = Door(
            settings,
            config.limits,
            registry,
            self._dispatcher,
            self._replies,
            self._departures,
            Certificate.configured(settings),
        )
        loop_lag = LoopLag()
        self._exporter = Exporter(config.metrics)
        self._exporter.add(lambda: process_figures(registry.traffic, loop_lag))
        self._exporter.add(lambda: node_figures(registry))
        self._lease = ServerLease(self._redis, settings.server_id, boot_id, config.status.patience_s)
        reporter = Reporter(
            self._redis,
            self._lease,
            identity(config, boot_id),
            self._outbox,
            loop_lag,
            lambda: self._figures(registry),
        )
        self._daemon = Daemon(
            settings.server_id,
            reporter,
            self._steps(),
            heartbeat_s=config.status.heartbeat_s,
            claim=Step("claim", reporter.claim, reporter.release, attempts=STEP_ATTEMPTS),
            drain=self._door.drain,
            drain_timeout_s=settings.drain_timeout_s,
            loop_lag=loop_lag,
        )

    async def run(self) -> int:
        """Live until a signal. Answers the exit code."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._door.reload)
        try:
            return await self._daemon.run()
        finally:
            await self._blocking.aclose()
            await self._wire.aclose()
            await self._redis.aclose()

    def _figures(self, registry: Registry) -> dict[str, float]:
        """What a report of this node says beyond what every process's does."""
        return {
            "connections": len(registry),
            "port": self._door.port,
            "metrics_port": self._exporter.port,
            **registry.traffic.take()._asdict(),
        }

    def _steps(self) -> list[Step]:
        return [
            Step("metrics", self._exporter.open, self._exporter.close),
            Step("outbox", self._start_outbox, self._outbox.flushed),
            Step("queue creation", self._subscription.create, self._delete_queue, attempts=STEP_ATTEMPTS),
            Step("departures", self._start_departures, self._departures.said),
            Step("handler registration", self._register_handlers),
            Step("subscription", self._subscribe, self._unsubscribe, attempts=STEP_ATTEMPTS),
            Step("presence", self._start_presence, self._presence.end, attempts=STEP_ATTEMPTS),
            Step("port", self._open_port, self._door.close, attempts=STEP_ATTEMPTS),
        ]

    async def _start_outbox(self) -> None:
        self._daemon.watch(self._outbox.run(), "outbox")

    async def _start_departures(self) -> None:
        self._daemon.watch(self._departures.run(), "departures")

    async def _delete_queue(self) -> None:
        # Not where another process has become this server by now: its replies are in there.
        if await self._lease.renew():
            await self._queues.delete(self._queue_id)

    async def _register_handlers(self) -> None:
        self._dispatcher.check_handlers()

    async def _subscribe(self) -> None:
        await self._replies.take_once()
        self._reading = self._daemon.watch(self._replies.run(), "replies")
        self._daemon.watch(self._sweep(), "sweep")

    async def _unsubscribe(self) -> None:
        self._replies.stop()
        await asyncio.wait([self._reading])

    async def _start_presence(self) -> None:
        await self._presence.begin()
        self._daemon.watch(self._presence.run(), "presence")

    async def _open_port(self) -> None:
        await self._door.open()
        self._daemon.watch(self._door.keep_time(), "timers")
        self._daemon.watch(self._door.accept(), "door")

    async def _sweep(self) -> None:
        """Drop what waits for connections that nobody has any more."""
        while True:
            await asyncio.sleep(SWEEP_S)
            await self._replies.sweep()
