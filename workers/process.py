"""A worker process put together: what every kind shares. A kind adds its queues, its work and its steps."""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import structlog
from redis.asyncio import Redis

from protocol.envelope import QueueCreate, ServerStatus, queue_create
from protocol.queues import LANE_WEIGHTS, QueueType
from runtime import logging
from runtime.daemon import Daemon, Step
from runtime.exporting import Exporter, process_figures
from runtime.metrics import LoopLag
from runtime.sealing import Seals
from runtime.secrets import Secrets
from runtime.settings import Config
from runtime.traffic import Traffic
from storage import keys
from storage.connections import connect, connect_blocking, connect_wire
from storage.database import Database
from storage.errors import StoreAway
from storage.migrations import migrate
from storage.priorities import Priorities
from storage.queues import GROUP, Outbox, QueueServer, Subscription
from storage.reporting import Reporter
from storage.servers import ServerLease, claim_first_free
from storage.wire import Wire
from workers.consumer import Consumer, Work
from workers.requests import Requests

log = structlog.get_logger(__name__)

BLOCK_S = 0.5
WEIGH_S = 0.5
STEP_ATTEMPTS = 5

DATABASE_LIMIT_S = 100.0
"""How long a start may migrate, or wait for another process that does: units and pods give a start 120 s."""

Queues = Mapping[str, tuple[QueueCreate, int]]
"""Each queue's creation message and its weight, by queue id."""


@dataclass(frozen=True)
class Intake:
    """Queues that a worker reads, and what is done with their entries: `work` is called with each.

    `concurrency` is how many may be worked on at once. `group` is whose share of the entries this is part of.
    `traffic` counts what is answered, where entries are requests.
    """

    queues: Queues
    queue_type: QueueType
    work: Work
    concurrency: int
    group: str = GROUP
    traffic: Traffic | None = None


@dataclass(frozen=True)
class Kind:
    """What makes one kind of worker of a process.

    `before` are steps that come before reading begins, `after` those that come once it does. The first
    queue of the first intake is shown as the process's own.
    """

    intakes: Sequence[Intake]
    before: Sequence[Step] = ()
    after: Sequence[Step] = ()


