"""A worker process put together: what every kind shares. A kind adds its queues, its work and its steps."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from redis.asyncio import Redis

from protocol.envelope import QueueConfig, QueueCreate, QueueDefinition, ServerStatus
from protocol.queues import LANE_WEIGHTS, QueueType
from runtime import logging
from runtime.daemon import Daemon, Step
from runtime.metrics import LoopLag
from runtime.settings import Config
from storage import keys
from storage.connections import connect, connect_blocking, connect_wire
from storage.errors import StoreAway
from storage.queues import Outbox, QueueServer, Subscription
from storage.reporting import Reporter
from storage.servers import ServerLease, claim_first_free
from storage.wire import Wire
from workers.consumer import Consumer, Work

BLOCK_S = 0.5
STEP_ATTEMPTS = 5

Queues = Mapping[str, tuple[QueueCreate, int]]
"""Each queue's creation message and its weight, by queue id."""


@dataclass(frozen=True)
class Kind:
    """What makes one kind of worker of a process.

    `work` is called with each entry of `queues`. `before` are steps that come before reading begins,
    `after` those that come once it does.
    """

    queues: Queues
    queue_type: QueueType
    work: Work
    concurrency: int
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
        self.wire = connect_wire(config.redis.url)
        self.outbox = Outbox(self.wire)
        self.daemon: Daemon

    async def run(self, assemble: "Callable[[WorkerProcess], Kind]") -> int:
        """Live until a signal. Answers the exit code."""
        if not self.process_id:
            self.process_id = await self._free_id()
        logging.configure(self.config.log.level, self.config.log.format, self.process_id)
        kind = assemble(self)
        blocking = connect_blocking(self.config.redis.url, BLOCK_S)
        self.daemon = self._daemon(kind, blocking)
        try:
            return await self.daemon.run()
        finally:
            await blocking.aclose()
            await self.wire.aclose()
            await self.redis.aclose()

    async def _free_id(self) -> str:
        try:
            return await claim_first_free(
                self.redis, self.kind_name, self.boot_id, self.config.status.patience_s
            )
        except StoreAway:
            return f"{self.kind_name}-1"  # the claim itself is tried again, and says what is wrong

    def _daemon(self, kind: Kind, blocking: Wire) -> Daemon:
        queues = self.config.queues
        subscription = Subscription(
            self.redis, blocking, kind.queues, f"{self.process_id}:{self.boot_id}", BLOCK_S
        )
        consumer = Consumer(
            subscription,
            self.outbox,
            QueueServer(self.redis),
            kind.work,
            kind.queue_type,
            lease_s=queues.lease_s,
            max_deliveries=queues.max_deliveries,
            concurrency=kind.concurrency,
        )

        async def start_outbox() -> None:
            self.daemon.watch(self.outbox.run(), "outbox")

        async def start_consumer() -> None:
            self.daemon.watch(consumer.run(), "consumer")
            self.daemon.watch(consumer.sweep(), "sweep")

        steps = [
            Step("outbox", start_outbox, self.outbox.flushed),
            *kind.before,
            Step("queue creation", subscription.create, attempts=STEP_ATTEMPTS),
            Step("subscription", start_consumer, consumer.stop),
            *kind.after,
        ]
        loop_lag = LoopLag()
        reporter = self._reporter(loop_lag, next(iter(kind.queues)))
        return Daemon(
            self.process_id,
            reporter,
            steps,
            heartbeat_s=self.config.status.heartbeat_s,
            claim=Step("claim", reporter.claim, reporter.release, attempts=STEP_ATTEMPTS),
            drain=consumer.stop,
            drain_timeout_s=self.config.socketd.drain_timeout_s,
            loop_lag=loop_lag,
        )

    def _reporter(self, loop_lag: LoopLag, queue_id: str) -> Reporter:
        lease = ServerLease(self.redis, self.process_id, self.boot_id, self.config.status.patience_s)
        identity = ServerStatus(
            event="",
            server_id=self.process_id,
            boot_id=self.boot_id,
            server_type=self.kind_name.upper(),
            queue_id=queue_id,
            host=os.uname().nodename,
            pid=os.getpid(),
        )
        return Reporter(self.redis, lease, identity, self.outbox, loop_lag)


def request_queues(config: Config, worker: str) -> Queues:
    """The lanes of requests for one kind of worker."""
    settings = config.queues
    return {
        (queue_id := keys.lane_queue(worker, lane)): (
            QueueCreate(
                data=QueueDefinition(
                    server_id=worker,
                    queue_id=queue_id,
                    queue_type=QueueType.REQUEST.label,
                    config=QueueConfig(
                        max_size=settings.request_max_size,
                        expire_time=settings.request_expire_s,
                        priority=lane.value,
                    ),
                )
            ),
            weight,
        )
        for lane, weight in LANE_WEIGHTS.items()
    }
