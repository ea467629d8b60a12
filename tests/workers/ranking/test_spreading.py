"""Spreading the word of changed tops: by whom, how soon and how often, whoever dies."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec
import pytest

from protocol.codec import decode_untrusted
from protocol.envelope import Delivery
from protocol.frames import FrameReader
from protocol.messages.ranking import BoardType, Ranking, RankingUpdate
from storage import keys
from storage.boards import Best, Boards, Group
from storage.friends import Friends
from storage.nicknames import Nicknames
from storage.queues import Outbox
from storage.servers import now_ms
from storage.whereabouts import Whereabouts
from tests.storage.hall import KEEP_PAST_S, MOST_FRIENDS, Hall, accepted
from workers.ranking.pages import Pages
from workers.ranking.spreading import Spreading
from workers.ranking.truth import Truth
from workers.telling import Telling

NODES = ("SOCK001", "SOCK002")
NEVER_S = 3600.0


@pytest.fixture(autouse=True)
async def nodes(hall: Hall) -> None:
    """Nodes that take deliveries, and keep them."""
    for node in NODES:
        await hall.wire.execute_command("HSET", keys.queue_meta(keys.node_queue(node)), "maxSize", 1000)
        await hall.wire.execute_command("SADD", keys.QUEUE_IDS, keys.node_queue(node))


@asynccontextmanager
async def worker(hall: Hall) -> AsyncIterator[Boards]:
    """Another worker that spreads the word; answers the boards on which it raises scores."""
    boards, outbox = Boards(hall.wire, KEEP_PAST_S), Outbox(hall.wire)
    pages = Pages(boards, Nicknames(hall.database, hall.wire))
    friends = Friends(hall.database, hall.wire, MOST_FRIENDS)
    telling = Telling(Whereabouts(hall.wire), outbox)
    spreading = Spreading(boards, friends, pages, hall.calendar, telling)
    running = [asyncio.create_task(each) for each in (spreading.run(), outbox.run())]
    yield boards
    for task in running:
        task.cancel()
    await asyncio.wait(running)


async def raise_score(hall: Hall, boards: Boards, user_id: str, score: int) -> None:
    now = now_ms()
    group = Group("suika", hall.calendar.periods(now), [Best(user_id, score, now)])
    await boards.raise_scores([group])


async def told(hall: Hall, node: str) -> dict[BoardType, list[list[int]]]:
    """The scores of all tops that were sent to a node, by board."""
    found: dict[BoardType, list[list[int]]] = {board_type: [] for board_type in BoardType}
    for _, fields in await hall.wire.execute_command("XRANGE", keys.node_queue(node), "-", "+"):
        for each in msgspec.msgpack.decode(fields[1], type=list[Delivery]):
            for body in FrameReader(len(each.frame)).feed(each.frame):
                update = msgspec.convert(decode_untrusted(body)["data"], RankingUpdate)
                assert each.topic == f"ranking:{update.type.value}"
                places = msgspec.convert(update.rankings, list[Ranking])
                found[update.type].append([place.score for place in places])
    return found


async def until_told(hall: Hall, scores: list[int]) -> None:
    """Wait until every board with these scores has been sent to every node."""
    async with asyncio.timeout(60):
        for node in NODES:
            while any(tops[-1:] != [scores] for tops in (await told(hall, node)).values()):
                await asyncio.sleep(0.02)


async def test_whose_score_changes_a_top_tells_it_without_looking_for_it(
    hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.ranking.spreading.LOOK_S", NEVER_S)
    async with AsyncExitStack() as stack:
        one, other = [await stack.enter_async_context(worker(hall)) for _ in range(2)]
        await raise_score(hall, one, "ada", 5)
        await until_told(hall, [5])
        # It is not due yet: whoever noted it waits, and tells what others write meanwhile.
        await raise_score(hall, other, "bob", 6)
        await raise_score(hall, one, "ada", 7)
        await until_told(hall, [7, 6])


async def test_what_a_worker_that_died_was_to_tell_is_told_by_another(hall: Hall) -> None:
    async with worker(hall):
        await raise_score(hall, hall.boards, "ada", 5)
        await until_told(hall, [5])


async def test_subscribers_hear_who_is_taken_off_and_put_back(hall: Hall) -> None:
    truth = Truth(hall.boards, hall.scores, hall.past, hall.removals, hall.calendar, KEEP_PAST_S)
    now = now_ms()
    await hall.keep(accepted(1, "ada", 5, now), accepted(2, "eve", 9, now))
    async with worker(hall) as boards:
        await raise_score(hall, boards, "ada", 5)
        await raise_score(hall, boards, "eve", 9)
        await until_told(hall, [9, 5])
        await truth.remove("eve", "kim", "cheated")
        await until_told(hall, [5])
        await truth.restore("eve")
        await until_told(hall, [9, 5])
