"""The queue server's library: loaded when it is missing, beside another, and refusing before it writes."""

import asyncio
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from storage import keys
from storage.functions import Library
from storage.queues import GROUP, Entry
from storage.wire import Argument
from tests.storage.queues.making import LONG_S, Outcomes, Peer, lanes, queue

KEYS = ["jobs", keys.queue_meta("jobs"), keys.queue_stats("jobs"), keys.dead_letters("jobs"), keys.QUEUE_IDS]
QUEUE, META, STATS, LETTERS, INDEX = KEYS

Call = tuple[str, Sequence[str], Sequence[Argument]]

# The calls as storage/queues makes them; `HELD` stands for the id of an entry that is being worked on.
CALLS: list[Call] = [
    ("queue_create", [QUEUE, META, INDEX], ["jobs", GROUP, "maxSize", "5"]),
    ("queue_delete", [QUEUE, META, STATS, INDEX], ["jobs"]),
    ("queue_publish", [QUEUE, META, STATS], ["1", "2"]),
    ("queue_read", [QUEUE], [GROUP, "login-1", "1"]),
    ("queue_acknowledge", [QUEUE, STATS], [GROUP, "HELD"]),
    ("queue_renew", [QUEUE], [GROUP, "login-1", "HELD"]),
    ("queue_claim", [QUEUE, STATS], [GROUP, "heir", "0"]),
    ("queue_dead_letter", [QUEUE, STATS, LETTERS], ["jobs", GROUP, "HELD", "CRASHED", "1"]),
    ("queue_expire", [QUEUE, META, STATS, LETTERS], ["jobs", GROUP, "1", "10"]),
    ("queue_leave", [QUEUE], [GROUP, "login-1"]),
    ("queue_forget", [QUEUE], [GROUP, "0"]),
]


def at_key(call: Call) -> list[tuple[Call, str]]:
    return [(call, key) for key in call[1]]


@pytest.fixture
def later_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Library:
    """The library of a release whose text differs."""
    text = resources.files("storage.functions").joinpath("queues.lua").read_text("utf-8")
    tmp_path.joinpath("queues.lua").write_text(f"{text}\n-- A later release.\n", "utf-8")
    monkeypatch.setattr("storage.functions.resources.files", lambda _: tmp_path)
    return Library("queues")


async def everything(redis: Redis) -> dict[bytes, Any]:
    """All that a Redis holds, byte by byte, with the times of pending entries."""
    names: Any = await redis.keys()
    return {name: await redis.dump(name) for name in names}


async def working_queue(peer: Peer) -> Entry:
    """A queue in the middle of its life: one entry held, others unread and expired, one given up on."""
    reader = peer.subscribe([queue()])
    await reader.create()
    await peer.publish("jobs", [b"dead", b"held", b"unread", b"unread too"])
    dead, held = await reader.read(2)
    await peer.server.dead_letter(dead, "CRASHED")
    await peer.redis.hset(META, "expireTime", "0")
    await asyncio.sleep(0.002)
    return held


@pytest.mark.parametrize(
    ("call", "broken"),
    [pair for call in CALLS for pair in at_key(call)],
    ids=lambda part: part if isinstance(part, str) else part[0],
)
async def test_what_refuses_has_written_nothing(peer: Peer, call: Call, broken: str) -> None:
    held = await working_queue(peer)
    await peer.redis.delete(broken)
    await peer.redis.set(broken, "neither a stream, a hash nor a set")
    function, names, args = call
    before = await everything(peer.redis)
    library = Library("queues")
    try:
        await library.call(peer.redis, function, names, [held.id if arg == "HELD" else arg for arg in args])
    except ResponseError:
        assert await everything(peer.redis) == before


@pytest.mark.parametrize("function", ["queue_acknowledge", "queue_dead_letter"])
async def test_a_wrong_entry_id_changes_nothing(peer: Peer, function: str) -> None:
    held = await working_queue(peer)
    before = await everything(peer.redis)
    (_, names, args), *_ = [call for call in CALLS if call[0] == function]
    wrong = [part for arg in args for part in ((held.id, "no id") if arg == "HELD" else (arg,))]
    if function == "queue_dead_letter":
        wrong.remove(held.id)
    with pytest.raises(ResponseError, match="Invalid stream ID"):
        await Library("queues").call(peer.redis, function, names, wrong)
    assert await everything(peer.redis) == before


