"""What is known of a login before its password is looked at: failures in their periods, and known places."""

import asyncio

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from storage import keys
from storage.connections import connect
from storage.errors import StoreAway
from storage.logins import (
    DAY_MS,
    HOUR_MS,
    MINUTE_MS,
    MOST_PLACES,
    PLACES_LIFE_MS,
    Logins,
    Origin,
    Outlook,
)
from tests.servers import RedisServer

MOST_FROM_PLACE, MOST_FROM_ADDRESS = 3, 7

HOME = Origin("home", "ada-at-home", "adas-phone")
CAFE = Origin("cafe", "ada-at-the-cafe", "")
STRANGE = Outlook(0, 0, 0, knows_place=False, knows_device=False, is_fresh=False)


@pytest.fixture
def logins(redis: Redis) -> Logins:
    return Logins(redis, MOST_FROM_PLACE, MOST_FROM_ADDRESS)


async def test_of_a_stranger_nothing_is_known(logins: Logins) -> None:
    assert await logins.look("ada", HOME) == STRANGE


async def test_an_account_is_guessed_at_so_often_from_an_address(logins: Logins) -> None:
    assert [await logins.fail("ada", HOME) for _ in range(MOST_FROM_PLACE)] == [0] * MOST_FROM_PLACE
    assert 0 < await logins.fail("ada", HOME) <= MINUTE_MS
    assert 0 < (await logins.look("ada", HOME)).wait_ms <= MINUTE_MS

    assert (await logins.look("ada", CAFE)).wait_ms == 0
    assert (await logins.look("eve", Origin("home", "eve-at-home", ""))).wait_ms == 0
    assert (await logins.look("ada", CAFE)).failures == MOST_FROM_PLACE


async def test_an_address_fails_so_often_whatever_the_account(logins: Logins) -> None:
    for number in range(MOST_FROM_ADDRESS):
        assert await logins.fail(f"user-{number}", Origin("home", f"place-{number}", "")) == 0
    assert 0 < await logins.fail("another", Origin("home", "another", "")) <= MINUTE_MS
    assert 0 < (await logins.look("ada", HOME)).wait_ms <= MINUTE_MS
    assert (await logins.look("ada", CAFE)).wait_ms == 0


async def test_of_many_at_once_no_more_than_the_limit_are_let_through(redis_url: str) -> None:
    clients = [connect(redis_url) for _ in range(4)]
    everyone = [Logins(client, MOST_FROM_PLACE, MOST_FROM_ADDRESS) for client in clients]
    waits = await asyncio.gather(*(logins.fail("ada", HOME) for logins in everyone for _ in range(10)))
    assert waits.count(0) == MOST_FROM_PLACE
    for client in clients:
        await client.aclose()


async def test_failures_of_an_account_are_counted_from_anywhere_for_an_hour(
    logins: Logins, redis: Redis
) -> None:
    for number in range(5):
        await logins.fail("ada", Origin(f"address-{number}", f"place-{number}", ""))
    outlook = await logins.look("ada", HOME)
    assert outlook.failures == 5
    assert 0 < outlook.calm_ms <= HOUR_MS
    assert (await logins.look("eve", HOME)).failures == 0

    await redis.pexpire(keys.limit("failed-login-account", "ada"), 1)
    await asyncio.sleep(0.01)
    assert await logins.look("ada", HOME) == STRANGE


async def test_a_period_is_not_prolonged(logins: Logins, redis: Redis) -> None:
    for _ in range(MOST_FROM_PLACE):
        await logins.fail("ada", HOME)
    await redis.pexpire(keys.limit("failed-login", "ada:ada-at-home"), 5000)
    assert 0 < await logins.fail("ada", HOME) <= 5000


async def test_who_was_there_before_is_known(logins: Logins, redis: Redis) -> None:
    await logins.remember("ada", HOME)
    assert await logins.look("ada", HOME) == Outlook(0, 0, 0, True, True, True)
    assert await logins.look("ada", Origin("home", "ada-at-home", "")) == Outlook(
        0, 0, 0, knows_place=True, knows_device=False, is_fresh=True
    )
    on_the_way = await logins.look("ada", Origin("cafe", "ada-at-the-cafe", "adas-phone"))
    assert (on_the_way.knows_place, on_the_way.knows_device, on_the_way.is_fresh) == (False, True, False)
    assert await logins.look("eve", HOME) == STRANGE
    assert PLACES_LIFE_MS - 60_000 < await redis.pttl(keys.places("ada")) <= PLACES_LIFE_MS


async def test_what_was_seen_yesterday_is_known_and_not_fresh(logins: Logins, redis: Redis) -> None:
    await logins.remember("ada", HOME)
    await redis.hincrby(keys.places("ada"), "address:ada-at-home", -DAY_MS)
    outlook = await logins.look("ada", HOME)
    assert (outlook.knows_place, outlook.is_fresh) == (True, False)


async def test_an_address_is_no_device(logins: Logins) -> None:
    await logins.remember("ada", HOME)
    swapped = await logins.look("ada", Origin("home", "adas-phone", "ada-at-home"))
    assert (swapped.knows_place, swapped.knows_device) == (False, False)


async def test_so_many_places_are_remembered_and_the_longest_unseen_are_forgotten(
    logins: Logins, redis: Redis
) -> None:
    await logins.remember("ada", HOME)
    await redis.hset(keys.places("ada"), mapping={"address:ada-at-home": "1", "device:adas-phone": "1"})
    for number in range(MOST_PLACES):
        await logins.remember("ada", Origin("", f"place-{number}", ""))
    assert set(await redis.execute_command("HKEYS", keys.places("ada"))) == {
        b"device:adas-phone",
        *(f"address:place-{number}".encode() for number in range(MOST_PLACES)),
    }


@pytest.mark.parametrize("broken", range(4))
async def test_a_key_of_another_type_is_refused_before_anything_is_written(
    logins: Logins, redis: Redis, broken: int
) -> None:
    names = [
        keys.limit("failed-login", "ada:ada-at-home"), keys.limit("failed-login-address", "home"),
        keys.limit("failed-login-account", "ada"), keys.places("ada"),
    ]  # fmt: skip
    await redis.xadd(names[broken], {"of": "no use"})
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await (logins.fail("ada", HOME) if broken < 3 else logins.remember("ada", HOME))
    assert await redis.keys("*") == [names[broken].encode()]


async def test_a_redis_that_is_away_is_a_store_away(own_redis: RedisServer) -> None:
    async with connect(own_redis.url) as client:
        logins = Logins(client, 1, 1)
        await logins.fail("ada", HOME)
        own_redis.kill()
        for work in (logins.look, logins.fail, logins.remember):
            with pytest.raises(StoreAway):
                await work("ada", HOME)
