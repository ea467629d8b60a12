"""The waiting room in motion: places told, turns come, deadlines pass, the abandoned are cleared away."""

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import pytest
from redis.asyncio import Redis

from protocol.messages.connection import Keepalive
from protocol.messages.waiting import Cancel, QueueExpired, QueueReady, QueueUpdate, TicketStatus
from storage import keys
from storage.tickets import Tickets
from tests.system.cluster import Cluster, eventually
from tests.system.guest import Guest, Pass

pytestmark = pytest.mark.servers


@pytest.fixture
async def come(cluster: Cluster) -> AsyncIterator["Crowd"]:
    """Players of the test's own cluster, once it is started."""
    crowd = Crowd(cluster)
    yield crowd
    for guest in crowd.guests:
        guest.leave()


class Crowd:
    """Makes players, each with an account, a ticket and, if wanted, a stream."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.guests: list[Guest] = []

    async def __call__(self, name: str, *, streams: bool = True) -> tuple[Guest, Pass]:
        guest = await self.with_account(name)
        ticket = await guest.log_in(name)
        if streams:
            await guest.stream(ticket)
        return guest, ticket

    async def with_account(self, name: str) -> Guest:
        """Somebody with an account, who has not logged in."""
        guest = await Guest.at(self._cluster.nodes[0].endpoint)
        self.guests.append(guest)
        await guest.register(name)
        return guest

    async def first(self) -> tuple[Guest, Pass]:
        """Somebody whose turn it is at once, before whoever comes next."""
        guest, ticket = await self("first")
        await guest.hear(QueueReady)
        return guest, ticket


def has_expired(cluster: Cluster, ticket: Pass) -> bool:
    """Whether the ticket is EXPIRED; for as long as a place is kept there is its hash to look at."""
    return cluster.redis.hget(keys.ticket(ticket.tid), "status") in ("EXPIRED", None)


def has_left(cluster: Cluster, ticket: Pass) -> bool:
    """Whether the ticket's connection is known to be gone."""
    return cluster.redis.hget(keys.ticket(ticket.tid), "streaming") == "left"


async def ledger(cluster: Cluster) -> dict[str, float]:
    """The ledger, which must hold."""
    redis = Redis.from_url(str(cluster.settings["redis.url"]))
    found = await Tickets(redis, 900).ledger()
    await redis.aclose()
    parts = ("waiting", "ready", "consumed", "cancelled", "expired")
    assert found["issued"] == sum(found[part] for part in parts), found
    return found


async def test_places_are_told_until_the_turn_comes(cluster: Cluster, come: Crowd) -> None:
    cluster.settings["login.admit_rate"] = 60
    cluster.start(logins=2)
    guests = [await come.with_account(f"player-{number}") for number in range(8)]
    begin_s = asyncio.get_running_loop().time()
    players = []
    for number, guest in enumerate(guests):
        players.append((guest, await guest.log_in(f"player-{number}")))
        await guest.stream(players[-1][1])
    guest, ticket = players[0]
    await guest.hear(QueueReady)
    assert (await guest.finalize(ticket)).access_token  # waits are told once somebody has come in

    await asyncio.gather(*(guest.hear(QueueReady) for guest, _ in players[1:]))

    waited_s = asyncio.get_running_loop().time() - begin_s
    readies = [ready for guest, _ in players for ready in guest.all(QueueReady)]
    assert [ready.tid for ready in readies] == [ticket.tid for _, ticket in players]
    assert all(30 < ready.finalize_deadline_sec <= 60 for ready in readies)
    for guest, ticket in players:
        fields = cast("dict[str, str]", cluster.redis.hgetall(keys.ticket(ticket.tid)))
        updates = guest.all(QueueUpdate)
        positions = [update.position for update in updates]
        assert positions == sorted(set(positions), reverse=True)
        for update in updates:
            wait_s, p90_s = update.estimated_wait_sec, update.estimated_wait_p90_sec
            assert (wait_s is None) == (p90_s is None)
            # Twice as fast where a worker that stood still has something to make good.
            assert wait_s is None or (update.position - 2) / 2 <= wait_s <= update.position
            assert p90_s is None or p90_s >= (wait_s or 0)
        assert all(1 <= update.position <= update.total_waiting <= 8 for update in updates)
        assert len(updates) <= waited_s / 1.9 + 1, "more than one update in 2 s"
        if int(fields["readyAt"]) - int(fields["issuedAt"]) > 6000:
            assert len(updates) >= 2, "too few updates for somebody who waited for 6 s"
            assert updates[-1].estimated_wait_sec is not None
    await asyncio.sleep(1.5)  # a second QUEUE_READY would come by now
    for guest, ticket in players:
        assert len(guest.all(QueueReady)) == 1
        if ticket is not players[0][1]:
            assert (await guest.finalize(ticket)).access_token
    ready_at = [int(cluster.redis.hget(keys.ticket(ticket.tid), "readyAt") or 0) for _, ticket in players]
    assert ready_at == sorted(ready_at)
    assert (await ledger(cluster))["consumed"] == 8