async def test_acknowledging_more_than_lua_can_unpack_changes_nothing(peer: Peer) -> None:
    held = await working_queue(peer)
    before = await everything(peer.redis)
    with pytest.raises(ResponseError, match="too many results to unpack"):
        await Library("queues").call(
            peer.redis, "queue_acknowledge", [QUEUE, STATS], [GROUP, *[held.id] * 8000]
        )
    assert await everything(peer.redis) == before
    assert (
        await Library("queues").call(
            peer.redis, "queue_acknowledge", [QUEUE, STATS], [GROUP, *[held.id] * 7000]
        )
        == 1
    )


async def test_a_lost_library_is_loaded_by_whoever_misses_it(peer: Peer) -> None:
    messages = lanes()
    reader = peer.subscribe(messages)
    queue_id = messages[0].data.queue_id

    lose = peer.lose_library
    await lose()
    await reader.create()
    await lose()
    assert len((await peer.publish(queue_id, [b"1", b"2", b"3", b"4"])).accepted()) == 4
    await lose()
    one, two, three, _ = await reader.read(4)
    await lose()
    await reader.renew({queue_id: [one.id]})
    await lose()
    assert await reader.claim(0) is not None
    await lose()
    await peer.acknowledge([two])
    await lose()
    assert await peer.server.dead_letter(three, "CRASHED") is True
    await lose()
    await reader.leave()
    (now,) = await peer.server.statistics([queue_id])
    assert (now.length, now.pending, now.consumers) == (2, 2, 1)
    await lose()
    assert await peer.server.delete(queue_id) == 2


async def test_a_library_lost_in_the_middle_of_work_costs_nothing(peer: Peer) -> None:
    messages = lanes()
    reader = peer.subscribe(messages)
    await reader.create()
    outcomes = Outcomes()
    got: list[bytes] = []
    for turn in range(50):
        for number in range(30):
            message = f"{turn} {number}".encode()
            peer.outbox.publish(messages[number % 3].data.queue_id, message, outcomes.of(message))
        # Once for each turn, so that who misses the library and loads it does not miss it again.
        losing = asyncio.create_task(peer.lose_library())
        for entry in await reader.read(40):
            got.append(entry.message)
            peer.outbox.acknowledge(entry)
        await peer.outbox.flushed()
        await losing
    while batch := await reader.read(1000):
        got += [entry.message for entry in batch]
        await peer.acknowledge(batch)
    assert len(outcomes.accepted()) == 1500
    assert sorted(got) == sorted(outcomes.accepted())


async def test_two_releases_work_on_one_queue_side_by_side(peer: Peer, later_library: Library) -> None:
    reader = peer.subscribe([queue()])
    await reader.create()
    publish = [QUEUE, META, STATS]
    assert await later_library.call(peer.redis, "queue_publish", publish, [b"later"]) == 1
    await peer.publish("jobs", [b"earlier"])
    read = await reader.read(10)
    assert [entry.message for entry in read] == [b"later", b"earlier"]
    claimed = await later_library.call(peer.redis, "queue_claim", [QUEUE, STATS], [GROUP, "later", 0])
    assert claimed == [read[0].id, [b"m", b"later"], 2]
    assert await reader.claim(LONG_S) is None
    await peer.acknowledge(read)
    libraries = await peer.redis.function_list(library="lobbyd_queues_*")
    assert len(libraries) == 2
    (now,) = await peer.server.statistics(["jobs"])
    assert (now.length, now.pending) == (0, 0)


async def test_loading_twice_is_harmless(peer: Peer, later_library: Library) -> None:
    await asyncio.gather(*(later_library.load(peer.redis) for _ in range(5)))
    assert len(await peer.redis.function_list(library="lobbyd_queues_*")) == 1
