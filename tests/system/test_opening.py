"""The opening: who is there before it waits for the draw, and comes in before who comes after it."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec import UNSET

from protocol.messages.waiting import QueueReady, QueueUpdate, TicketStatus
from storage import keys
from tests.system.cluster import Cluster
from tests.system.guest import Guest

pytestmark = pytest.mark.servers

EARLY = 6


async def test_who_is_there_before_the_opening_is_drawn_and_who_comes_later_waits_behind(
    cluster: Cluster,
) -> None:
    opens_at = (datetime.now(UTC) + timedelta(hours=1)).replace(microsecond=0)
    cluster.settings |= {"login.admit_rate": 60, "login.pod_count": 1, "login.opens_at": opens_at.isoformat()}
    cluster.start(logins=2)
    guests = [await Guest.at(cluster["SOCK001"].endpoint) for _ in range(EARLY + 1)]
    tickets = []
    for number, guest in enumerate(guests[:EARLY]):
        await guest.register(f"early-{number}")
        tickets.append(await guest.log_in(f"early-{number}"))
        place = await guest.stream(tickets[-1])
        assert (place.status, place.estimated_wait_sec) == (TicketStatus.PENDING, None)
        assert (place.position, place.total_waiting) == (number + 1, number + 1)
        assert place.opens_at == opens_at.timestamp() * 1000
    drawn: list[Any] = cluster.redis.zrange(keys.PORTAL_WAITING, 0, -1)

    cluster.settings["login.opens_at"] = ""
    for number in (1, 2):
        cluster[f"login-{number}"].end()
        cluster.start_worker("login", number)
    late = guests[EARLY]
    await late.register("late")
    tickets.append(await late.log_in("late"))
    await late.stream(tickets[-1])
    readies = await asyncio.gather(*(guest.hear(QueueReady) for guest in guests))

    ready_at = {each.tid: int(cluster.redis.hget(keys.ticket(each.tid), "readyAt") or 0) for each in readies}
    in_order = [ready_at[tid] for tid in (*drawn, tickets[-1].tid)]
    assert in_order == sorted(ready_at.values())
    last = guests[[ticket.tid for ticket in tickets].index(drawn[-1])]
    reasons = [update.reason for update in last.all(QueueUpdate) if update.opens_at is UNSET]
    assert reasons == ["DRAWN", *[UNSET] * (len(reasons) - 1)]
    assert {update.reason for update in late.all(QueueUpdate)} <= {UNSET}
    for guest in guests:
        guest.leave()
