"""How a process tells the status manager how it fares: the storage side of `runtime.daemon.Lifecycle`."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
from redis.asyncio import Redis

from protocol.envelope import ServerStatus
from runtime import __version__
from runtime.daemon import Dismissed, Refused
from runtime.metrics import LoopLag, network_status, resources
from storage import keys
from storage.queues.outbox import Outbox
from storage.queues.server import QueueServer
from storage.servers import ServerLease, now_ms, status_message, status_queue


class Reporter:
    """Publishes one process's `server_status` messages, and holds its server id's lease while it lives.

    A heartbeat repeats what was announced last: it brings back what a lost Redis or a DOWN has wiped out.

    `about` gives the facts that change, such as the port and the number of connections, by the names
    of ServerStatus.
    """

    def __init__(
        self,
        redis: Redis,
        lease: ServerLease,
        identity: ServerStatus,
        outbox: Outbox,
        loop_lag: LoopLag,
        about: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        self._server = QueueServer(redis)
        self._lease = lease
        self._report = identity
        self._outbox = outbox
        self._loop_lag = loop_lag
        self._about = about

    async def claim(self) -> None:
        """Take the server id. Raises Refused while another live process bears it, or StoreAway."""
        holder = await self._lease.claim()
        if holder is not None:
            raise Refused(
                f"{self._report.server_id} is alive already: process {holder.pid} on {holder.host}. "
                "Stop that one, or give this one another id."
            )

    async def release(self) -> None:
        """Give the server id up."""
        await self._lease.release()

    async def starting(self) -> None:
        """Announce STARTING, with all that is known of the process."""
        await self._server.create(status_queue())
        start_time = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        self._report = msgspec.structs.replace(self._report, start_time=start_time, version=__version__)
        await self._announce("server_starting", "STARTING")

    async def ready(self) -> None:
        """Announce READY."""
        await self._announce("server_ready", "READY")

    async def draining(self) -> None:
        """Announce DRAINING."""
        await self._announce("server_draining", "DRAINING")

    async def stopped(self) -> None:
        """Announce STOPPED."""
        await self._announce("server_stopped", "STOPPED")

    async def error(self, cause: str) -> None:
        """Announce ERROR and its cause."""
        await self._announce("server_error", "ERROR", cause)

    async def heartbeat(self) -> None:
        """Renew the lease and report how the process fares.

        Raises Refused when another bears the id, Dismissed when an operator has asked this one to end.
        """
        if not await self._lease.renew():
            raise Refused(f"Another process has become {self._report.server_id}: this one must not go on.")
        await self._publish("server_heartbeat")
        if await self._lease.is_dismissed():
            raise Dismissed

    async def _announce(self, event: str, status_code: str, error: str = "") -> None:
        self._report = msgspec.structs.replace(self._report, status_code=status_code, error=error)
        await self._publish(event)

    async def _publish(self, event: str) -> None:
        used = resources()
        sends, failures = self._outbox.take_counts()
        network = network_status(self._loop_lag.max_ms, sends=sends, send_failures=failures)
        facts = {
            "event": event,
            "cpu_usage": round(used.cpu_percent, 1),
            "memory_usage": round(used.memory_percent, 2),
            "network_status": network.value,
            "sent_at": now_ms(),
        }
        status = msgspec.structs.replace(self._report, **self._about(), **facts)
        await self._server.append(keys.STATUS_QUEUE, status_message(status))
