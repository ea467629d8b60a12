"""Moves the audit log to SQL and ends what is old there, while this worker holds the lease.

The next takes over when it dies.
"""

import asyncio
from collections.abc import Iterator

import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from storage.audit import BATCH, Arrears, Audit, thin
from storage.database import Database
from storage.errors import StoreAway
from storage.servers import now_ms

log = structlog.get_logger(__name__)

PAUSE_S = 0.5
LEASE_S = 3.0

THIN_S = 60.0
"""Time between two looks for what is too old, once there is no more of it."""


class Auditing:
    """The side task that keeps the durable audit log up with the one that people look at."""

    def __init__(self, audit: Audit, database: Database, boot_id: str, keep_s: float) -> None:
        """`keep_s` is how long an entry stays in SQL, 0 for good."""
        self._audit = audit
        self._database = database
        self._boot_id = boot_id
        self._keep_ms = int(keep_s * 1000)
        self._thin_at_s = 0.0
        self._arrears: Arrears | None = None
        self._told = 0

    async def run(self) -> None:
        """Move what there is, for as long as the process lives."""
        while True:
            try:
                is_more = await self._look()
            except StoreAway as error:
                log.warning("the audit log waits", cause=str(error))
                is_more = False
            if not is_more:
                await asyncio.sleep(PAUSE_S)

    def figures(self) -> Iterator[Metric]:
        """For Prometheus; nothing while another worker moves the log."""
        if self._arrears is None:
            return
        yield GaugeMetricFamily(
            "lobbyd_audit_pending", "Entries of the audit log that wait for SQL.", self._arrears.pending
        )
        yield CounterMetricFamily(
            "lobbyd_audit_lost", "Entries of the audit log that SQL never had.", self._arrears.lost
        )

    async def _look(self) -> bool:
        """Move what there is. Answers whether there is more."""
        if not await self._audit.lead(self._boot_id, LEASE_S):
            self._arrears = None
            return False
        self._arrears = await self._audit.arrears()
        self._tell(self._arrears)
        moved = await self._audit.drain(self._database)
        return BATCH in (moved, await self._thin())

    async def _thin(self) -> int:
        """End the oldest of what is too old, so little at a time that what is new need not wait."""
        clock_s = asyncio.get_running_loop().time()
        if not self._keep_ms or clock_s < self._thin_at_s:
            return 0
        ended = await thin(self._database, now_ms() - self._keep_ms)
        if ended:
            log.info("old entries of the audit log ended", count=ended)
        if ended < BATCH:
            self._thin_at_s = clock_s + THIN_S
        return ended

    def _tell(self, arrears: Arrears) -> None:
        if arrears.lost > self._told:
            log.error(
                "entries of the audit log were lost to SQL", lost=arrears.lost - self._told, ever=arrears.lost
            )
        self._told = arrears.lost
