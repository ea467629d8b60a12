"""The hot connection to Redis: what it says, what it says when Redis is away, and that it comes back."""

import asyncio

import pytest
from redis.exceptions import AuthenticationError, ConnectionError, ResponseError, TimeoutError

from storage.connections import connect
from storage.wire import Wire
from tests.servers import RedisServer


async def test_it_sends_what_redis_py_would(redis_url: str) -> None:
    wire = Wire(redis_url, 2)
    assert await wire.execute_command("SET", "text", "가") == b"OK"
    assert await wire.execute_command("GET", "text") == "가".encode()
    assert await wire.execute_command("SET", b"bytes", bytes(range(256))) == b"OK"
    assert await wire.execute_command("GET", b"bytes") == bytes(range(256))
    assert await wire.execute_command("INCRBY", "number", 41) == 41
    assert await wire.execute_command("INCRBYFLOAT", "number", 0.5) == b"41.5"
    assert await wire.execute_command("GET", "nothing") is None
    assert await wire.execute_command("MGET", "text", "nothing") == ["가".encode(), None]
    await wire.aclose()


async def test_it_uses_the_password_and_database_of_the_url(redis_url: str) -> None:
    async with connect(redis_url) as admin:
        await admin.acl_setuser("bora", enabled=True, passwords=["+s3cret/@"], keys=["*"], commands=["+@all"])
    try:
        address = redis_url.removeprefix("redis://").split("/")[0]
        wire = Wire(f"redis://bora:s3cret%2F%40@{address}/3", 2)
        assert await wire.execute_command("ACL", "WHOAMI") == b"bora"
        await wire.execute_command("SET", "here", 3)
        async with connect(f"redis://{address}/3") as third:
            assert await third.get("here") == b"3"
        await wire.aclose()
        with pytest.raises(AuthenticationError):
            await Wire(f"redis://bora:wrong@{address}/3", 2).execute_command("PING")
    finally:
        async with connect(redis_url) as admin:
            await admin.acl_deluser("bora")


async def test_replies_keep_the_order_of_their_commands(redis_url: str) -> None:
    wire = Wire(redis_url, 5)
    await wire.execute_command("PING")
    replies = await asyncio.gather(*(wire.execute_command("ECHO", str(i)) for i in range(5000)))
    assert replies == [str(i).encode() for i in range(5000)]
    await wire.aclose()


async def test_a_refused_command_harms_no_other(redis_url: str) -> None:
    wire = Wire(redis_url, 2)
    await wire.execute_command("SET", "text", "x")
    first, refused, last = await wire.execute_commands([("GET", "text"), ("INCR", "text"), ("GET", "text")])
    assert (first, last) == (b"x", b"x")
    assert isinstance(refused, ResponseError)
    with pytest.raises(ResponseError, match="not an integer"):
        await wire.execute_command("INCR", "text")
    await wire.aclose()


async def test_who_is_cancelled_shifts_no_replies(redis_url: str) -> None:
    wire = Wire(redis_url, 5)
    await wire.execute_command("PING")
    tasks = [asyncio.create_task(wire.execute_command("ECHO", str(i))) for i in range(100)]
    await asyncio.sleep(0)
    for task in tasks[::3]:
        task.cancel()
    replies = await asyncio.gather(*tasks, return_exceptions=True)
    for i, reply in enumerate(replies):
        assert isinstance(reply, asyncio.CancelledError) if i % 3 == 0 else reply == str(i).encode()
    await wire.aclose()


async def test_a_silent_redis_is_away_and_comes_back(own_redis: RedisServer) -> None:
    wire = Wire(own_redis.url, 1.0)
    await wire.execute_command("PING")
    own_redis.pause()
    try:
        outcomes = await asyncio.gather(
            *(wire.execute_command("PING") for _ in range(10)), return_exceptions=True
        )
    finally:
        own_redis.resume()
    assert {type(outcome) for outcome in outcomes} == {TimeoutError}
    assert await wire.execute_command("PING") == b"PONG"
    await wire.aclose()


async def test_a_lost_connection_is_told_and_made_again(own_redis: RedisServer) -> None:
    wire = Wire(own_redis.url, 2)
    await wire.execute_command("PING")
    blocked = asyncio.create_task(wire.execute_command("BLPOP", "nothing", 0))
    await asyncio.sleep(0.05)
    await asyncio.to_thread(own_redis.kill)
    with pytest.raises(ConnectionError):
        await blocked
    with pytest.raises(ConnectionError):
        await wire.execute_command("PING")
    await asyncio.to_thread(own_redis.start)
    assert await wire.execute_command("PING") == b"PONG"
    await wire.aclose()
