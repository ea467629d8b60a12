"""Friends: mutual, durable, and no cache outlives a change."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from storage import keys
from storage.boards import Best, Group, Place
from storage.friends import NoSuchFriend, Overtook, TooManyFriends
from storage.servers import now_ms
from tests.storage.hall import MOST_FRIENDS, Hall, opened


@pytest.fixture
async def hall(redis_url: str, sqlite_url: str) -> AsyncIterator[Hall]:
    async with opened(redis_url, sqlite_url) as hall:
        await hall.register("ada", "bob", "cat", "dan", "eve", "fay", "gil")
        yield hall


@pytest.fixture
async def either(valkey_url: str, database_url: str) -> AsyncIterator[Hall]:
    async with opened(valkey_url, database_url) as hall:
        await hall.register("ada", "bob", "cat", "dan", "eve", "fay", "gil")
        yield hall


async def of(hall: Hall, user_id: str) -> list[str]:
    return [friend_id for friend_id, _ in await hall.friends.of(user_id)]


async def ranked(hall: Hall, user_id: str) -> list[tuple[int, str]]:
    return [(place.rank, place.user_id) for place in await hall.friends.ranked(user_id)]


async def test_friendship_is_mutual_and_ends_on_both_sides(either: Hall) -> None:
    await either.friends.add("ada", "bob")
    await either.friends.add("bob", "ada")
    await either.friends.add("ada", "cat")
    assert [await of(either, user_id) for user_id in ("ada", "bob", "cat")] == [
        ["bob", "cat"],
        ["ada"],
        ["ada"],
    ]
    await either.friends.remove("bob", "ada")
    await either.friends.remove("bob", "ada")
    assert [await of(either, user_id) for user_id in ("ada", "bob", "cat")] == [["cat"], [], ["ada"]]
    with pytest.raises(NoSuchFriend):
        await either.friends.add("ada", "nobody")
    with pytest.raises(NoSuchFriend):
        await either.friends.remove("ada", "nobody")


async def test_nobody_gets_more_friends_than_there_may_be_however_many_ask_at_once(either: Hall) -> None:
    others = ["bob", "cat", "dan", "eve", "fay", "gil"]
    outcomes = await asyncio.gather(
        *(either.friends.add(*(("ada", other) if number % 2 else (other, "ada")))
          for number, other in enumerate(others)),
        return_exceptions=True,
    )  # fmt: skip
    assert len(await of(either, "ada")) == MOST_FRIENDS
    assert sum(isinstance(outcome, TooManyFriends) for outcome in outcomes) == len(others) - MOST_FRIENDS


async def test_friends_are_ranked_by_scores_of_now_from_a_cache_of_friends(hall: Hall) -> None:
    now = now_ms()
    for other in ("bob", "cat", "dan"):
        await hall.friends.add("ada", other)
    await hall.raise_scores(("ada", 5, now), ("bob", 7, now), ("eve", 99, now))
    assert await ranked(hall, "ada") == [(1, "bob"), (2, "ada")]
    await hall.raise_scores(("cat", 5, now + 1), ("ada", 5, now))
    assert await hall.friends.ranked("ada") == [Place(1, "bob", 7), Place(2, "ada", 5), Place(2, "cat", 5)]
    cached = await hall.wire.execute_command("ZRANGE", keys.ranking_friends("ada"), 0, -1)
    assert set(cached) == {b"ada", b"bob", b"cat", b"dan"}
    assert 0 < await hall.wire.execute_command("PTTL", keys.ranking_friends("ada")) <= 60_000
    await hall.friends.remove("ada", "bob")
    assert await ranked(hall, "ada") == [(1, "ada"), (1, "cat")]
    assert await ranked(hall, "bob") == [(1, "bob")]
    assert await ranked(hall, "gil") == []


async def test_who_was_read_before_a_change_is_not_cached_after_it(hall: Hall) -> None:
    now = now_ms()
    await hall.raise_scores(("ada", 5, now), ("bob", 7, now))
    find = hall.friends._find

    async def slowly(user_ids: list[str]) -> object:
        found = await find(user_ids)
        if "bob" not in await of(hall, "ada"):
            await hall.friends.add("ada", "bob")
        return found

    hall.friends._find = slowly  # type: ignore[method-assign, assignment]
    await hall.friends.ranked("ada")
    assert await ranked(hall, "ada") == [(1, "bob"), (2, "ada")]


async def overtake(hall: Hall, *scores: tuple[str, int]) -> None:
    now = now_ms()
    bests = [Best(user_id, score, now) for user_id, score in scores]
    await hall.friends.overtake(
        await hall.boards.raise_scores([Group("suika", hall.calendar.periods(now), bests)])
    )


async def test_those_whom_a_friend_passes_hear_of_it_once_in_a_while_and_of_the_latest(hall: Hall) -> None:
    for one, other in (("ada", "bob"), ("ada", "cat"), ("bob", "cat")):
        await hall.friends.add(one, other)
    await overtake(hall, ("ada", 100), ("eve", 150))
    assert await hall.friends.take_overtaken(10, 60) == []
    await overtake(hall, ("bob", 90))
    await overtake(hall, ("bob", 100))
    assert await hall.friends.take_overtaken(10, 60) == []
    await overtake(hall, ("bob", 200))
    await overtake(hall, ("cat", 300))
    assert set(await hall.friends.take_overtaken(10, 60)) == {
        Overtook("ada", "cat", 300, 1),
        Overtook("bob", "cat", 300, 1),
    }
    await overtake(hall, ("ada", 400))
    await overtake(hall, ("cat", 500))
    assert {each.user_id for each in await hall.friends.take_overtaken(10, 60)} == {"cat"}
    for user_id in ("ada", "bob"):  # a minute passes
        await hall.wire.execute_command("ZINCRBY", keys.RANKING_OVERTAKEN_DUE, -60_000, user_id)
    assert {each.user_id for each in await hall.friends.take_overtaken(10, 60)} == {"ada", "bob"}
    assert await hall.friends.take_overtaken(10, 60) == []


async def test_a_worse_score_overtakes_nobody(hall: Hall) -> None:
    await hall.friends.add("ada", "bob")
    await overtake(hall, ("bob", 500))
    await overtake(hall, ("ada", 100))
    await overtake(hall, ("bob", 50))
    assert await hall.friends.take_overtaken(10, 60) == []
