"""Attempts are counted in periods: by any number of processes, and never for ever."""

import asyncio

import pytest
from redis.asyncio import Redis

from storage import keys
from storage.attempts import Attempts
from storage.connections import connect
from storage.errors import StoreAway
from tests.servers import RedisServer

PERIOD_S = 3600
PERIOD_MS = PERIOD_S * 1000
ADA = keys.limit("failed-login", "ada")


@pytest.fixture
def attempts(redis: Redis) -> Attempts:
    return Attempts(redis, "failed-login", 3, PERIOD_S)


async def end_period(redis: Redis) -> None:
    await redis.pexpire(ADA, 1)
    while await redis.exists(ADA):
        await asyncio.sleep(0.001)


async def test_so_many_may_be_tried_and_then_it_is_said_how_long_to_wait(attempts: Attempts) -> None:
    assert await attempts.wait_ms("ada") == 0
    for _ in range(3):
        assert await attempts.wait_ms("ada") == 0
        assert await attempts.count("ada") == 0
    assert 0 < await attempts.count("ada") <= PERIOD_MS
    assert 0 < await attempts.wait_ms("ada") <= PERIOD_MS


async def test_a_period_begins_with_the_first_attempt_and_is_not_prolonged(
    redis: Redis, attempts: Attempts
) -> None:
    await attempts.count("ada")
    assert 0 < await redis.pttl(ADA) <= PERIOD_MS
    await redis.pexpire(ADA, 5000)
    for _ in range(5):
        assert await attempts.count("ada") <= 5000
    assert 0 < await redis.pttl(ADA) <= 5000


async def test_a_period_ends(redis: Redis, attempts: Attempts) -> None:
    for _ in range(4):
        await attempts.count("ada")
    await end_period(redis)
    assert await attempts.wait_ms("ada") == 0
    assert await attempts.count("ada") == 0


async def test_subjects_and_kinds_are_apart(redis: Redis, attempts: Attempts) -> None:
    for _ in range(4):
        await attempts.count("ada")
    assert await attempts.wait_ms("eve") == 0
    assert await Attempts(redis, "registration", 3, PERIOD_S).wait_ms("ada") == 0


async def test_of_many_at_once_no_more_than_the_limit_may(redis_url: str) -> None:
    clients = [connect(redis_url) for _ in range(4)]
    everyone = [Attempts(client, "failed-login", 3, PERIOD_S) for client in clients]
    waits = await asyncio.gather(*(attempts.count("ada") for attempts in everyone for _ in range(10)))
    assert waits.count(0) == 3
    assert all(0 <= wait_ms <= PERIOD_MS for wait_ms in waits)
    for client in clients:
        await client.aclose()


async def test_what_came_to_nothing_can_be_taken_back(attempts: Attempts) -> None:
    for _ in range(10):
        assert await attempts.count("ada") == 0
        await attempts.forgive("ada")
    assert await attempts.wait_ms("ada") == 0


@pytest.mark.parametrize("counted", [3, 4])
async def test_who_dies_while_counting_shuts_nobody_out_for_ever(
    redis: Redis, attempts: Attempts, counted: int
) -> None:
    await redis.set(ADA, counted)  # as one leaves it who died before it set the period's end
    assert 0 < await attempts.wait_ms("ada") <= PERIOD_MS
    assert 0 < await redis.pttl(ADA) <= PERIOD_MS


async def test_a_count_without_an_end_gets_one_from_the_next(redis: Redis, attempts: Attempts) -> None:
    await redis.set(ADA, 1)
    assert await attempts.count("ada") == 0
    assert 0 < await redis.pttl(ADA) <= PERIOD_MS


async def test_a_redis_that_is_away_is_a_store_away(own_redis: RedisServer) -> None:
    async with connect(own_redis.url) as client:
        attempts = Attempts(client, "failed-login", 3, PERIOD_S)
        await attempts.count("ada")
        own_redis.kill()
        for work in (attempts.wait_ms, attempts.count, attempts.forgive):
            with pytest.raises(StoreAway):
                await work("ada")
