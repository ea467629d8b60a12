"""The noun "server": which processes there are, what each reports, and who may bear an id."""

import os
import socket
import time
from collections.abc import Mapping

import msgspec
import psutil
from redis.asyncio import Redis

from protocol.codec import encode
from protocol.envelope import QueueCreate, ServerStatus, queue_create
from protocol.queues import Lane, QueueType
from storage import keys
from storage.errors import redis_away_is_store_away
from storage.functions import Library
from storage.wire import Executor

LIBRARY = Library("servers")

STATUS_QUEUE_SIZE = 10_000
STATUS_EXPIRE_S = 3600.0


def status_queue() -> QueueCreate:
    """The message that creates `status_queue`; whoever comes first creates it."""
    return queue_create(
        "status",
        keys.STATUS_QUEUE,
        QueueType.STATUS,
        max_size=STATUS_QUEUE_SIZE,
        expire_s=STATUS_EXPIRE_S,
        lane=Lane.HIGH,
    )


class Holder(msgspec.Struct, frozen=True):
    """Who holds a server id's lease: enough to see, on the same host, whether it still lives."""

    boot_id: str
    host: str
    pid: int
    started_s: float


def this_process(boot_id: str) -> Holder:
    """This process as a holder."""
    return Holder(boot_id, socket.gethostname(), os.getpid(), _started_s(psutil.Process()))


def _started_s(process: psutil.Process) -> float:
    """When a process began, by a clock that nobody sets: what psutil tells those of one id apart by."""
    return float(process._ident[1])  # type: ignore[attr-defined]


def _is_dead(holder: Holder) -> bool:
    """Whether the holder was a process of this host that is gone; False when that cannot be known."""
    if holder.host != socket.gethostname():
        return False
    try:
        process = psutil.Process(holder.pid)
        return _started_s(process) != holder.started_s or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


class ServerLease:
    """The right to bear a server id, for one live process at a time. Raises StoreAway."""

    def __init__(self, redis: Redis, server_id: str, boot_id: str, ttl_s: float) -> None:
        self._redis = redis
        self._names = [keys.server_lease(server_id)]
        self._dismissal = keys.server_dismissal(server_id)
        self._value = msgspec.json.encode(this_process(boot_id))
        self._ttl_ms = int(ttl_s * 1000)

    async def claim(self) -> Holder | None:
        """Take the lease. Answers None, or the live process that has it.

        A holder that died on this host loses it at once; one elsewhere when its lease runs out.
        """
        held = await self._call("server_claim", self._value, self._ttl_ms, b"")
        if held is None:
            return None
        holder = msgspec.json.decode(held, type=Holder)
        if not _is_dead(holder):
            return holder
        held = await self._call("server_claim", self._value, self._ttl_ms, held)
        return None if held is None else msgspec.json.decode(held, type=Holder)

    async def renew(self) -> bool:
        """Hold on to the lease. False when another process has it."""
        return bool(await self._call("server_renew", self._value, self._ttl_ms))

    async def is_dismissed(self) -> bool:
        """Whether an operator has asked this very process to end."""
        with redis_away_is_store_away():
            return bool(await self._redis.get(self._dismissal) == self._value)

    async def release(self) -> None:
        """Give the lease up, if it is still ours."""
        await self._call("server_release", self._value)

    async def _call(self, function: str, *args: bytes | int) -> bytes | None:
        answer: bytes | None = await LIBRARY.call(self._redis, function, self._names, args)
        return answer


async def hold(redis: Executor, lease: str, boot_id: str, ttl_s: float) -> bool:
    """Take or keep a lease by its key, for one process at a time. Answers whether it is the caller's.

    Raises StoreAway.
    """
    return bool(await LIBRARY.call(redis, "server_renew", [lease], [boot_id, int(ttl_s * 1000)]))


async def claim_first_free(redis: Redis, prefix: str, boot_id: str, ttl_s: float) -> str:
    """Take the first of `prefix-1`, `prefix-2` … that no live process bears. Raises StoreAway."""
    number = 1
    while await ServerLease(redis, f"{prefix}-{number}", boot_id, ttl_s).claim() is not None:
        number += 1
    return f"{prefix}-{number}"


class Servers:
    """The status hashes: written by the status manager alone, read by all. Raises StoreAway."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def record(self, status: ServerStatus) -> None:
        """Write what a process reported into its status hash; fields it left out stay."""
        given = msgspec.to_builtins(status)
        fields = {name: value for name, value in given.items() if value is not None}
        for name in ("type", "event", "serverId", "sentAt"):
            fields.pop(name)
        fields["lastHeartbeat"] = status.sent_at
        with redis_away_is_store_away():
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.hset(keys.server_status(status.server_id), mapping=fields)
            pipeline.sadd(keys.SERVER_IDS, status.server_id)
            await pipeline.execute()

    async def mark(self, server_id: str, status_code: str, error: str) -> None:
        """Write a status that the process itself could not report, such as DOWN, with its cause."""
        with redis_away_is_store_away():
            await self._redis.hset(
                keys.server_status(server_id), mapping={"statusCode": status_code, "error": error}
            )

    async def get(self, server_id: str) -> dict[str, str]:
        """One process's status hash, empty when it is not known."""
        with redis_away_is_store_away():
            fields: dict[bytes, bytes] = await self._redis.hgetall(keys.server_status(server_id))  # type: ignore[assignment]
        return _text(fields)

    async def all(self) -> dict[str, dict[str, str]]:
        """Every known process's status hash, by server id."""
        with redis_away_is_store_away():
            names: set[bytes] = await self._redis.smembers(keys.SERVER_IDS)  # type: ignore[assignment]
            ids = sorted(name.decode() for name in names)
            pipeline = self._redis.pipeline(transaction=False)
            for server_id in ids:
                pipeline.hgetall(keys.server_status(server_id))
            answers = await pipeline.execute()
        return {server_id: _text(fields) for server_id, fields in zip(ids, answers, strict=True) if fields}


def status_message(status: ServerStatus) -> bytes:
    """A report as it goes into `status_queue`."""
    return encode(status)


def now_ms() -> int:
    """The wall clock in ms since the epoch."""
    return int(time.time() * 1000)


def _text(fields: Mapping[bytes, bytes]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in fields.items()}
