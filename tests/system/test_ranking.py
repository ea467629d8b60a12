"""Scores, boards and friends as players meet them, over sockets and all the processes."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from msgspec import UNSET

from protocol.announcement import GameFinished, Result
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
    GetRankings,
    ListFriends,
    Ranking,
    Rankings,
    RankingUpdate,
    RemoveFriend,
    ScoreAccepted,
    SubmitScore,
    SubscribeRankings,
    UnsubscribeRankings,
)
from storage import keys
from storage.connections import connect_wire
from storage.events import announce
from storage.queues import Outbox
from storage.servers import now_ms
from tests.servers import MariaServer
from tests.system.cluster import Cluster
from tests.system.conftest import run_house
from tests.system.guest import HEARING_S, Guest
from workers.ranking.pages import RECENT_S

pytestmark = pytest.mark.servers

Player = tuple[str, Guest]
SignUp = Callable[[int], Awaitable[list[Player]]]
Sent = Callable[[], Awaitable[list[RankingUpdate]]]


@pytest.fixture(scope="module", params=["valkey-sqlite", "redis7-mariadb"])
def arcade(request: pytest.FixtureRequest, servers_folder: Path) -> Iterator[Cluster]:
    """A town with two ranking workers, and games enough for each test that wants boards to itself."""
    ceilings = "{ suika = 10_000_000, " + ", ".join(f"game{number} = 1000" for number in range(10)) + " }"
    folder, settings = servers_folder / uuid.uuid4().hex, {"ranking.score_ceilings": ceilings}
    if request.param == "valkey-sqlite":
        houses = run_house(folder, settings)
    else:
        mariadb: MariaServer = request.getfixturevalue("shared_mariadb")
        houses = run_house(folder, settings, "redis7", mariadb.create_database(f"arcade_{folder.name}"))
    for cluster in houses:
        cluster.start(nodes=2)
        for number in (1, 2):
            cluster.start_worker("ranking", number)
        yield cluster


@pytest.fixture
async def sign_up(arcade: Cluster) -> AsyncIterator[SignUp]:
    """Signs new players up, by turns at both nodes."""
    made: list[Player] = []

    async def one(name: str, number: int) -> Player:
        guest = await Guest.at(arcade.endpoints[number % 2])
        made.append((name, guest))
        await guest.sign_up(name)
        return name, guest

    async def some(count: int) -> list[Player]:
        prefix = uuid.uuid4().hex[:8]
        return [await one(f"{prefix}-{number}", number) for number in range(count)]

    yield some
    for _, guest in made:
        guest.leave()


def score_of(score: int, game_type: str = "suika", **more: Any) -> SubmitScore:
    """A score at some difficulty."""
    return SubmitScore(score=score, game_type=game_type, difficulty="medium", **more)


async def processed(guest: Guest, task_id: str) -> RankingUpdate:
    """Wait until a score of the guest's own has been processed, and pages from before it are gone."""
    async with asyncio.timeout(HEARING_S):
        while True:
            for update in guest.all(RankingUpdate):
                if update.task_id == task_id and update.type is BoardType.TOTAL:
                    await asyncio.sleep(RECENT_S)
                    return update
            await guest.hear(RankingUpdate, len(guest.all(RankingUpdate)) + 1)


async def submit(guest: Guest, score: int, game_type: str = "suika", **more: Any) -> RankingUpdate:
    """Submit a score and wait until it has been processed."""
    accepted = cast(ScoreAccepted, await guest.ask(score_of(score, game_type, **more)))
    return await processed(guest, accepted.task_id)


async def read(guest: Guest, board_type: BoardType, game_type: str | None = None, **more: Any) -> Rankings:
    return cast(Rankings, await guest.ask(GetRankings(type=board_type, game_type=game_type, **more)))


def shown(found: Rankings) -> list[tuple[int, str, int]]:
    return [(each.rank, each.user_id, each.score) for each in found.rankings]


