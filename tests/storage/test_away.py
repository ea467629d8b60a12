"""Who loses the connection keeps the place: passed over meanwhile, and let in at once when back in time."""

import pytest

from protocol.envelope import Address
from protocol.messages.waiting import TicketStatus
from storage import keys
from storage.holders import Entrance
from storage.nodes import Nodes
from storage.sessions import NotReady
from storage.tickets import Admission, Asker, Ended, Place, Tier
from tests.storage.room import MANY, TTL_S, Room


async def come(room: Room, user_id: str, server_id: str = "SOCK001", number: int | None = None) -> Place:
    """A user who streams the ticket."""
    asker = room.asker(number, server_id)
    place = await room.login(user_id, asker)
    await room.tickets.stream(place.tid, place.client_id, asker)
    return place


async def owner_of(room: Room, place: Place) -> Address:
    return Address.parse((await room.look()).tickets[place.tid]["owner"])


async def leave(room: Room, *places: Place) -> None:
    """Lose the connections that stream these tickets."""
    pairs = [(place.tid, await owner_of(room, place)) for place in places]
    assert await room.tickets.leave(pairs) == len(places)


async def back(room: Room, place: Place, asker: Asker | None = None) -> Place:
    return await room.tickets.stream(place.tid, place.client_id, asker or room.asker(server_id="SOCK002"))


def ids(outcome: Admission) -> list[str]:
    return [admitted.tid for admitted in outcome.admitted]


async def the_ledger_holds(room: Room) -> dict[str, float]:
    ledger = await room.tickets.ledger()
    parts = ("waiting", "ready", "consumed", "cancelled", "expired")
    assert ledger["issued"] == sum(ledger[part] for part in parts)
    return ledger


# Whose turn comes meanwhile.


async def test_who_is_away_is_passed_over_and_the_next_one_has_the_turn(room: Room) -> None:
    await room.settings.configure(60, 1)
    gone, there, last = [await come(room, name) for name in ("gone", "there", "last")]
    await leave(room, gone)

    assert ids(await room.admit()) == [there.tid]

    seen = await room.look()
    assert (seen.status(gone.tid), seen.waiting) == ("PENDING", [last.tid])
    assert (
        await the_ledger_holds(room) | {"waiting": 2, "ready": 1, "issued": 3} == await room.tickets.ledger()
    )


async def test_who_is_back_by_another_node_is_the_next(room: Room) -> None:
    gone, there = await come(room, "gone"), await come(room, "there")
    await leave(room, gone)
    assert ids(await room.admit()) == [there.tid]
    await come(room, "later")
    await room.settings.configure(60, 1)
    await room.pass_time(11)
    asker = room.asker(server_id="SOCK002")

    place = await back(room, gone, asker)

    assert (place.status, place.position, place.total_waiting) == (TicketStatus.PENDING, 1, 2)
    outcome = await room.admit()
    assert [(each.tid, each.owner) for each in outcome.admitted] == [(gone.tid, asker.address)]
    await room.finalize(gone, "gone", asker)
    await the_ledger_holds(room)


async def test_who_logs_in_on_another_device_is_the_next(room: Room) -> None:
    gone, _ = await come(room, "gone"), await come(room, "there")
    await leave(room, gone)
    await room.admit()
    later = await come(room, "later")

    place = await room.login("gone")

    assert (place.tid, place.status, place.position) == (gone.tid, TicketStatus.PENDING, 1)
    assert ids(await room.admit()) == [gone.tid, later.tid]


async def test_who_is_back_before_the_turn_has_missed_nothing(room: Room) -> None:
    first, gone, last = [await come(room, name) for name in ("first", "gone", "last")]
    await leave(room, gone)
    await back(room, gone)
    assert ids(await room.admit()) == [first.tid, gone.tid, last.tid]


async def test_who_never_streamed_has_the_turn_like_anybody(room: Room) -> None:
    places = await room.crowd(2)
    assert ids(await room.admit()) == [place.tid for place in places]


async def test_a_long_row_of_the_away_holds_nobody_up(room: Room) -> None:
    await room.settings.configure(60, 1)
    gone = [await come(room, f"gone-{number}") for number in range(25)]
    there = await come(room, "there")
    await leave(room, *gone)
    for _ in range(2):
        outcome = await room.admit(most=10)
        assert (outcome.admitted, outcome.pause_s) == ([], 0.0)
    assert ids(await room.admit(most=10)) == [there.tid]


async def test_those_who_are_back_come_before_their_tier_and_in_their_order(room: Room) -> None:
    gone = [await come(room, f"gone-{number}") for number in range(3)]
    await leave(room, *gone)
    await room.admit()
    later = await come(room, "later")
    vip = await room.tickets.issue(
        room.place(), "vip", room.asker(), Entrance(), MANY, room.record(), Tier.VIP
    )
    for place in (gone[2], gone[0]):
        await back(room, place)
    # Of two places one goes to whoever has waited longest.
    assert ids(await room.admit()) == [vip.tid, gone[0].tid, gone[2].tid, later.tid]


async def test_a_return_makes_no_place_worse_that_was_told(room: Room) -> None:
    await room.settings.configure(6, 1)
    gone, there = await come(room, "gone"), await come(room, "there")
    await leave(room, gone)
    assert ids(await room.admit()) == [there.tid]
    asker = room.asker()
    later = await room.login("later", asker)
    assert (await room.tickets.stream(later.tid, later.client_id, asker)).position == 1

    await back(room, gone)

    walk = await room.tickets.survey(0, MANY, 0, 0)
    told = {update.owner: (update.position, update.reason) for update in walk.updates}
    assert told[asker.address] == (1, None)
    assert (await room.tickets.stream(later.tid, later.client_id, asker)).position == 1


