"""Families of refresh tokens: each token is exchanged once, and one that is used twice ends its family."""

import asyncio

import pytest

from storage import keys
from storage.holders import Entrance
from storage.sessions import (
    MOST_FAMILIES,
    NextToken,
    Reused,
    Revoked,
    Rights,
)
from tests.storage.room import REFRESH_TTL_S, RIGHTS, Room
from tests.storage.stay import check, families, owner, rotate, token


async def test_a_login_by_refresh_token_goes_on_with_its_family(room: Room) -> None:
    await room.sign_in("ada", fresh=token("one", 1))
    signed_in = await room.sign_in("ada", going_on=token("one", 2), fresh=token("two", 1))
    assert (signed_in.family, signed_in.number) == ("one", 2)
    assert await families(room) == ["one"]
    await check(room, token("one", 2))
    with pytest.raises(Reused):
        await check(room, token("one", 1))


async def test_a_login_whose_family_went_on_or_ended_meanwhile_begins_another(room: Room) -> None:
    await room.sign_in("ada", fresh=token("one", 1))
    await rotate(room, "one", 1)
    signed_in = await room.sign_in("ada", going_on=token("one", 2), fresh=token("two", 1))
    assert (signed_in.family, signed_in.number) == ("two", 1)
    await room.sessions.revoke("ada", "one", room.record())
    signed_in = await room.sign_in("ada", going_on=token("one", 3), fresh=token("three", 1))
    assert (signed_in.family, signed_in.number) == ("three", 1)


async def test_a_user_has_five_families_and_the_oldest_goes_first(room: Room) -> None:
    for number in range(MOST_FAMILIES):
        await room.sign_in("ada", fresh=token(f"family-{number}", 1))
    await rotate(room, "family-0", 1)
    await room.sign_in("ada", fresh=token("family-5", 1))
    assert await families(room) == [f"family-{number}" for number in (0, 2, 3, 4, 5)]
    with pytest.raises(Revoked):
        await check(room, token("family-1", 1))


async def test_a_new_family_stays_also_when_its_workers_clock_is_behind(room: Room) -> None:
    for number in range(MOST_FAMILIES):
        await room.sign_in("ada", fresh=token(f"family-{number}", 1))
    tokens = keys.refresh_tokens("ada")
    for name in await families(room):
        ahead = await room.now_ms() + int(REFRESH_TTL_S * 1000) + 60_000
        await room.redis.hset(tokens, f"family:{name}", f"1|{token(name, 1).hash}|{ahead}")
    await room.sign_in("ada", fresh=token("new", 1))
    assert "new" in await families(room)
    assert len(await families(room)) == MOST_FAMILIES


async def test_families_that_are_over_are_cleared_away(room: Room) -> None:
    await room.sign_in("ada", fresh=token("one", 1))
    await room.pass_time(REFRESH_TTL_S / 2)
    await room.sign_in("ada", fresh=token("two", 1))
    await room.pass_time(REFRESH_TTL_S / 2 + 60)
    for work in (
        check(room, token("one", 1)),
        room.sessions.resume("ada", "one", room.asker()),
        rotate(room, "one", 1),
    ):
        with pytest.raises(Revoked):
            await work
    await room.sign_in("ada", fresh=token("three", 1))
    assert await families(room) == ["three", "two"]
    await room.pass_time(REFRESH_TTL_S + 60)
    assert (await room.look()).left_ms.keys().isdisjoint({keys.refresh_tokens("ada"), keys.session("ada")})


# Exchanging tokens.


async def test_a_token_is_exchanged_once_and_a_repeat_gets_the_same(room: Room) -> None:
    await room.sign_in("ada", fresh=token("one", 1))
    now_ms, record = await room.now_ms(), room.record()
    call = ("ada", token("one", 1), token("one", 2).hash, now_ms, record, RIGHTS)
    first = await room.sessions.rotate(*call)
    assert first[0] == 2
    assert abs(first[1] - now_ms) < 30_000
    assert await room.sessions.rotate(*call) == first
    await check(room, token("one", 2))
    assert (await rotate(room, "one", 2))[0] == 3
    assert await room.sessions.newest("ada", "one") == 3


