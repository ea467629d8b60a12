"""A flood outside of a full waiting room: whoever is inside does not notice."""

import asyncio
import itertools
from collections.abc import Sequence

import pytest

from client import RequestFailed
from protocol.messages.auth import Login
from protocol.messages.waiting import QueueReady, QueueUpdate
from storage import keys
from tests.system.cluster import Cluster, eventually
from tests.system.guest import PASSWORD, Guest, Pass
from tests.system.test_rush import the_order_was_kept
from workers.login.overflow import LONGEST_MS

pytestmark = pytest.mark.servers

MEMBERS = 20
RATE = 240
STRANGERS = 60


class Stranger:
    """A connection that asks for a place again and again, each time as another user, whatever it is told."""

    def __init__(self, number: int) -> None:
        self._number = number
        self.refusals: list[RequestFailed] = []

    async def insist(self, cluster: Cluster) -> None:
        guest = await Guest.at(cluster.nodes[self._number % 2].endpoint)
        for again in itertools.count():
            name = f"stranger-{self._number}-{again}"
            try:
                await guest.ask(Login(username=name, password=PASSWORD))
            except RequestFailed as refused:
                self.refusals.append(refused)


async def test_a_flood_outside_of_a_full_room_harms_nobody_inside(cluster: Cluster) -> None:
    cluster.settings |= {"login.max_queue_length": MEMBERS, "auth.bcrypt_cost": 10}
    cluster.start(nodes=2, logins=2)
    # However slowly a busy machine takes members in, the room stays full until the rate is another.
    cluster.redis.hset(keys.PORTAL_CONFIG, "totalRate", "0.001")
    members, tickets = await members_of(cluster)
    strangers = [Stranger(number) for number in range(STRANGERS)]
    flood = asyncio.gather(*(stranger.insist(cluster) for stranger in strangers))
    await eventually(lambda: len(turned_away(strangers)) > STRANGERS, "many are turned away")

    # Who has a place comes in by another device, in the middle of it, and keeps it.
    other = await Guest.at(cluster.nodes[0].endpoint)
    last = await other.log_in(f"member-{MEMBERS - 1}")
    assert last.tid == tickets[-1].tid
    await other.stream(last)
    members[-1], tickets[-1] = other, last
    cluster.redis.hset(keys.PORTAL_CONFIG, "totalRate", RATE)
    await asyncio.gather(*(guest.hear(QueueReady) for guest in members))
    signed_in = [await guest.finalize(ticket) for guest, ticket in zip(members, tickets, strict=True)]

    flood.cancel()
    assert all(guest.all(QueueUpdate) for guest in members[-MEMBERS // 4 :]), "who waited for 4 s heard of it"
    assert [each.user_id for each in signed_in] == [f"member-{number}" for number in range(MEMBERS)]
    found = [cluster.redis.hgetall(keys.ticket(ticket.tid)) for ticket in tickets]
    the_order_was_kept([(int(each["issuedAt"]), int(each["readyAt"])) for each in found])
    full = turned_away(strangers)
    assert {refused.status for refused in full} == {503}
    waits_ms = [refused.retry_after_ms or 0 for refused in full]
    assert min(waits_ms) >= 1000
    assert max(waits_ms) <= LONGEST_MS
    for guest in members:
        guest.leave()


def turned_away(strangers: Sequence[Stranger]) -> list[RequestFailed]:
    """The refusals of those who found the room full."""
    refusals = [refused for stranger in strangers for refused in stranger.refusals]
    return [refused for refused in refusals if refused.code == "QUEUE_FULL"]


async def members_of(cluster: Cluster) -> tuple[list[Guest], list[Pass]]:
    """As many as the room takes, each with a ticket that is streamed."""
    members = [await Guest.at(cluster.nodes[number % 2].endpoint) for number in range(MEMBERS + 1)]
    tickets = []
    for number, guest in enumerate(members, start=-1):
        name = f"member-{number}"
        await guest.register(name)
        tickets.append(await guest.log_in(name))
        await guest.stream(tickets[-1])
        if number < 0:  # the first one is let in at once
            await guest.hear(QueueReady)
    return members[1:], tickets[1:]