async def test_a_place_that_does_not_change_is_told_again(cluster: Cluster, come: Crowd) -> None:
    cluster.settings["login.admit_rate"] = 1
    cluster.start()
    await come.first()
    guest, _ = await come("second")

    told = await guest.hear(QueueUpdate)

    assert told == QueueUpdate(position=1, estimated_wait_sec=None, total_waiting=1)


async def test_a_deadline_that_passes_lets_the_next_one_in(cluster: Cluster, come: Crowd) -> None:
    cluster.settings |= {"login.admit_rate": 1, "login.finalize_deadline_s": 4}
    cluster.start(logins=2)
    late, late_ticket = await come("late")
    assert (await late.hear(QueueReady)).finalize_deadline_sec <= 4
    first, first_ticket = await come("first")
    second, second_ticket = await come("second")

    assert await late.hear(QueueExpired) == QueueExpired(tid=late_ticket.tid, reason="FINALIZE_DEADLINE")

    await first.hear(QueueReady)
    await first.finalize(first_ticket)
    await late.refused(late_ticket.finalize, "TICKET_NOT_FOUND")
    await late.refused(late_ticket.stream, "TICKET_NOT_FOUND")
    assert has_expired(cluster, late_ticket)
    assert (await second.stream(second_ticket)).status is TicketStatus.PENDING
    assert (await late.log_in("late")).tid != late_ticket.tid
    found = await ledger(cluster)
    assert (found["expired"], found["consumed"], found["waiting"]) == (1, 1, 2)


async def test_cancelling_a_ready_ticket_lets_the_next_one_in(cluster: Cluster, come: Crowd) -> None:
    cluster.settings["login.admit_rate"] = 1
    cluster.start()
    first, ticket = await come.first()
    second, _ = await come("second")
    third, third_ticket = await come("third")

    await first.ask(Cancel(tid=ticket.tid, client_id=ticket.client_id))

    await second.hear(QueueReady)
    assert (await third.stream(third_ticket)).position == 1
    found = await ledger(cluster)
    assert (found["cancelled"], found["ready"], found["waiting"]) == (1, 1, 1)


async def test_cancelling_a_waiting_ticket_moves_the_others_up(cluster: Cluster, come: Crowd) -> None:
    cluster.settings["login.admit_rate"] = 1
    cluster.start()
    await come.first()
    second, ticket = await come("second")
    third, third_ticket = await come("third")

    await second.ask(Cancel(tid=ticket.tid, client_id=ticket.client_id))

    update = await third.hear(QueueUpdate)
    assert (update.position, update.total_waiting) == (1, 1)
    assert (await third.stream(third_ticket)).position == 1


async def test_who_is_gone_loses_the_place_and_who_is_there_does_not(cluster: Cluster, come: Crowd) -> None:
    cluster.settings |= {"login.admit_rate": 1, "login.ticket_ttl_s": 3, "socketd.keepalive_s": 2}
    cluster.start()
    await come.first()
    there, there_ticket = await come("there")
    gone, gone_ticket = await come("gone")
    _, silent_ticket = await come("silent", streams=False)
    gone.leave()

    await eventually(lambda: has_expired(cluster, gone_ticket), "who is gone loses the ticket")
    await eventually(lambda: has_expired(cluster, silent_ticket), "who never streamed loses the ticket")

    assert not has_expired(cluster, there_ticket)
    await there.hear(Keepalive)
    assert (await there.stream(there_ticket)).position == 1
    assert there.all(QueueExpired) == []
    again = await there.log_in("gone")
    assert again.tid != gone_ticket.tid
    assert (await ledger(cluster))["expired"] == 2


