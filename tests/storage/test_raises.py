"""Who is raised goes before others of their tier; nobody who is passed is told a place that cannot be."""

from collections.abc import AsyncIterator

import pytest

from protocol.envelope import Address
from storage import keys
from storage.holders import Entrance
from storage.raises import Raises
from storage.tickets import Asker, Place, Tier
from tests.storage.room import MANY, TTL_S, Room, open_room


@pytest.fixture
async def room(redis_url: str) -> AsyncIterator[Room]:
    async with open_room(redis_url) as opened:
        yield opened


@pytest.fixture
def raises(room: Room) -> Raises:
    return Raises(room.redis, TTL_S)


async def told(room: Room, place: Place, asker: Asker) -> tuple[int, str | None]:
    """What a walk tells a ticket that streams."""
    updates = (await room.tickets.survey(0, MANY, 0, 0)).updates
    return next((each.position, each.reason) for each in updates if each.owner == asker.address)


async def streaming(room: Room, user_id: str, tier: Tier = Tier.NORMAL) -> tuple[Place, Asker]:
    asker = room.asker()
    place = await room.login(user_id, asker, tier=tier)
    await room.tickets.stream(place.tid, place.client_id, asker)
    return place, asker


async def test_who_is_raised_goes_before_their_tier_and_nobody_of_a_higher_one(
    room: Room, raises: Raises
) -> None:
    vip, premium = await room.login("vip", tier=Tier.VIP), await room.login("first", tier=Tier.PREMIUM)
    normal, ada = await room.login("normal"), await room.login("ada")
    late = await room.login("late", tier=Tier.PREMIUM)
    assert await raises.grant("ada", room.record())
    waiting = (await room.look()).waiting
    assert waiting == [each.tid for each in (vip, premium, ada, late, normal)]
    assert (await room.look()).tickets[ada.tid]["tier"] == "PREMIUM"


async def test_who_is_passed_is_told_why(room: Room, raises: Raises) -> None:
    await room.crowd(4)
    ada, adas = await streaming(room, "ada")
    premium, premiums = await streaming(room, "premium", Tier.PREMIUM)
    before, _ = await told(room, ada, adas)
    first, reason = await told(room, premium, premiums)
    assert reason is None
    await raises.grant("ada", room.record())
    second, reason = await told(room, premium, premiums)
    assert second > first
    assert reason == "HIGHER_TIER"
    position, reason = await told(room, ada, adas)
    assert position < before
    assert reason is None


async def test_a_raise_is_granted_once_for_each_record(room: Room, raises: Raises) -> None:
    await room.login("ada")
    record = room.record()
    assert [await raises.grant("ada", record) for _ in range(2)] == [True, True]
    assert (await room.look()).count("raised") == 1
    assert not await raises.grant("ada", room.record()), "she is where she can be"
    assert (await room.look()).count("raised") == 1


async def test_who_comes_while_it_lasts_comes_raised(room: Room, raises: Raises) -> None:
    normal = await room.login("normal")
    assert not await raises.grant("ada", room.record())
    ada = await room.login("ada")
    assert (await room.look()).waiting == [ada.tid, normal.tid]
    vip = await room.login("bora", tier=Tier.VIP)
    await raises.grant("bora", room.record())
    assert (await room.look()).tickets[vip.tid]["tier"] == "VIP"
    await raises.grant("carl", room.record())
    await room.pass_time(TTL_S + 1)
    carl = await room.login("carl")
    assert (await room.look()).tickets[carl.tid]["tier"] == "NORMAL"


async def test_who_lost_the_connection_comes_back_raised(room: Room, raises: Raises) -> None:
    ada, adas = await streaming(room, "ada")
    await room.tickets.leave([(ada.tid, adas.address)])
    await room.pass_time(10.1)
    assert await room.admit_ids() == []
    assert ada.tid in (await room.look()).away
    normal, premium = await room.login("normal"), await room.login("premium", tier=Tier.PREMIUM)
    assert await raises.grant("ada", room.record())
    await room.tickets.stream(ada.tid, ada.client_id, Asker(Address("SOCK001", 99), adas.sent_ms + 1))
    assert (await room.look()).waiting == [ada.tid, premium.tid, normal.tid]


async def test_what_is_over_is_not_raised(room: Room, raises: Raises) -> None:
    ada = await room.login("ada")
    await room.tickets.cancel(ada.tid, ada.client_id, "ada", room.record())
    assert not await raises.grant("ada", room.record())
    seen = await room.look()
    assert (seen.status(ada.tid), seen.tickets[ada.tid]["tier"]) == ("CANCELLED", "NORMAL")
    assert seen.count("raised") == 0
    ledger = await room.tickets.ledger()
    assert ledger["issued"] == ledger["cancelled"] == 1


async def test_what_is_told_of_a_raised_ticket_is_not_measured_by_its_old_place(
    room: Room, raises: Raises
) -> None:
    place = await room.tickets.issue(room.place(), "ada", room.asker(), Entrance(), MANY, room.record())
    await room.redis.hset(keys.ticket(place.tid), mapping={"estimatedAt": 1, "due": 2})
    await raises.grant("ada", room.record())
    assert not {"estimatedAt", "due"} & (await room.look()).tickets[place.tid].keys()
