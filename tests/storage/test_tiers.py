"""Tiers of the waiting room: who is admitted before whom, and what that can cost the others."""

import asyncio
import itertools
import math
import random
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st

from protocol.envelope import Address
from storage import keys
from storage.admission import AdmissionSettings
from storage.connections import connect, connect_wire
from storage.holders import Entrance
from storage.tickets import Asker, Record, Tickets, Tier

DEADLINE_S = 600.0
ALL = 10_000_000
"""A rate a minute that lets through whatever is asked for at once."""


class Room:
    """A waiting room of its own, filled and emptied by tests."""

    def __init__(self, url: str, factor: float) -> None:
        self.wire = connect_wire(url)
        self._url = url
        self.tickets = Tickets(self.wire, 900.0, factor)
        self._number = itertools.count(1)

    async def open(self) -> None:
        async with connect(self._url) as redis:
            await redis.flushall()
        await AdmissionSettings(self.wire).configure(ALL, 1)

    async def close(self) -> None:
        await self.wire.aclose()

    async def arrive(self, tier: Tier) -> tuple[str, int]:
        """A player comes: the ticket and the position that they are told."""
        number = next(self._number)
        name = f"{tier.name.lower()}-{number}"
        asker = Asker(Address("SOCK001", number), number)
        place = await self.tickets.issue(
            (name, f"client-{number}"), name, asker, Entrance(), 1_000_000, Record(name, 60.0), tier
        )
        await self.tickets.stream(name, f"client-{number}", asker)
        return name, place.position

    async def admit(self, most: int) -> list[str]:
        """The next ones, in order."""
        admitted: list[str] = []
        while len(admitted) < most:
            outcome = await self.tickets.admit(most - len(admitted), DEADLINE_S)
            if not outcome.admitted:
                break
            admitted += [ticket.tid for ticket in outcome.admitted]
        return admitted


@dataclass
class Waiting:
    """What is known of one who waits; `told` is the position that binds, None once a higher tier came."""

    tier: Tier
    came_before: int
    told: int | None
    admissions: int = 0


async def test_tiers_go_first_and_arrival_decides_within_one(redis_url: str) -> None:
    room = Room(redis_url, factor=1000.0)
    await room.open()
    tiers = [Tier.NORMAL, Tier.VIP, Tier.PREMIUM, Tier.NORMAL, Tier.VIP, Tier.PREMIUM]
    names = [(await room.arrive(tier))[0] for tier in tiers]
    order = sorted(names, key=lambda name: (tiers[names.index(name)].value, names.index(name)))
    assert await room.admit(10) == order
    await room.close()


async def test_every_second_place_goes_to_the_longest_waiting(redis_url: str) -> None:
    room = Room(redis_url, factor=2.0)
    await room.open()
    normal = [(await room.arrive(Tier.NORMAL))[0] for _ in range(4)]
    vip = [(await room.arrive(Tier.VIP))[0] for _ in range(4)]
    got = await room.admit(8)
    assert got == [vip[0], normal[0], vip[1], normal[1], vip[2], normal[2], vip[3], normal[3]]
    await room.close()


async def test_a_factor_of_one_is_arrival_order(redis_url: str) -> None:
    room = Room(redis_url, factor=1.0)
    await room.open()
    names = [(await room.arrive(tier))[0] for tier in random.Random(7).choices(list(Tier), k=30)]
    assert await room.admit(30) == names
    await room.close()


async def test_a_worse_place_says_why(redis_url: str) -> None:
    room = Room(redis_url, factor=10.0)
    await room.open()
    await room.arrive(Tier.NORMAL)
    name, position = await room.arrive(Tier.NORMAL)
    assert position == 2
    await room.arrive(Tier.VIP)
    survey = await room.tickets.survey(0, 10, 0.0, 60.0)
    told = {update.owner.connection_id: update for update in survey.updates}
    assert (told[2].position, told[2].reason) == (3, "HIGHER_TIER")
    assert await room.tickets.holder(name) is not None
    async with connect(redis_url) as redis:
        assert await redis.hget(keys.ticket(name), "position") == b"3"
        assert await redis.hget(keys.ticket(name), "tier") == b"NORMAL"
    await room.close()


async def test_a_reason_that_got_lost_is_told_again(redis_url: str) -> None:
    """Whoever writes a place down can die before telling it, and nobody knows."""
    room = Room(redis_url, factor=10.0)
    await room.open()

    async def told(connection_id: int = 2) -> tuple[int, str | None]:
        updates = (await room.tickets.survey(0, 10, 0.0, 0.0)).updates
        (update,) = (each for each in updates if each.owner.connection_id == connection_id)
        return update.position, update.reason

    await room.arrive(Tier.NORMAL)
    name, _ = await room.arrive(Tier.NORMAL)
    await room.arrive(Tier.VIP)
    await room.arrive(Tier.VIP)
    await room.tickets.survey(0, 10, 0.0, 60.0)  # its worker dies
    assert await told() == (4, "HIGHER_TIER")
    await room.admit(1)
    assert await told() == (3, "HIGHER_TIER"), "better than before, but maybe nobody heard of that"

    await room.arrive(Tier.VIP)
    elsewhere = Asker(Address("SOCK002", 20), 20)
    assert (await room.tickets.stream(name, "client-2", elsewhere)).position == 4
    assert await told(20) == (4, "HIGHER_TIER"), "the answer has no room for a reason"
    place = await room.tickets.issue(
        (name, "client-20"), name, elsewhere, Entrance(), 1_000_000, Record("again", 60.0), Tier.NORMAL
    )
    await room.tickets.stream(name, place.client_id, elsewhere)
    assert await told(20) == (4, "HIGHER_TIER")

    await room.admit(2)
    assert await told(20) == (2, None)
    await room.close()


steps = st.lists(st.one_of(st.sampled_from(list(Tier)), st.integers(1, 4)), min_size=10, max_size=60)


@pytest.mark.parametrize("factor", [1.0, 1.5, 2.0, 3.0])
def test_nobody_waits_longer_than_was_promised(redis_url: str, factor: float) -> None:
    """factor * (1 + those who came before) admissions at most, and at most the position that was told."""

    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(script=steps)
    @example(script=[Tier.VIP] * 3 + [1] * 3 + [Tier.PREMIUM] + [Tier.VIP] * 3)  # thirds that are rounded
    def run(script: list[Tier | int]) -> None:
        asyncio.run(_play(redis_url, factor, script))

    run()


async def _play(url: str, factor: float, script: list[Tier | int]) -> None:
    """Players arrive (a tier) and are admitted (a number of them), as the script says."""
    room = Room(url, factor)
    await room.open()
    waiting: dict[str, Waiting] = {}
    for step in script:
        if isinstance(step, Tier):
            for each in waiting.values():
                if each.tier.value > step.value:
                    each.told = None
            name, position = await room.arrive(step)
            waiting[name] = Waiting(step, len(waiting), position)
        else:
            _admitted(waiting, await room.admit(step), factor)
    _admitted(waiting, await room.admit(len(waiting)), factor)
    assert not waiting
    await room.close()


def _admitted(waiting: dict[str, Waiting], names: list[str], factor: float) -> None:
    for name in names:
        for each in waiting.values():
            each.admissions += 1
        gone = waiting.pop(name)
        assert gone.admissions <= math.ceil(factor * (gone.came_before + 1)), (name, gone)
        assert gone.told is None or gone.admissions <= gone.told, (name, gone)