async def test_places_of_the_away_are_open_to_others_at_the_door(room: Room) -> None:
    gone = await come(room, "gone")
    await leave(room, gone)
    await room.admit()
    assert (await room.login("new", most_waiting=1)).position == 1


# For how long.


async def test_the_place_is_kept_for_the_tickets_life_from_the_loss_on(room: Room) -> None:
    gone, forgotten = await come(room, "gone"), await come(room, "forgotten")
    await room.pass_time(TTL_S - 60)
    await leave(room, gone, forgotten)
    await room.admit()
    await room.pass_time(TTL_S - 60)
    assert (await room.admit()).expired == []
    assert (await back(room, gone)).position == 1
    await room.pass_time(61)
    outcome = await room.admit()
    assert (ids(outcome), outcome.expired) == ([gone.tid], [Ended(forgotten.tid, None, "ABANDONED")])
    assert (await room.login("forgotten")).tid != forgotten.tid
    assert (await the_ledger_holds(room))["expired"] == 1
    assert not await room.redis.exists(keys.PORTAL_AWAY)


async def test_who_is_passed_over_can_cancel_but_not_finalize(room: Room) -> None:
    gone = await come(room, "gone")
    await leave(room, gone)
    await room.admit()
    with pytest.raises(NotReady):
        await room.finalize(gone, "gone")
    await room.tickets.cancel(gone.tid, gone.client_id, "gone", room.record())
    assert (await the_ledger_holds(room))["cancelled"] == 1
    assert not await room.redis.exists(keys.PORTAL_AWAY)


# READY and lost.


async def test_who_was_ready_and_lost_the_connection_keeps_the_place_but_not_the_slot(room: Room) -> None:
    await room.settings.configure(1, 1)
    lost, there = await come(room, "lost"), await come(room, "there")
    assert ids(await room.admit()) == [lost.tid]
    await leave(room, lost)
    await room.pass_time(60.1)

    outcome = await room.admit()

    assert (ids(outcome), outcome.expired) == ([there.tid], [])
    assert (await back(room, lost)).status is TicketStatus.PENDING
    await room.pass_time(61)
    assert ids(await room.admit()) == [lost.tid]
    await room.finalize(lost, "lost")
    await the_ledger_holds(room)


async def test_who_was_ready_and_is_back_in_time_finalizes(room: Room) -> None:
    lost = await come(room, "lost")
    assert ids(await room.admit()) == [lost.tid]
    await leave(room, lost)
    assert (await back(room, lost)).status is TicketStatus.READY
    await room.finalize(lost, "lost")


async def test_who_is_ready_and_connected_and_does_not_come_loses_the_place(room: Room) -> None:
    idle = await come(room, "idle")
    owner = await owner_of(room, idle)
    await room.admit()
    await room.pass_time(60.1)
    assert (await room.admit()).expired == [Ended(idle.tid, owner, "FINALIZE_DEADLINE")]


# Who says so.


async def test_a_connection_that_streams_no_more_cannot_leave(room: Room) -> None:
    place = await come(room, "ada")
    old = await owner_of(room, place)
    await back(room, place)
    assert await room.tickets.leave([(place.tid, old)]) == 0
    assert ids(await room.admit()) == [place.tid]


async def test_who_left_is_not_seen_by_the_same_connection_again(room: Room) -> None:
    place = await come(room, "ada")
    owner = await owner_of(room, place)
    await leave(room, place)
    assert await room.tickets.touch([(place.tid, owner)]) == 0
    assert await room.tickets.leave([(place.tid, owner)]) == 0
    assert ids(await room.admit()) == []


async def test_a_node_takes_its_connections_with_it_and_not_those_of_its_next_life(room: Room) -> None:
    nodes = Nodes(room.redis)
    await nodes.lives("SOCK001", 1000)
    gone = await come(room, "gone", number=1001)
    other = await come(room, "other", server_id="SOCK002", number=1)
    await nodes.is_gone("SOCK001")
    assert ids(await room.admit()) == [other.tid]
    first = await room.now_ms() * 2**20
    await nodes.lives("SOCK001", first)
    await back(room, gone, room.asker(first + 1))
    assert ids(await room.admit()) == [gone.tid]


async def test_a_node_that_only_stood_still_has_its_players_back_in_line(room: Room) -> None:
    nodes = Nodes(room.redis)
    assert not await nodes.lives("SOCK001", 1000)
    assert await nodes.lives("SOCK001", 1000)
    gone, later = await come(room, "gone", number=1001), await come(room, "later", "SOCK002", 7)
    await nodes.is_gone("SOCK001")
    assert ids(await room.admit(most=2)) == [later.tid]
    assert not await nodes.lives("SOCK001", 1000)
    assert await room.tickets.touch([(gone.tid, Address("SOCK001", 1001))]) == 1
    assert ids(await room.admit()) == [gone.tid]


async def test_who_was_ready_at_a_node_that_died_keeps_the_place(room: Room) -> None:
    nodes = Nodes(room.redis)
    lost = await come(room, "lost", number=1001)
    assert ids(await room.admit()) == [lost.tid]
    await nodes.is_gone("SOCK001")
    await room.pass_time(60.1)
    assert (await room.admit()).expired == []
    assert (await back(room, lost)).position == 1
    assert ids(await room.admit()) == [lost.tid]
