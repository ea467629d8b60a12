"""Who hears of scores: subscribers of boards, and friends; and what friends are."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import cast

import msgspec
import pytest
from msgspec import UNSET

from protocol.codec import decode_untrusted
from protocol.envelope import Delivery
from protocol.frames import FrameReader
from protocol.messages.ranking import (
    AddFriend,
    BoardType,
    Friend,
    FriendOvertook,
    FriendRankings,
    Friends,
    GetFriendRankings,
    ListFriends,
    Ranking,
    RankingUpdate,
    RemoveFriend,
    SubscribeRankings,
    UnsubscribeRankings,
)
from storage import keys
from storage.connections import connect_wire
from tests.system.cluster import Cluster
from tests.system.guest import HEARING_S
from tests.system.ranking.playing import SignUp, submit

pytestmark = pytest.mark.servers


Sent = Callable[[], Awaitable[list[RankingUpdate]]]


async def test_a_changed_top_reaches_all_subscribers_as_one_message_a_node_once_a_second(
    arcade: Cluster, sign_up: SignUp
) -> None:
    *subscribers, (_, gone), (name, scorer) = await sign_up(6)
    for guest in (*(guest for _, guest in subscribers), gone):
        await guest.ask(SubscribeRankings(type=BoardType.MONTHLY))
    await gone.ask(UnsubscribeRankings(type=BoardType.MONTHLY))

    def tops(updates: list[RankingUpdate]) -> list[int]:
        """The scorer's scores on top of the boards that were told."""
        told = [cast("list[Ranking]", each.rankings)[0] for each in updates if each.task_id is UNSET]
        return [first.score for first in told if first.user_id == name]

    start_s = time.monotonic()
    async with watched(arcade, "SOCK002") as sent:
        for score in range(9_000_000, 9_000_020):
            await submit(scorer, score)
        for _, guest in subscribers:
            async with asyncio.timeout(HEARING_S):
                while tops(guest.all(RankingUpdate))[-1:] != [score]:
                    await guest.hear(RankingUpdate, len(guest.all(RankingUpdate)) + 1)
        most = 1 + int(time.monotonic() - start_s)
        found = tops([update for update in await sent() if update.type is BoardType.MONTHLY])
    assert len(set(found)) == len(found) <= most
    for _, guest in subscribers:
        assert tops(guest.all(RankingUpdate)) == found
        top = cast("list[Ranking]", [each for each in guest.all(RankingUpdate) if each.rankings][-1].rankings)
        assert top[0] == Ranking(rank=1, user_id=name, nickname=name, score=score)
    assert tops(gone.all(RankingUpdate)) == []


@asynccontextmanager
async def watched(arcade: Cluster, server_id: str) -> AsyncIterator[Sent]:
    """Answers what was sent to all connections of a node since.

    Its queue keeps that meanwhile, for a second group that never reads.
    """
    wire, queue = connect_wire(str(arcade.settings["redis.url"])), keys.node_queue(server_id)
    await wire.execute_command("XGROUP", "CREATE", queue, "watching", "$")

    async def sent() -> list[RankingUpdate]:
        rows = await wire.execute_command("XRANGE", queue, "-", "+")
        deliveries = [
            each for _, fields in rows for each in msgspec.msgpack.decode(fields[1], type=list[Delivery])
        ]
        frames = [each.frame for each in deliveries if each.topic is not None]
        events = [decode_untrusted(body) for frame in frames for body in FrameReader(len(frame)).feed(frame)]
        return [msgspec.convert(event["data"], RankingUpdate) for event in events]

    yield sent
    await wire.execute_command("XGROUP", "DESTROY", queue, "watching")
    await wire.execute_command("XTRIM", queue, "MAXLEN", 0)
    await wire.aclose()


async def test_friendship_is_mutual(sign_up: SignUp) -> None:
    (one, guest), (other, friend), (_, third) = await sign_up(3)
    added = cast(Friends, await guest.ask(AddFriend(friend_id=other)))
    assert added.friends == [Friend(user_id=other, nickname=other)]
    assert await guest.ask(AddFriend(friend_id=other)) == added
    assert cast(Friends, await friend.ask(ListFriends())).friends == [Friend(user_id=one, nickname=one)]
    assert cast(Friends, await third.ask(ListFriends())).friends == []
    assert cast(Friends, await friend.ask(RemoveFriend(friend_id=one))).friends == []
    assert cast(Friends, await guest.ask(ListFriends())).friends == []
    await guest.refused(AddFriend(friend_id="nobody-at-all"), "USER_NOT_FOUND")
    await guest.refused(RemoveFriend(friend_id="nobody-at-all"), "USER_NOT_FOUND")
    await guest.refused(AddFriend(friend_id=one), "INVALID_REQUEST")


async def test_friends_are_ranked_among_themselves(sign_up: SignUp) -> None:
    players = await sign_up(4)
    one, guest = players[0]
    for name, _ in players[1:]:
        await guest.ask(AddFriend(friend_id=name))
    assert cast(FriendRankings, await guest.ask(GetFriendRankings())).friend_rankings == []
    for (_, each), score in zip(players[:3], (50, 70, 50), strict=True):
        await submit(each, score)
    found = cast(FriendRankings, await guest.ask(GetFriendRankings())).friend_rankings
    names = [name for name, _ in players]
    assert [(each.rank, each.user_id, each.score) for each in found] == [
        (1, names[1], 70), (2, one, 50), (2, names[2], 50)
    ]  # fmt: skip
    await guest.ask(RemoveFriend(friend_id=names[1]))
    found = cast(FriendRankings, await guest.ask(GetFriendRankings())).friend_rankings
    assert [each.user_id for each in found] == [one, names[2]]


async def test_who_is_overtaken_by_friends_hears_of_it_once_a_minute(sign_up: SignUp) -> None:
    (one, guest), (other, friend), (_, stranger) = await sign_up(3)
    await guest.ask(AddFriend(friend_id=other))
    await submit(guest, 1000)
    await submit(stranger, 1500)
    await submit(friend, 900)
    await submit(friend, 1200)
    overtook = await guest.hear(FriendOvertook)
    assert (overtook.friend_id, overtook.score) == (other, 1200)
    await submit(guest, 1300)
    passed = await friend.hear(FriendOvertook)
    assert (passed.friend_id, passed.score) == (one, 1300)
    await submit(friend, 1400)
    await asyncio.sleep(1.2)
    assert len(guest.all(FriendOvertook)) == 1
