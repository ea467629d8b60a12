"""The noun "sample": what the whole system looks like now, what it looked like, and the alerts about it."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from redis.asyncio import Redis

from protocol.messages.monitor import AdmissionSample, Alert, Metrics, QueueSample, ServerSample
from storage import keys
from storage.errors import redis_away_is_store_away
from storage.queues import QueueServer, QueueStatistics
from storage.servers import Servers, hold
from storage.tickets import Tickets

MOST_SAMPLES = 720
"""An hour of samples every 5 s."""

MOST_PAST_ALERTS = 1_000


class Monitoring:
    """Takes samples and keeps them. Raises StoreAway."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._servers = Servers(redis)
        self._queues = QueueServer(redis)
        self._tickets = Tickets(redis, ttl_s=0)

    async def lead(self, boot_id: str, ttl_s: float) -> bool:
        """Take or hold the lease of the one who watches. Answers whether it is the caller's."""
        return await hold(self._redis, keys.MONITORING_LEAD, boot_id, ttl_s)

    async def sample(self) -> Metrics:
        """The whole system as it is now."""
        now_s = time.time()
        servers = await self._servers.all()
        queues = await self._queues.statistics(await self._queues.ids())
        ledger = await self._tickets.ledger()
        with redis_away_is_store_away():
            pipeline = self._redis.pipeline(transaction=False)
            for queue in queues:
                pipeline.xlen(keys.dead_letters(queue.queue_id))
            pipeline.info("memory")
            *letters, memory = await pipeline.execute()
        return Metrics(
            at=int(now_s * 1000),
            servers=[_server(server_id, fields, now_s) for server_id, fields in servers.items()],
            queues=[_queue(queue, count) for queue, count in zip(queues, letters, strict=True)],
            admission=AdmissionSample(
                waiting=int(ledger["waiting"]),
                ready=int(ledger["ready"]),
                rate_per_minute=ledger["totalRate"],
                average_wait_sec=ledger["avgWaitSec"],
                estimate_error_sec=ledger["estimateErrorSec"],
            ),
            redis_memory_bytes=memory["used_memory"],
        )

    async def keep(self, sample: Metrics) -> None:
        """Make a sample the newest one."""
        newest: dict[str, bytes | int] = {"at": sample.at, "admission": msgspec.json.encode(sample.admission)}
        newest["redis"] = sample.redis_memory_bytes
        newest |= {f"server:{each.server_id}": msgspec.json.encode(each) for each in sample.servers}
        newest |= {f"queue:{each.queue_id}": msgspec.json.encode(each) for each in sample.queues}
        with redis_away_is_store_away():
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.delete(keys.MONITORING_METRICS)
            pipeline.hset(keys.MONITORING_METRICS, mapping=newest)  # type: ignore[arg-type]
            pipeline.xadd(keys.MONITORING_HISTORY, {"m": msgspec.msgpack.encode(sample)}, maxlen=MOST_SAMPLES)
            await pipeline.execute()

    async def history(self, most: int) -> list[Metrics]:
        """The newest samples, oldest first."""
        with redis_away_is_store_away():
            rows: Any = await self._redis.xrevrange(keys.MONITORING_HISTORY, count=most)
        decoder = msgspec.msgpack.Decoder(Metrics)
        return [decoder.decode(fields[b"m"]) for _, fields in reversed(rows)]

    async def alerts(self) -> dict[str, bytes]:
        """The open alerts as they were kept, by what they are about."""
        with redis_away_is_store_away():
            fields: dict[bytes, bytes] = await self._redis.hgetall(keys.MONITORING_ALERTS)  # type: ignore[assignment]
        return {subject.decode(): kept for subject, kept in fields.items()}

    async def keep_alerts(self, alerts: Mapping[str, bytes], news: Sequence[Alert] = ()) -> None:
        """Make these the open alerts, and add what became of some to the past."""
        with redis_away_is_store_away():
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.delete(keys.MONITORING_ALERTS)
            if alerts:
                pipeline.hset(keys.MONITORING_ALERTS, mapping=dict(alerts))  # type: ignore[arg-type]
            for alert in news:
                pipeline.lpush(keys.MONITORING_PAST_ALERTS, msgspec.json.encode(alert))
            pipeline.ltrim(keys.MONITORING_PAST_ALERTS, 0, MOST_PAST_ALERTS - 1)
            await pipeline.execute()


def _server(server_id: str, fields: Mapping[str, str], now_s: float) -> ServerSample:
    return ServerSample(
        server_id=server_id,
        server_type=fields.get("serverType", ""),
        status_code=fields.get("statusCode", ""),
        cpu_usage=float(fields.get("cpuUsage", 0)),
        memory_usage=float(fields.get("memoryUsage", 0)),
        network_status=fields.get("networkStatus", ""),
        connections=int(fields.get("connections", 0)),
        requests=int(fields.get("requests", 0)),
        errors=int(fields.get("errors", 0)),
        latency_p99_ms=float(fields.get("latencyP99Ms", 0)),
        heartbeat_age_sec=max(0.0, round(now_s - int(fields.get("lastHeartbeat", 0)) / 1000, 1)),
        host=fields.get("host", ""),
    )


def _queue(queue: QueueStatistics, dead_letters: int) -> QueueSample:
    return QueueSample(
        queue_id=queue.queue_id,
        length=queue.length,
        pending=queue.pending,
        max_size=queue.max_size,
        oldest_age_sec=queue.oldest_age_sec,
        dead_letters=dead_letters,
    )
