"""The lease of a server id: who holds it, and who is taken for dead."""

import psutil
import pytest
from redis.asyncio import Redis

from storage.servers import ServerLease

TTL_S = 60.0


async def test_a_clock_that_is_set_takes_no_lease_from_who_lives(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await ServerLease(redis, "SOCK001", "first", TTL_S).claim() is None
    booted_s = psutil.boot_time()
    monkeypatch.setattr("psutil._psplatform.boot_time", lambda: booted_s + 3600)

    holder = await ServerLease(redis, "SOCK001", "second", TTL_S).claim()

    assert holder is not None
    assert holder.boot_id == "first"