async def test_a_score_is_on_every_board(sign_up: SignUp) -> None:
    ((name, guest),) = await sign_up(1)
    update = await submit(guest, 900, "game0")
    assert (update.type, update.period, update.score) == (BoardType.TOTAL, "all", 900)
    assert update.previous_rank is None
    assert name in str(update.task_id)
    await guest.hear(RankingUpdate, 4)
    assert {(each.type, each.rank, each.previous_rank) for each in guest.all(RankingUpdate)[:4]} == {
        (board_type, update.rank, None) for board_type in BoardType
    }
    for board_type in BoardType:
        assert await read(guest, board_type, "game0") == Rankings(
            rankings=[Ranking(rank=1, user_id=name, nickname=name, score=900)],
            user_rank=1,
            user_score=900,
            total_players=1,
        )
        assert (await read(guest, board_type)).user_score == 900


async def test_a_better_score_replaces_a_worse_one_and_never_the_reverse(sign_up: SignUp) -> None:
    ((_, guest),) = await sign_up(1)
    for score, best in ((500, 500), (400, 500), (600, 600), (600, 600)):
        update = await submit(guest, score, "game1")
        assert update.score == score
        assert (await read(guest, BoardType.DAILY, "game1")).user_score == best


async def test_equal_scores_share_a_rank_in_the_order_in_which_they_were_reached(sign_up: SignUp) -> None:
    players = await sign_up(5)
    for (_, guest), score in zip(players, (700, 800, 700, 600, 700), strict=True):
        await submit(guest, score, "game2")
        await asyncio.sleep(0.005)
    names = [name for name, _ in players]
    wanted = [
        (1, names[1], 800),
        (2, names[0], 700),
        (2, names[2], 700),
        (2, names[4], 700),
        (5, names[3], 600),
    ]
    guest = players[4][1]
    for board_type in BoardType:
        whole = await read(guest, board_type, "game2")
        assert shown(whole) == wanted
        assert (whole.user_rank, whole.user_score, whole.total_players) == (2, 700, 5)
    assert shown(await read(guest, BoardType.TOTAL, "game2", offset=2, limit=2)) == wanted[2:4]
    assert shown(await read(guest, BoardType.TOTAL, "game2", offset=5)) == []
    assert shown(await read(guest, BoardType.TOTAL, "game2", around=True, limit=3)) == wanted[2:5]
    assert shown(await read(players[1][1], BoardType.TOTAL, "game2", around=True, limit=3)) == wanted[:3]


async def test_who_has_no_score_has_no_rank(sign_up: SignUp) -> None:
    (_, guest), (_, stranger) = await sign_up(2)
    await submit(guest, 1, "game3")
    found = await read(stranger, BoardType.TOTAL, "game3")
    assert (len(found.rankings), found.user_rank, found.user_score, found.total_players) == (1, None, None, 1)
    around = await read(stranger, BoardType.TOTAL, "game3", around=True)
    assert around == Rankings(rankings=[], user_rank=None, user_score=None, total_players=1)
    past = await read(stranger, BoardType.WEEKLY, "game3", period="2024W51")
    assert past == Rankings(rankings=[], user_rank=None, user_score=None, total_players=0)


async def test_a_repeat_with_the_same_key_counts_once(arcade: Cluster, sign_up: SignUp) -> None:
    ((name, guest),) = await sign_up(1)
    answers = [await guest.ask(score_of(5, "game4"), key="once") for _ in range(3)]
    assert len({cast(ScoreAccepted, answer).task_id for answer in answers}) == 1
    task_id = cast(ScoreAccepted, answers[0]).task_id
    await processed(guest, task_id)
    await submit(guest, 6, "game4")
    updates = [(update.task_id, update.type) for update in guest.all(RankingUpdate)]
    assert [updates.count((task_id, board_type)) for board_type in BoardType] == [1] * 4
    assert arcade.redis.hgetall(keys.temp_score(name)) | {"timestamp": ""} == {
        "score": "6", "game_type": "game4", "difficulty": "medium", "timestamp": ""
    }  # fmt: skip


async def test_a_score_that_cannot_be_is_refused(sign_up: SignUp) -> None:
    ((_, guest),) = await sign_up(1)
    for score in (-1, 1001, 2**62):
        refusal = await guest.refused(score_of(score, "game5"), "INVALID_SCORE")
        assert "0 to 1000" in str(refusal)
    assert "`gameType`" in str(await guest.refused(score_of(1, "chess"), "INVALID_REQUEST"))
    hardest = SubmitScore(score=1, game_type="game5", difficulty="impossible")
    assert "`difficulty`" in str(await guest.refused(hardest, "INVALID_REQUEST"))
    for period in ("2024W54", "20241301", "all", "2024", "２０２４１２"):
        refusal = await guest.refused(GetRankings(type=BoardType.DAILY, period=period), "INVALID_REQUEST")
        assert "`period`" in str(refusal)
    await guest.refused(GetRankings(type=BoardType.TOTAL, game_type="chess"), "INVALID_REQUEST")
    assert (await read(guest, BoardType.TOTAL, "game5")).total_players == 0


