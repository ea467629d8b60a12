"""Users are told what happens at the node where each is, and only while they are there."""

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import pytest

from protocol.connection import event_frame
from protocol.envelope import Address, Delivery, Join, Leave
from protocol.messages.auth import Logout
from protocol.messages.waiting import QueueReady
from storage import keys
from storage.connections import connect_wire
from storage.queues import Outbox
from storage.whereabouts import Whereabouts
from storage.wire import Wire
from tests.system.cluster import Cluster, eventually
from tests.system.guest import Guest
from workers.telling import Telling

pytestmark = pytest.mark.servers


def event(tid: str) -> QueueReady:
    """Something to be told."""
    return QueueReady(tid=tid, finalize_deadline_sec=1)


@pytest.fixture
async def wire(town: Cluster) -> AsyncIterator[Wire]:
    wire = connect_wire(str(town.settings["redis.url"]))
    yield wire
    await wire.aclose()


@pytest.fixture
async def outbox(wire: Wire) -> AsyncIterator[Outbox]:
    outbox = Outbox(wire)
    running = asyncio.create_task(outbox.run())
    yield outbox
    running.cancel()


@pytest.fixture
def telling(wire: Wire, outbox: Outbox) -> Telling:
    return Telling(Whereabouts(wire), outbox)


async def signed_in(town: Cluster, number: int, name: str) -> Guest:
    """A new user at one of the nodes, who has heard what belongs to the sign-in."""
    guest = await Guest.at(town.endpoints[number])
    await guest.sign_up(name)
    guest.heard.clear()
    return guest


def where(town: Cluster, name: str) -> Address | None:
    """Where the session says that a user is."""
    session = cast("dict[str, str]", town.redis.hgetall(keys.session(name)))
    return Address(session["serverId"], int(session["connectionId"])) if "serverId" in session else None


async def test_each_is_told_at_their_own_node(town: Cluster, telling: Telling, name: str) -> None:
    guests = [await signed_in(town, number, f"{name}-{number}") for number in range(2)]
    for number in range(2):
        telling.tell(f"{name}-{number}", event(f"for {number}"))
    telling.tell("who-never-was", event("for nobody"))
    for number, guest in enumerate(guests):
        assert (await guest.hear(QueueReady)).tid == f"for {number}"
        await guest.is_served()
        assert len(guest.all(QueueReady)) == 1
        guest.leave()


async def test_who_leaves_is_nowhere_and_who_comes_back_is_found(
    town: Cluster, telling: Telling, wire: Wire, name: str
) -> None:
    guest = await signed_in(town, 0, name)
    tokens = await guest.sign_in(name)
    guest.leave()
    await eventually(lambda: where(town, name) is None, "the session has no connection")
    assert await Whereabouts(wire).of({name}) == {}

    back = await Guest.at(town.endpoints[1])
    await back.resume(tokens.access_token)
    telling.tell(name, event("welcome back"))
    assert (await back.hear(QueueReady)).tid == "welcome back"
    back.leave()


async def test_an_old_connection_s_end_does_not_lose_the_newer(town: Cluster, wire: Wire, name: str) -> None:
    old = await signed_in(town, 0, name)
    left = where(town, name)
    assert left is not None
    new = await Guest.at(town.endpoints[1])
    await new.sign_in(name)
    await old.gone()
    await Whereabouts(wire).left([(name, left)])
    here = (await Whereabouts(wire).of({name}))[name]
    assert here.server_id == "SOCK002"
    new.leave()


async def test_what_is_for_a_user_does_not_reach_who_has_the_connection_by_now(
    town: Cluster, outbox: Outbox, name: str
) -> None:
    guest = await signed_in(town, 0, name)
    address = where(town, name)
    assert address is not None
    frame = event_frame(event("for somebody else"))
    outbox.deliver(address.server_id, Delivery(address.connection_id, frame, user_id="somebody-else"))
    outbox.deliver(
        address.server_id, Delivery(address.connection_id, event_frame(event("for you")), user_id=name)
    )
    assert (await guest.hear(QueueReady)).tid == "for you"
    guest.leave()


async def test_what_is_quicker_than_the_answer_to_a_sign_in_is_heard_after_it(
    town: Cluster, outbox: Outbox, name: str
) -> None:
    """A session can be found before its connection knows of it."""
    guest = await Guest.at(town.endpoints[0])
    first = await guest.sign_up(name)
    address = where(town, name)
    assert address is not None
    await guest.ask(Logout(refresh_token=first.refresh_token))
    other = await Guest.at(town.endpoints[1])
    tokens = await other.sign_up(f"{name}-b")
    guest.heard.clear()

    def tell(tid: str, user_id: str | None) -> None:
        frame = event_frame(event(tid))
        outbox.deliver(address.server_id, Delivery(address.connection_id, frame, user_id=user_id))

    tell("for nobody who comes", f"{name}-b")
    tell("before", None)
    await guest.hear(QueueReady)
    workers = [town["login-1"], town["login-2"]]
    for worker in workers:
        worker.freeze()
    try:
        resuming = asyncio.create_task(guest.resume(tokens.access_token))
        await guest.is_served()
        tell("for another", name)
        tell("quick", f"{name}-b")
        tell("meanwhile", None)
        await guest.hear(QueueReady, 2)
    finally:
        for worker in workers:
            worker.thaw()
    assert (await resuming).user_id == f"{name}-b"
    tell("after", f"{name}-b")
    await guest.hear(QueueReady, 4)
    assert [each.tid for each in guest.all(QueueReady)] == ["before", "meanwhile", "quick", "after"]
    for each in (guest, other):
        each.leave()


async def test_a_topic_reaches_those_who_joined_it_on_every_node(
    town: Cluster, telling: Telling, outbox: Outbox, name: str
) -> None:
    guests = [await signed_in(town, number % 2, f"{name}-{number}") for number in range(5)]
    places = [where(town, f"{name}-{number}") for number in range(5)]
    for place in places[:4]:
        assert place is not None
        outbox.deliver(place.server_id, Delivery(place.connection_id, b"", change=Join("boards")))
    left = places[3]
    assert left is not None
    outbox.deliver(left.server_id, Delivery(left.connection_id, b"", change=Leave("boards")))
    await outbox.flushed()
    telling.broadcast("boards", event("news"))
    for guest in guests[:3]:
        assert (await guest.hear(QueueReady)).tid == "news"
    tokens = await guests[0].sign_in(f"{name}-0")
    await guests[0].ask(Logout(refresh_token=tokens.refresh_token))
    telling.broadcast("boards", event("more news"))
    assert (await guests[1].hear(QueueReady, 2)).tid == "more news"
    for guest in (guests[0], *guests[3:]):
        await guest.is_served()
        assert "more news" not in [heard.tid for heard in guest.all(QueueReady)]
    for guest in guests:
        guest.leave()