async def test_who_comes_back_in_time_has_the_same_place(cluster: Cluster, come: Crowd) -> None:
    cluster.settings["login.admit_rate"] = 1
    cluster.start(nodes=2)
    await come.first()
    gone, ticket = await come("gone")
    await come("behind")
    gone.leave()

    back = await Guest.at(cluster["SOCK002"].endpoint)
    place = await back.stream(ticket)

    assert (place.status, place.position, place.total_waiting) == (TicketStatus.PENDING, 1, 2)
    back.leave()


async def test_whose_turn_comes_while_away_is_the_next_when_back(cluster: Cluster, come: Crowd) -> None:
    cluster.settings["login.admit_rate"] = 1
    cluster.start(nodes=2)
    first, first_ticket = await come.first()
    gone, gone_ticket = await come("gone")
    there, there_ticket = await come("there")
    await come("last")
    gone.leave()
    await eventually(lambda: has_left(cluster, gone_ticket), "the node tells who is gone")

    await first.ask(Cancel(tid=first_ticket.tid, client_id=first_ticket.client_id))

    await there.hear(QueueReady)
    assert (await ledger(cluster))["waiting"] == 2
    back = await Guest.at(cluster["SOCK002"].endpoint)
    place = await back.stream(gone_ticket)
    assert (place.status, place.position, place.total_waiting) == (TicketStatus.PENDING, 1, 2)
    await there.ask(Cancel(tid=there_ticket.tid, client_id=there_ticket.client_id))
    await back.hear(QueueReady)
    assert (await back.finalize(gone_ticket)).access_token
    assert (await ledger(cluster))["expired"] == 0
    back.leave()


@pytest.mark.parametrize("how", ["killed", "asked to end"])
async def test_who_was_at_a_node_that_is_gone_is_passed_over(cluster: Cluster, come: Crowd, how: str) -> None:
    """A killed node is taken for gone as soon as it is started again; one that ends says so."""
    cluster.settings["login.admit_rate"] = 1
    cluster.start(nodes=2)
    _, first_ticket = await come.first()
    _, gone_ticket = await come("gone")
    there = await Guest.at(cluster["SOCK002"].endpoint)
    await there.register("there")
    there_ticket = await there.log_in("there")
    await there.stream(there_ticket)

    if how == "killed":
        cluster["SOCK001"].kill()
        cluster.start_node(1)
    else:
        cluster["SOCK001"].end()
    asker = await Guest.at(cluster["SOCK002"].endpoint)
    await asker.ask(Cancel(tid=first_ticket.tid, client_id=first_ticket.client_id))

    await there.hear(QueueReady)
    # On another device, which knows the account and nothing of the ticket.
    again = await asker.log_in("gone")
    assert again.tid == gone_ticket.tid
    assert (await asker.stream(again)).position == 1
    assert (await ledger(cluster))["expired"] == 0
    there.leave()
    asker.leave()


async def test_a_node_that_was_frozen_for_too_long_brings_bad_news(cluster: Cluster, come: Crowd) -> None:
    cluster.settings |= {"login.admit_rate": 1, "login.ticket_ttl_s": 2}
    node = cluster.start()["SOCK001"]
    await come.first()
    guest, ticket = await come("second")
    node.freeze()
    await eventually(lambda: has_expired(cluster, ticket), "a ticket that nobody vouches for expires")

    node.thaw()

    assert await guest.hear(QueueExpired) == QueueExpired(tid=ticket.tid, reason="ABANDONED")


async def test_the_rate_holds_for_several_pods(cluster: Cluster) -> None:
    cluster.settings |= {"login.admit_rate": 7, "login.pod_count": 3}
    cluster.start(nodes=0, logins=2)

    config = cluster.redis.hgetall(keys.PORTAL_CONFIG)

    assert config == {"admitRate": "7", "podCount": "3", "waitFactor": "2.0", "totalRate": "21"}
