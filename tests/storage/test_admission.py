"""How many are let in: what is configured, what operators say over it, and what is written down of that."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from protocol.envelope import Address
from protocol.messages.waiting import TicketStatus
from storage import keys
from storage.admission import OPENING_KEPT_S, AdmissionSettings, Change, Settings
from storage.connections import connect
from storage.holders import Entrance
from storage.tickets import Asker, Place, Record, Tickets, Tier

TTL_S = 900.0


@dataclass(frozen=True)
class Door:
    """The settings, and a waiting room that goes by them."""

    redis: Redis
    settings: AdmissionSettings
    tickets: Tickets

    async def come(self, user_id: str, connection_id: int = 1, tier: Tier = Tier.NORMAL) -> Place:
        place = (f"tid-{user_id}", f"client-{user_id}")
        asker = Asker(Address("SOCK001", connection_id), connection_id)
        return await self.tickets.issue(
            place, user_id, asker, Entrance(), 100, Record(f"login {user_id}", 60), tier
        )

    async def admitted(self) -> int:
        """How many come in at this very moment."""
        return len((await self.tickets.admit(100, 60)).admitted)

    async def fields(self) -> dict[str, str]:
        found: dict[Any, Any] = await self.redis.hgetall(keys.PORTAL_CONFIG)
        return {name.decode(): value.decode() for name, value in found.items()}

    async def audited(self) -> list[str]:
        """The lines of the audit log, the oldest first, without their times."""
        found: list[Any] = await self.redis.lrange(keys.AUDIT_LOGS, 0, -1)
        lines = [line.decode() for line in found]
        assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\|", line) for line in lines)
        assert all(line.count("|") == 5 for line in lines)
        return [line.partition("|")[2] for line in reversed(lines)]


@pytest.fixture
async def door(redis_url: str) -> AsyncIterator[Door]:
    async with connect(redis_url) as redis:
        yield Door(redis, AdmissionSettings(redis), Tickets(redis, TTL_S))


async def test_what_is_configured_holds_where_nobody_said_anything(door: Door) -> None:
    await door.settings.configure(200, 3)
    assert await door.fields() == {
        "admitRate": "200", "podCount": "3", "waitFactor": "2.0", "totalRate": "600",
    }  # fmt: skip
    await door.settings.configure(7, 2)
    assert await door.settings.show() == Settings(14, 14, 14, None, 2, False, None, None)
    assert await door.audited() == []


async def test_nothing_is_set_before_the_first_worker_comes(door: Door) -> None:
    now = await door.settings.show()
    assert now == Settings(0, 0, 0, None, 0, False, None, None)
    assert now.pod_rate is None


async def test_what_an_operator_sets_is_not_overruled_by_what_is_configured(door: Door) -> None:
    await door.settings.configure(200, 3)
    assert await door.settings.set_rate(900, "kim") == Change(True, 600, 900)
    await door.settings.configure(100, 4)
    now = await door.settings.show()
    assert (now.rate, now.total_rate, now.configured_rate, now.operator_rate) == (900, 900, 400, 900)
    assert (now.pod_rate, now.paused, now.set_by) == (225, False, "kim")
    assert await door.tickets.total_rate() == 900


async def test_a_rate_set_before_the_first_worker_comes_holds(door: Door) -> None:
    assert await door.settings.set_rate(900, "kim") == Change(True, 0, 900)
    await door.settings.configure(200, 3)
    assert await door.tickets.total_rate() == 900


async def test_a_pause_outlasts_workers_that_come(door: Door) -> None:
    await door.settings.configure(200, 3)
    assert await door.settings.pause("kim") == Change(True, 600, 0)
    await door.settings.configure(200, 3)
    assert await door.tickets.total_rate() == 0
    now = await door.settings.show()
    assert (now.rate, now.total_rate, now.paused) == (600, 0, True)
    assert await door.settings.resume("lee") == Change(True, 0, 600)
    assert await door.tickets.total_rate() == 600


async def test_after_a_pause_alone_it_is_configuration_that_says_how_many(door: Door) -> None:
    await door.settings.configure(200, 3)
    await door.settings.pause("kim")
    await door.settings.configure(100, 3)
    await door.settings.resume("kim")
    assert await door.tickets.total_rate() == 300
    await door.settings.configure(50, 3)
    assert await door.tickets.total_rate() == 150


async def test_a_rate_set_during_a_pause_waits_for_its_end(door: Door) -> None:
    await door.settings.configure(200, 3)
    await door.settings.pause("kim")
    assert await door.settings.set_rate(60, "lee") == Change(True, 600, 60)
    assert await door.tickets.total_rate() == 0
    assert await door.settings.resume("kim") == Change(True, 0, 60)
    assert await door.tickets.total_rate() == 60


async def test_pausing_and_resuming_twice_changes_and_audits_once(door: Door) -> None:
    await door.settings.configure(200, 3)
    assert await door.settings.resume("kim") == Change(False, 600, 600)
    await door.settings.pause("kim")
    assert await door.settings.pause("lee") == Change(False, 0, 0)
    assert (await door.settings.show()).set_by == "kim"
    await door.settings.resume("kim")
    assert await door.settings.resume("lee") == Change(False, 600, 600)
    assert len(await door.audited()) == 2


async def test_each_change_is_audited_with_what_was_before(door: Door) -> None:
    await door.settings.configure(60, 3)
    await door.settings.set_rate(600, "kim")
    await door.settings.pause("le|e\n")
    await door.settings.set_rate(120, "kim")
    await door.settings.resume("")
    assert await door.audited() == [
        "kim|admission:rate|queue:portal:180->600|ALLOWED|lobbyctl",
        "le%7Ce%0A|admission:pause|queue:portal:600->0|ALLOWED|lobbyctl",
        "kim|admission:rate|queue:portal:600->120|ALLOWED|lobbyctl",
        "?|admission:resume|queue:portal:0->120|ALLOWED|lobbyctl",
    ]
    newest: Any = await door.redis.lindex(keys.AUDIT_LOGS, 0)
    assert newest.decode().partition("|")[0] == (await door.settings.show()).set_at


async def test_the_audit_log_is_bounded(door: Door) -> None:
    for _ in range(10):
        await door.redis.rpush(keys.AUDIT_LOGS, *["2024-01-01T00:00:00Z|a|b|c|d|e"] * 1_000)
    await door.settings.set_rate(1, "kim")
    assert await door.redis.llen(keys.AUDIT_LOGS) == 10_000
    assert (await door.audited())[-1].startswith("kim|")


@pytest.mark.parametrize("broken", [keys.PORTAL_CONFIG, keys.AUDIT_LOGS, keys.AUDIT_PENDING])
async def test_what_refuses_has_written_nothing(door: Door, broken: str) -> None:
    await door.settings.configure(60, 3)
    await door.redis.delete(broken)
    await door.redis.set(broken, "neither a hash nor a list")
    before = {name: await door.redis.dump(name) for name in await door.redis.keys()}
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await door.settings.pause("kim")
    assert {name: await door.redis.dump(name) for name in await door.redis.keys()} == before


async def test_the_admission_goes_by_what_is_set_at_each_call(door: Door) -> None:
    await door.settings.configure(6_000_000, 1)
    for number in range(30):
        await door.come(f"user-{number}")
    await door.settings.pause("kim")
    assert await door.admitted() == 0
    await door.settings.set_rate(6, "kim")
    await door.settings.resume("kim")
    assert await door.admitted() == 1
    await door.settings.set_rate(60_000_000, "kim")
    await door.redis.hset(keys.PORTAL_BUCKET, "at", 0)  # as if time had passed
    assert await door.admitted() == 29


async def test_a_rate_is_given_back_to_what_is_configured(door: Door) -> None:
    await door.settings.configure(200, 3)
    await door.settings.set_rate(900, "kim")
    assert await door.settings.set_rate(None, "kim") == Change(True, 900, 600)
    assert (await door.settings.show()).operator_rate is None
    assert await door.tickets.total_rate() == 600
    await door.settings.configure(100, 3)
    assert await door.tickets.total_rate() == 300, "configuration says how many again"
    await door.settings.set_rate(900, "kim")
    await door.settings.pause("kim")
    await door.settings.set_rate(None, "lee")
    assert await door.settings.resume("kim") == Change(True, 0, 300)
    assert (await door.audited())[-2] == "lee|admission:rate|queue:portal:900->300|ALLOWED|lobbyctl"


async def test_a_place_is_the_one_that_the_player_is_told(door: Door) -> None:
    """Before those who have waited longer it is the ageing that bounds it, and not the rank alone."""
    await door.settings.configure(60, 1)
    for number in range(3):
        await door.come(f"normal-{number}")
    told = await door.come("vip", tier=Tier.VIP)
    vip = await door.settings.standing("vip")
    assert vip is not None
    assert (vip.position, vip.total_waiting, vip.wait_s) == (told.position, 4, None)
    assert vip.position > 1


async def test_an_opening_is_told_to_operators(door: Door) -> None:
    seconds, _ = await door.redis.time()
    await door.settings.configure(60, 1, 2.0, (int(seconds) + 3600) * 1000)
    await door.come("ada")
    now, ada = await door.settings.show(), await door.settings.standing("ada")
    assert ada is not None
    assert now.opens_at is not None
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", now.opens_at)
    assert (ada.opens_at, ada.position, ada.wait_s) == (now.opens_at, 1, None)
    await door.settings.configure(60, 1, 2.0, int(seconds) * 1000)
    assert (await door.settings.show()).opens_at is None


async def test_who_has_no_ticket_stands_nowhere(door: Door) -> None:
    assert await door.settings.standing("ada") is None
    place = await door.come("ada")
    await door.redis.delete(keys.ticket(place.tid))
    assert await door.settings.standing("ada") is None


async def test_where_somebody_stands_who_waits(door: Door) -> None:
    for number, user_id in enumerate(["ada", "bob", "eve"], start=1):
        place = await door.come(user_id, number)
        if user_id == "bob":
            await door.tickets.stream(place.tid, place.client_id, Asker(Address("SOCK002", 7), 9))
    ada, bob = await door.settings.standing("ada"), await door.settings.standing("bob")
    assert ada is not None
    assert bob is not None
    assert (ada.position, ada.total_waiting, ada.status, ada.node) == (1, 3, TicketStatus.PENDING, None)
    assert (bob.position, bob.total_waiting, bob.node, bob.deadline_s) == (2, 3, "SOCK002", None)
    assert bob.tier == "NORMAL"
    assert 0 <= bob.unseen_s <= bob.since_issue_s
    assert 0 < bob.kept_s <= TTL_S


async def test_where_somebody_stands_whose_turn_it_is(door: Door) -> None:
    await door.settings.configure(60, 1)
    await door.come("ada")
    assert await door.admitted() == 1
    ada = await door.settings.standing("ada")
    assert ada is not None
    assert (ada.status, ada.position, ada.total_waiting) == (TicketStatus.READY, 0, 0)
    assert ada.deadline_s is not None
    assert 0 < ada.deadline_s <= 60


async def test_where_somebody_stands_who_was_passed_over(door: Door) -> None:
    await door.settings.configure(60, 1)
    gone, there = await door.come("gone", 1), await door.come("there", 2)
    for number, place in enumerate([gone, there], start=1):
        asker = Asker(Address("SOCK001", number), number)
        await door.tickets.stream(place.tid, place.client_id, asker)
    await door.tickets.leave([(gone.tid, Address("SOCK001", 1))])
    assert await door.admitted() == 1
    gone_now, there_now = await door.settings.standing("gone"), await door.settings.standing("there")
    assert gone_now is not None
    assert there_now is not None
    assert (gone_now.is_passed_over, gone_now.status, gone_now.node) == (True, TicketStatus.PENDING, None)
    assert not there_now.is_passed_over


async def test_a_share_of_the_rate_is_let_in_whatever_the_operator_does_meanwhile(door: Door) -> None:
    await door.settings.configure(300, 2)
    assert await door.settings.open(0.5, "game_queue:normal") == 300
    assert await door.settings.opening() == (0.5, "game_queue:normal")
    await door.settings.set_rate(1000, "yuna")
    assert await door.settings.current() == 500
    await door.settings.pause("yuna")
    assert await door.settings.open(0.0, "worse") == 0
    await door.settings.resume("yuna")
    assert await door.settings.current() == 0
    await door.settings.configure(300, 2)
    assert await door.settings.current() == 0
    assert await door.settings.open(1.0, "") == 1000
    assert await door.settings.opening() == (1.0, "")


async def test_a_door_that_nobody_keeps_closed_any_more_opens(door: Door) -> None:
    await door.settings.configure(300, 2)
    await door.settings.open(0.0, "game_queue:normal")
    said_ms = int((await door.fields())["openingAt"])
    lapsed_ms = said_ms - int(OPENING_KEPT_S * 1000)
    await door.redis.hset(keys.PORTAL_CONFIG, "openingAt", str(lapsed_ms + 20_000))
    assert await door.settings.current() == 0
    await door.redis.hset(keys.PORTAL_CONFIG, "openingAt", str(lapsed_ms - 1))
    assert await door.settings.current() == 600
    assert await door.settings.opening() == (1.0, "")


async def test_where_nothing_is_set_nothing_is_in_force(door: Door) -> None:
    assert await door.settings.current() == 0
    assert await door.settings.opening() == (1.0, "")