async def test_a_tokens_rights_are_those_of_its_making(room: Room) -> None:
    await room.sign_in("ada", fresh=token("one", 1))
    await rotate(room, "one", 1, Rights("VIP", "queue_priority"))
    for name in (keys.session("ada"), keys.refresh_tokens("ada")):
        fields = await room.redis.execute_command("HMGET", name, "role", "permissions")
        assert fields == [b"VIP", b"queue_priority"]
    await room.redis.delete(keys.session("ada"))
    await rotate(room, "one", 2)
    assert not await room.redis.exists(keys.session("ada"))


async def test_a_hundred_racing_exchanges_of_one_token_end_its_family(room: Room) -> None:
    asker = room.asker()
    await room.sign_in("ada", asker, fresh=token("one", 1))
    results = await asyncio.gather(*(rotate(room, "one", 1) for _ in range(100)), return_exceptions=True)
    assert sum(isinstance(result, tuple) for result in results) == 1
    assert [result.signed_out for result in results if isinstance(result, Reused)] == [asker.address]
    assert sum(isinstance(result, Revoked) for result in results) == 98
    assert await families(room) == []


@pytest.mark.parametrize("how", ["check", "rotate"])
async def test_a_token_used_twice_ends_its_family_and_signs_its_session_out(room: Room, how: str) -> None:
    await room.sign_in("ada", fresh=token("other", 1))
    asker = room.asker()
    await room.sign_in("ada", asker, fresh=token("one", 1))
    await rotate(room, "one", 1)
    with pytest.raises(Reused) as reused:
        await (check(room, token("one", 1)) if how == "check" else rotate(room, "one", 1))
    assert reused.value.signed_out == asker.address
    assert await owner(room) is None
    assert await families(room) == ["other"]
    with pytest.raises(Revoked):
        await check(room, token("one", 2))
    with pytest.raises(Revoked):
        await room.sessions.resume("ada", "one", room.asker())
    assert (await room.sessions.resume("ada", "other", room.asker()))[0] is None


async def test_a_reuse_that_is_delivered_twice_is_answered_twice(room: Room) -> None:
    """The worker that revoked the family may have died before it could sign the connection out."""
    asker = room.asker()
    await room.sign_in("ada", asker, fresh=token("one", 1))
    await rotate(room, "one", 1)
    record = room.record()
    for _ in range(2):
        with pytest.raises(Reused) as reused:
            await room.sessions.rotate("ada", token("one", 1), "ab", await room.now_ms(), record, RIGHTS)
        assert reused.value.signed_out == asker.address


async def test_a_reuse_in_a_login_that_is_delivered_twice_is_answered_twice(room: Room) -> None:
    asker = room.asker()
    await room.sign_in("ada", asker, fresh=token("one", 1))
    await rotate(room, "one", 1)
    record = room.record()
    for _ in range(2):
        with pytest.raises(Reused) as reused:
            await room.sessions.check("ada", token("one", 1), record)
        assert reused.value.signed_out == asker.address


async def test_a_login_that_is_delivered_again_after_its_family_went_on_is_no_reuse(room: Room) -> None:
    await room.sign_in("ada", fresh=token("one", 1))
    record = room.record()
    await room.sessions.check("ada", token("one", 1), record)
    await room.tickets.issue(room.place(), "ada", room.asker(), Entrance("one"), 100, record)
    await rotate(room, "one", 1)

    await room.sessions.check("ada", token("one", 1), record)

    assert await families(room) == ["one"]
    with pytest.raises(Reused):
        await check(room, token("one", 1))


async def test_a_reuse_leaves_a_session_of_another_family(room: Room) -> None:
    await room.sign_in("ada", fresh=token("one", 1))
    asker = room.asker()
    await room.sign_in("ada", asker, fresh=token("two", 1))
    with pytest.raises(Reused) as reused:
        await check(room, NextToken("one", 1, "ab"))
    assert reused.value.signed_out is None
    assert await owner(room) == asker.address


async def test_a_session_lives_as_long_as_its_tokens_are_exchanged(room: Room) -> None:
    asker = room.asker()
    await room.sign_in("ada", asker, fresh=token("one", 1))
    for number in range(1, 5):
        await room.pass_time(REFRESH_TTL_S * 0.7)
        assert (await rotate(room, "one", number))[0] == number + 1
    assert (await room.sessions.resume("ada", "one", room.asker()))[0] == asker.address
