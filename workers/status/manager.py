"""The status manager's work: reports into status hashes, and DOWN for the silent."""

import asyncio

import msgspec
import structlog
from redis.asyncio import Redis

from protocol.envelope import ServerStatus
from protocol.queues import QueueType
from runtime.daemon import Step
from storage import keys
from storage.errors import StoreAway
from storage.nodes import Nodes
from storage.queues import Entry, QueueServer
from storage.servers import Servers, now_ms, status_queue
from workers.consumer import Settle
from workers.process import Intake, Kind, WorkerProcess
from workers.status.reports import has_missed, is_news

log = structlog.get_logger(__name__)

WATCH_S = 1.0

_decoder = msgspec.msgpack.Decoder(ServerStatus)


class StatusManager:
    """Reads `status_queue`: one report after the other, in the order in which they were published."""

    def __init__(self, redis: Redis, patience_s: float) -> None:
        self._servers = Servers(redis)
        self._queues = QueueServer(redis)
        self._nodes = Nodes(redis)
        self._patience_s = patience_s

    async def work(self, entry: Entry, settle: Settle) -> None:
        """Write one report. Raises StoreAway."""
        await self._write(_decoder.decode(entry.message))
        settle(None)

    async def _write(self, report: ServerStatus) -> None:
        known = await self._servers.get(report.server_id)
        if not is_news(report, known):
            return
        await self._servers.record(report)
        if report.status_code != known.get("statusCode"):
            log.info("status", server=report.server_id, status=report.status_code, cause=report.error or None)

    async def watch(self) -> None:
        """Mark DOWN who has missed too many heartbeats. Runs as a side task while the process lives."""
        while True:
            await asyncio.sleep(WATCH_S)
            try:
                await self._mark_silent()
            except StoreAway as error:
                log.warning("cannot look for the silent", cause=str(error))

    async def _mark_silent(self) -> None:
        # Reports that wait to be read are signs of life too: first read, then judge.
        waiting = await self._queues.statistics([keys.STATUS_QUEUE])
        if any(queue.length for queue in waiting):
            return
        for server_id, known in (await self._servers.all()).items():
            if not has_missed(known, now_ms(), self._patience_s):
                continue
            log.error("down", server=server_id, last_heartbeat=known.get("lastHeartbeat"))
            cause = f"No heartbeat for {self._patience_s:g} s."
            await self._servers.mark(server_id, "DOWN", cause)
            if known.get("serverType") == "SOCKET":
                # Its connections are gone: what waits for them would only fill the queue up.
                await self._queues.delete(keys.node_queue(server_id))
                await self._nodes.is_gone(server_id)


def assemble(process: WorkerProcess) -> Kind:
    """The parts of a status manager process."""
    status = process.config.status
    manager = StatusManager(process.redis, status.patience_s)

    async def start_watch() -> None:
        process.daemon.watch(manager.watch(), "watch")

    return Kind(
        [Intake({keys.STATUS_QUEUE: (status_queue(), 1)}, QueueType.STATUS, manager.work, concurrency=1)],
        after=[Step("watch", start_watch)],
    )