async def test_nobody_submits_for_another_but_who_is_trusted(arcade: Cluster, sign_up: SignUp) -> None:
    (name, guest), (other, rival) = await sign_up(2)
    await guest.refused(score_of(1, user_id=other), "FORBIDDEN")
    await guest.refused(GetFriendRankings(user_id=other), "FORBIDDEN")
    arcade.redis.hset(keys.user(name), "role", "GAME_SERVER")
    await guest.sign_in(name)
    await guest.refused(score_of(1, user_id="nobody-at-all"), "USER_NOT_FOUND")
    accepted = cast(ScoreAccepted, await guest.ask(score_of(77, "game6", user_id=other)))
    await processed(rival, accepted.task_id)
    assert shown(await read(rival, BoardType.TOTAL, "game6")) == [(1, other, 77)]


async def test_the_results_of_a_game_become_scores(arcade: Cluster, sign_up: SignUp) -> None:
    (one, guest), (other, rival) = await sign_up(2)
    wire = connect_wire(str(arcade.settings["redis.url"]))
    outbox = Outbox(wire)
    running = asyncio.create_task(outbox.run())
    results = (Result(one, 10, f"task_1_{one}_1"), Result(other, 20, f"task_1_{other}_1"))
    fact = GameFinished("session-1", "game7", "easy", results, now_ms())
    for _ in range(2):  # as after a crash
        announce(outbox, "game_finished:session-1", "trace", fact)
    for name, player in ((one, guest), (other, rival)):
        await processed(player, f"task_1_{name}_1")
    assert shown(await read(guest, BoardType.TOTAL, "game7")) == [(1, other, 20), (2, one, 10)]
    running.cancel()
    await wire.aclose()


async def test_a_score_of_a_game_session_needs_one_that_was_played_long_enough_and_once(
    arcade: Cluster, sign_up: SignUp
) -> None:
    (one, guest), (other, _), (_, stranger) = await sign_up(3)
    for session_id, age_ms in (("played", 5000), ("new", 0)):
        session: dict[str | bytes, Any] = {
            "difficulty": "easy", "level": 1, "region": "", "cost": 0, "players": f"{one},{other}",
            "created_at": now_ms() - age_ms,
        }  # fmt: skip
        arcade.redis.hset(keys.game_session(session_id), mapping=session)  # type: ignore[arg-type]
    accepted = await submit(guest, 50, "game9", game_session_id="played")
    assert accepted.score == 50
    for session_id, words in (("played", "has a result"), ("new", "No game is over"), ("none", "no such")):
        asked = score_of(60, "game9", game_session_id=session_id)
        assert words in str(await guest.refused(asked, "INVALID_SCORE"))
    await stranger.refused(score_of(60, "game9", game_session_id="played"), "INVALID_SCORE")
    assert shown(await read(guest, BoardType.TOTAL, "game9")) == [(1, one, 50)]


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
    assert len(set(found)) == len(found) <= most < 20
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


async def test_scores_of_a_worker_that_is_killed_count_once(arcade: Cluster, sign_up: SignUp) -> None:
    players = await sign_up(4)
    asked = []
    for number in range(1, 41):
        _, guest = players[number % 4]
        asked.append(asyncio.create_task(guest.ask(score_of(number, "game8"))))
        if number in {15, 30}:
            await asyncio.sleep(0.05)
            arcade["ranking-2"].kill()
            arcade.start_worker("ranking", 2)
    accepted = [cast(ScoreAccepted, answer) for answer in await asyncio.gather(*asked)]
    assert len({answer.task_id for answer in accepted}) == 40
    async with asyncio.timeout(HEARING_S):
        while arcade.redis.xlen(keys.SUBMITTED_SCORES):
            await asyncio.sleep(0.05)
    names = [name for name, _ in players]
    found = await read(players[0][1], BoardType.TOTAL, "game8")
    assert shown(found) == [(1, names[0], 40), (2, names[3], 39), (3, names[2], 38), (4, names[1], 37)]