class WorkerProcess:
    """One worker process. Must be made inside a running loop; `assemble` makes its kind."""

    def __init__(self, config: Config, kind_name: str, process_id: str) -> None:
        """`process_id` is this process's name, or "" for the first free one of its kind."""
        self.config = config
        self.kind_name = kind_name
        self.process_id = process_id
        self.boot_id = os.urandom(8).hex()
        self.redis: Redis = connect(config.redis.url)
        self._wires: list[Wire] = []
        self.wire = self.connect_wire()
        self.outbox = Outbox(self.wire)
        self.exporter = Exporter(config.metrics)
        self.daemon: Daemon

    @cached_property
    def secrets(self) -> Secrets:
        """What is derived from the master secret. Raises ConfigError where there is none."""
        return Secrets.load(self.config.auth, environ=os.environ, data_dir=None)

    @cached_property
    def seals(self) -> Seals:
        """What this process opens confidential requests with and seals their replies. Raises ConfigError."""
        return self.secrets.seals()

    def connect_wire(self) -> Wire:
        """A connection that is closed with the process: its own for what must not wait behind all else."""
        self._wires.append(connect_wire(self.config.redis.url))
        return self._wires[-1]

    async def run(self, assemble: "Callable[[WorkerProcess], Kind]") -> int:
        """Live until a signal. Answers the exit code."""
        if not self.process_id:
            self.process_id = await self._free_id()
        logging.configure(self.config.log.level, self.config.log.format, self.process_id)
        kind = assemble(self)
        blocking = [connect_blocking(self.config.redis.url, BLOCK_S) for _ in kind.intakes]
        self.daemon = self._daemon(kind, blocking)
        try:
            return await self.daemon.run()
        finally:
            for connection in (*blocking, *self._wires):
                await connection.aclose()
            await self.redis.aclose()

    async def _free_id(self) -> str:
        try:
            return await claim_first_free(
                self.redis, self.kind_name, self.boot_id, self.config.status.patience_s
            )
        except StoreAway:
            return f"{self.kind_name}-1"  # the claim itself is tried again, and says what is wrong

    def _daemon(self, kind: Kind, blocking: Sequence[Wire]) -> Daemon:
        subscriptions = [
            Subscription(
                self.redis, wire, intake.queues, f"{self.process_id}:{self.boot_id}", BLOCK_S, intake.group
            )
            for intake, wire in zip(kind.intakes, blocking, strict=True)
        ]
        consumers = list(map(self._consumer, kind.intakes, subscriptions))

        async def start_outbox() -> None:
            self.daemon.watch(self.outbox.run(), "outbox")

        async def create_queues() -> None:
            for subscription in subscriptions:
                await subscription.create()

        async def start_consumers() -> None:
            self.daemon.watch(self._weigh(consumers), "priorities")
            for consumer in consumers:
                self.daemon.watch(consumer.run(), "consumer")
                self.daemon.watch(consumer.sweep(), "sweep")

        async def stop_consumers() -> None:
            await asyncio.gather(*(consumer.stop() for consumer in consumers))

        loop_lag = LoopLag()
        traffic = next((intake.traffic for intake in kind.intakes if intake.traffic), Traffic())
        self.exporter.add(lambda: process_figures(traffic, loop_lag))
        steps = [
            Step("metrics", self.exporter.open, self.exporter.close),
            Step("outbox", start_outbox, self.outbox.flushed),
            *kind.before,
            Step("queue creation", create_queues, attempts=STEP_ATTEMPTS),
            Step("subscription", start_consumers, stop_consumers),
            *kind.after,
        ]
        reporter = self._reporter(loop_lag, traffic, kind)
        return Daemon(
            self.process_id,
            reporter,
            steps,
            heartbeat_s=self.config.status.heartbeat_s,
            claim=Step("claim", reporter.claim, reporter.release, attempts=STEP_ATTEMPTS),
            drain=stop_consumers,
            drain_timeout_s=self.config.socketd.drain_timeout_s,
            loop_lag=loop_lag,
        )

    async def _weigh(self, consumers: Sequence[Consumer]) -> None:
        """Share capacity between queues as operations says, within a second of it. Runs as a side task."""
        names = [queue_id for each in consumers for queue_id in each.queue_ids]
        priorities = Priorities(self.wire)
        known: dict[str, float] = {}
        while True:
            try:
                weights = await priorities.weights(names)
            except StoreAway as error:
                log.warning("cannot read priorities", cause=str(error))
                weights = known
            if weights != known:
                known = weights
                log.debug("priorities", weights=weights)
                for consumer in consumers:
                    consumer.weigh(weights)
            await asyncio.sleep(WEIGH_S)

    def _consumer(self, intake: Intake, subscription: Subscription) -> Consumer:
        return Consumer(
            subscription,
            self.outbox,
            QueueServer(self.redis),
            intake.work,
            intake.queue_type,
            lease_s=self.config.queues.lease_s,
            max_deliveries=self.config.queues.max_deliveries,
            concurrency=intake.concurrency,
        )

    def _reporter(self, loop_lag: LoopLag, traffic: Traffic, kind: Kind) -> Reporter:
        lease = ServerLease(self.redis, self.process_id, self.boot_id, self.config.status.patience_s)
        identity = ServerStatus(
            event="",
            server_id=self.process_id,
            boot_id=self.boot_id,
            server_type=self.kind_name.upper(),
            queue_id=next(iter(kind.intakes[0].queues)),
            host=os.uname().nodename,
            pid=os.getpid(),
        )

        def about() -> dict[str, Any]:
            return {"metrics_port": self.exporter.port, **traffic.take()._asdict()}

        return Reporter(self.redis, lease, identity, self.outbox, loop_lag, about)


def request_intake(config: Config, requests: Requests[Any], concurrency: int) -> Intake:
    """The lanes of requests for one kind of worker, as work."""
    settings = config.queues
    owner = requests.owner
    queues = {
        (queue_id := keys.lane_queue(owner, lane)): (
            queue_create(
                owner,
                queue_id,
                QueueType.REQUEST,
                max_size=settings.request_max_size,
                expire_s=settings.request_expire_s,
                lane=lane,
            ),
            weight,
        )
        for lane, weight in LANE_WEIGHTS.items()
    }
    return Intake(queues, QueueType.REQUEST, requests.work, concurrency, traffic=requests.traffic)


def database_step(url: str, *databases: Database) -> Step:
    """Brings the database at `url` to the newest schema; at the end closes what the kind has opened of it."""

    async def prepare_database() -> None:
        await migrate(url)

    async def close_databases() -> None:
        for database in databases:
            await database.close()

    return Step(
        "database", prepare_database, close_databases, attempts=STEP_ATTEMPTS, timeout_s=DATABASE_LIMIT_S
    )
