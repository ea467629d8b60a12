"""How a worker takes work from queues: read, hold, do, acknowledge; retry what failed; give up in the end.

An entry is acknowledged when its work says that it is settled. When the work fails or its process dies,
the entry stays pending, is claimed after the lease and tried again alone, and after `max_deliveries`
goes to the dead letters with its cause, its neighbours unharmed.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import structlog

from protocol.queues import QueueType
from storage.errors import StoreAway
from storage.queues import Busy, Entry, Outbox, QueueServer, Subscription

log = structlog.get_logger(__name__)

Settle = Callable[[Exception | None], None]
"""Called once when an entry is dealt with: None for done, an error for another try."""

Work = Callable[[Entry, Settle], Awaitable[None]]
"""Works on an entry; calls its Settle as its last act or has it called later, or raises."""

READ_MOST = 64
"""Entries that are taken at once, times the priority: their replies go out while the next are being read, and
the consumers of a process take turns."""

AWAY_PAUSE_S = 0.2
TIDY_S = 5.0
MAX_CAUSE_LENGTH = 500


class Consumer:
    """One process's share in the work of some queues."""

    def __init__(
        self,
        subscription: Subscription,
        outbox: Outbox,
        queues: QueueServer,
        work: Work,
        queue_type: QueueType,
        *,
        lease_s: float,
        max_deliveries: int,
        concurrency: int,
    ) -> None:
        self._subscription = subscription
        self._outbox = outbox
        self._queues = queues
        self._work = work
        self._queue_type = queue_type
        self._lease_s = lease_s
        self._max_deliveries = max_deliveries
        self._concurrency = concurrency
        self._held: dict[str, dict[bytes, asyncio.Task[None]]] = defaultdict(dict)
        self._causes: dict[bytes, str] = {}
        self._settled = asyncio.Event()
        self._stopping = asyncio.Event()
        self._takers = 0
        self._read_most = READ_MOST

    @property
    def queue_ids(self) -> Sequence[str]:
        """The queues that are read."""
        return self._subscription.queue_ids

    def weigh(self, priorities: Mapping[str, float]) -> None:
        """Share by these, 1 for a queue that is not named: between the queues, and with other consumers."""
        self._subscription.weigh(priorities)
        highest = max(priorities.get(queue_id, 1.0) for queue_id in self.queue_ids)
        self._read_most = max(1, round(READ_MOST * highest))

    async def run(self) -> None:
        """Read and start work until `stop`. Runs as a side task and is never cancelled in a read."""
        with self._taking():
            while not self._stopping.is_set():
                free = self._concurrency - self._unsettled
                if free <= 0:
                    await self._next_settled()
                    continue
                try:
                    for entry in await self._subscription.read(min(free, self._read_most)):
                        self._start(entry)
                except StoreAway as error:
                    log.warning("cannot read work", cause=str(error))
                    await asyncio.sleep(AWAY_PAUSE_S)

    async def sweep(self) -> None:
        """Renew what is held, retry what others left, tidy up. Runs as a side task until `stop`."""
        with self._taking():
            await asyncio.gather(
                self._repeat(self._renew, self._lease_s / 3),
                self._repeat(self._retry, self._lease_s / 2),
                self._repeat(lambda: self._subscription.tidy(self._queue_type), TIDY_S),
            )

    async def stop(self) -> None:
        """Read no more, finish what is held, and stop being a consumer.

        A read that is under way comes to its end first: what it brings is held too.
        """
        self._stopping.set()
        while self._takers or self._unsettled:
            await self._next_settled()
        await self._outbox.flushed()
        try:
            await self._subscription.leave()
        except StoreAway as error:
            log.warning("cannot leave the queues", cause=str(error))

    async def _repeat(self, action: Callable[[], Awaitable[None]], every_s: float) -> None:
        while not self._stopping.is_set():
            try:
                async with asyncio.timeout(every_s):
                    await self._stopping.wait()
            except TimeoutError:
                pass
            else:
                return
            try:
                await action()
            except StoreAway as error:
                log.warning("cannot sweep", cause=str(error))

    async def _renew(self) -> None:
        await self._subscription.renew({queue_id: list(ids) for queue_id, ids in self._held.items()})

    async def _retry(self) -> None:
        while not self._stopping.is_set():
            entry = await self._subscription.claim(self._lease_s)
            if entry is None:
                return
            if entry.deliveries > self._max_deliveries:
                await self._give_up(entry)
            else:
                self._start(entry)
                while entry.id in self._held[entry.queue_id]:
                    await self._next_settled()

    async def _give_up(self, entry: Entry) -> None:
        cause = self._causes.pop(entry.id, f"whoever worked on it died, {entry.deliveries - 1} times")
        log.error("given up", queue=entry.queue_id, entry=entry.id.decode(), cause=cause)
        await self._queues.dead_letter(entry, cause)

    @contextmanager
    def _taking(self) -> Iterator[None]:
        """While entered, more work may come to be held."""
        self._takers += 1
        try:
            yield
        finally:
            self._takers -= 1
            self._settled.set()

    @property
    def _unsettled(self) -> int:
        return sum(map(len, self._held.values()))

    async def _next_settled(self) -> None:
        self._settled.clear()
        await self._settled.wait()

    def _start(self, entry: Entry) -> None:
        task = asyncio.get_running_loop().create_task(self._do(entry))
        self._held[entry.queue_id][entry.id] = task

    async def _do(self, entry: Entry) -> None:
        try:
            await self._work(entry, partial(self._settle, entry))
        except Exception as error:
            self._settle(entry, error)

    def _settle(self, entry: Entry, error: Exception | None) -> None:
        self._held[entry.queue_id].pop(entry.id, None)
        self._settled.set()
        if error is None:
            self._causes.pop(entry.id, None)
            self._outbox.acknowledge(entry)
            return
        place = f"{entry.queue_id} {entry.id.decode()}"
        if isinstance(error, (StoreAway, Busy)):
            log.warning("left for another try", entry=place, cause=str(error))
        else:
            self._causes[entry.id] = f"{type(error).__name__}: {error}"[:MAX_CAUSE_LENGTH]
            log.error("failed", entry=place, exc_info=error)
