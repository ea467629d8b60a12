"""Who waits for opponents, and who plays with whom."""

from collections.abc import AsyncIterator

import pytest

from storage import keys
from storage.matches import Absence, AlreadyMatched, Entry, Meeting, NotInQueue, Session, Waiter
from tests.storage.lobby import WAIT_MS, Lobby, open_lobby, wants

pytestmark = pytest.mark.servers


@pytest.fixture
async def lobby(redis_url: str) -> AsyncIterator[Lobby]:
    async with open_lobby(redis_url) as lobby:
        yield lobby


async def whats(lobby: Lobby, *user_ids: str) -> list[Entry]:
    return [each.what for each in await lobby.enter(*map(wants, user_ids))]


async def test_who_enters_waits_in_the_queue_of_their_level(lobby: Lobby) -> None:
    first, second = await lobby.enter(wants("bora", skill=1.5), wants("chul", level=7, region=""))
    assert (first.what, second.what) == (Entry.ENTERED, Entry.ENTERED)
    assert second.entry > first.entry
    assert await lobby.queues() == {"game_queue:easy:5": ["bora"], "game_queue:easy:7": ["chul"]}
    standing = await lobby.board.standing("bora")
    assert standing is not None
    assert standing.waiter == Waiter("bora", first.entry, "easy", 5, "asia", 2, standing.waiter.since_ms, 1.5)
    assert (standing.meeting, standing.expected_ms) == (None, None)
    assert 0 <= standing.waited_ms <= WAIT_MS - standing.left_ms + 1
    assert await lobby.board.standing("nobody") is None
    fields = await lobby.redis.hgetall(keys.game_match("bora"))
    assert {b"status", b"difficulty", b"level", b"region", b"created_at"} <= fields.keys()
    assert fields[b"status"] == b"waiting"


async def test_nobody_waits_twice(lobby: Lobby) -> None:
    assert await whats(lobby, "bora", "bora") == [Entry.ENTERED, Entry.ALREADY_MATCHING]
    assert await whats(lobby, "bora") == [Entry.ALREADY_MATCHING]
    (elsewhere,) = await lobby.enter(wants("bora", difficulty="hard"))
    assert elsewhere.what is Entry.ALREADY_MATCHING
    assert await lobby.queues() == {"game_queue:easy:5": ["bora"]}


async def test_a_repeat_finds_what_its_first_came_to(lobby: Lobby) -> None:
    await lobby.connect("bora", "chul")
    record, other = lobby.record(), lobby.record()
    (first,) = await lobby.enter(wants("bora"), records=[record])
    (again, _) = await lobby.enter(wants("bora"), wants("chul"), records=[record, other])
    assert (again.what, again.entry) == (Entry.WAITING, first.entry)
    await lobby.match("game-1", "bora", "chul")
    (met,) = await lobby.enter(wants("chul"), records=[other])
    assert (met.what, met.meeting) == (Entry.MATCHED, Meeting("game-1", ("bora",)))
    await lobby.matches.finish("game-1", ["bora", "chul"])
    (late,) = await lobby.enter(wants("bora"), records=[record])
    assert late.what is Entry.LEFT
    assert await lobby.status("bora") is None


async def test_a_match_takes_all_its_players(lobby: Lobby) -> None:
    entries = await lobby.wait("bora", "chul", "dana", size=3)
    verdict = await lobby.match("game-1", "bora", "chul", "dana")
    assert verdict.is_made
    assert verdict.players == tuple([await lobby.address(each) for each in ("bora", "chul", "dana")])
    assert await lobby.queues() == {}
    standing = await lobby.board.standing("chul")
    assert standing is not None
    assert standing.meeting == Meeting("game-1", ("bora", "dana"))
    assert await lobby.redis.hget(keys.game_match("chul"), "matched_users") == b"bora,dana"
    session = await lobby.board.session("game-1")
    assert session is not None
    assert session == Session("game-1", "easy", 5, "asia", 2.0, ("bora", "chul", "dana"), session.created_ms)
    assert [change for change in lobby.changes if isinstance(change, int)] == entries
    assert await whats(lobby, "bora") == [Entry.ALREADY_MATCHED]


async def test_a_match_takes_none_where_one_is_gone(lobby: Lobby) -> None:
    await lobby.wait("bora", "chul")
    proposal = await lobby.proposal("game-1", "bora", "chul")
    await lobby.matches.cancel("chul", lobby.record())
    (verdict,) = await lobby.claim(proposal)
    assert verdict.players == (await lobby.address("bora"), Absence.GONE)
    # Another stay of the same player is not the one that was proposed.
    await lobby.enter(wants("chul"))
    (verdict,) = await lobby.claim(proposal)
    assert verdict.players[1] is Absence.GONE
    assert await lobby.queues() == {"game_queue:easy:5": ["bora", "chul"]}
    assert await lobby.redis.exists(keys.game_session("game-1")) == 0


@pytest.mark.parametrize("vanished", ["disconnected", "its node", "its node's earlier life"])
async def test_a_match_takes_none_where_one_is_away(lobby: Lobby, vanished: str) -> None:
    await lobby.wait("bora", "chul")
    await lobby.connect("chul", node="SOCK002")
    if vanished == "disconnected":
        await lobby.disconnect("chul")
    elif vanished == "its node's earlier life":
        await lobby.redis.hset(keys.PORTAL_NODES, "SOCK002", str(2**60))
    else:
        await lobby.redis.srem(keys.QUEUE_IDS, keys.node_queue("SOCK002"))
    assert (await lobby.match("game-1", "bora", "chul")).players[1] is Absence.AWAY
    assert await lobby.board.present(["bora", "chul", "nobody"]) == {"bora"}
    assert await lobby.queues() == {"game_queue:easy:5": ["bora", "chul"]}
    await lobby.connect("chul")
    assert (await lobby.match("game-1", "bora", "chul")).is_made


async def test_of_matches_that_share_a_player_one_is_made(lobby: Lobby) -> None:
    await lobby.wait("bora", "chul", "dana")
    one = await lobby.proposal("game-1", "bora", "chul")
    other = await lobby.proposal("game-2", "dana", "chul")
    verdicts = await lobby.claim(one, other)
    assert [verdict.is_made for verdict in verdicts] == [True, False]
    assert verdicts[1].players[1] is Absence.GONE
    assert await lobby.queues() == {"game_queue:easy:5": ["dana"]}


async def test_cancel_is_once_and_never_unknown(lobby: Lobby) -> None:
    await lobby.wait("bora", "chul")
    record = lobby.record()
    await lobby.matches.cancel("bora", record)
    await lobby.matches.cancel("bora", record)
    with pytest.raises(NotInQueue):
        await lobby.matches.cancel("bora", lobby.record())
    await lobby.wait("bora")
    await lobby.match("game-1", "bora", "chul")
    with pytest.raises(AlreadyMatched) as refusal:
        await lobby.matches.cancel("bora", lobby.record())
    assert refusal.value.meeting == Meeting("game-1", ("chul",))


async def test_whose_time_is_up_is_taken_out(lobby: Lobby) -> None:
    await lobby.wait("bora", "chul")
    await lobby.wait("dana", wait_ms=5_000)
    await lobby.pass_time(5)
    await lobby.disconnect("chul")
    (dana,) = await lobby.matches.expire(0, 10)
    assert (dana.user_id, dana.address) == ("dana", await lobby.address("dana"))
    assert 5_000 <= dana.waited_ms < 15_000
    await lobby.pass_time(40)
    assert await lobby.matches.expire(0, 10) == []
    assert {each.user_id for each in await lobby.matches.expire(15, 10)} == {"bora", "chul"}
    assert await lobby.status("bora") is None
    assert await lobby.queues() == {}
    (bucket,) = await lobby.board.buckets()
    assert (bucket.level, bucket.waiting, bucket.timed_out) == (5, 0, 3)


async def test_an_untold_match_is_told_again_while_all_are_there(lobby: Lobby) -> None:
    await lobby.wait("bora", "chul")
    await lobby.match("game-1", "bora", "chul")
    assert await lobby.matches.untold(20.0, 10) == []
    await lobby.pass_time(20)
    addresses = [await lobby.address("bora"), await lobby.address("chul")]
    assert await lobby.matches.untold(20.0, 10) == [("game-1", addresses)]
    await lobby.matches.told(["game-1"])
    assert await lobby.matches.untold(0.0, 10) == []
    assert await lobby.board.unwritten(0.0, 10) == []
    assert await lobby.board.unwritten(-5.0, 10) == ["game-1"]
    await lobby.board.written(["game-1"])
    assert await lobby.board.unwritten(-5.0, 10) == []


async def test_an_untold_match_is_undone_where_one_vanished(lobby: Lobby) -> None:
    entries = await lobby.wait("bora", "chul", "dana", size=3)
    await lobby.pass_time(20)
    await lobby.match("game-1", "bora", "chul", "dana")
    await lobby.disconnect("dana")
    lobby.changes.clear()
    assert await lobby.matches.untold(0.0, 10) == []
    assert await lobby.queues() == {"game_queue:easy:5": ["bora", "chul", "dana"]}
    standing = await lobby.board.standing("bora")
    assert standing is not None
    assert 20_000 <= standing.waited_ms < 40_000
    assert standing.left_ms <= WAIT_MS - 20_000
    assert await lobby.board.session("game-1") is None
    await lobby.enter()
    assert [each.entry for each in lobby.changes if isinstance(each, Waiter)] == entries
    await lobby.pass_time(40)
    assert len(await lobby.matches.expire(0, 10)) == 3


async def test_a_finished_session_frees_its_players_and_no_others(lobby: Lobby) -> None:
    await lobby.wait("bora", "chul", "dana")
    await lobby.match("game-1", "bora", "chul")
    assert await lobby.matches.finish("game-1", ["bora", "chul", "dana", "nobody"]) == 2
    assert await lobby.matches.finish("game-1", ["bora", "chul"]) == 0
    assert [await lobby.status(each) for each in ("bora", "chul", "dana")] == [None, None, "waiting"]
    assert await lobby.redis.zcard(keys.GAME_UNTOLD) == 0


async def test_recent_waits_tell_what_to_expect(lobby: Lobby) -> None:
    await lobby.wait("bora", "chul")
    await lobby.pass_time(10)
    await lobby.match("game-1", "bora", "chul")
    (dana,) = await lobby.enter(wants("dana"))
    assert dana.expected_ms is not None
    assert 10_000 <= dana.expected_ms < 20_000
    (bucket,) = await lobby.board.buckets()
    assert (bucket.matched, bucket.cost, bucket.waiting) == (2, 2.0, 1)


async def test_the_feed_says_who_came_and_went_or_that_it_was_lost(lobby: Lobby) -> None:
    news, sweeps, _ = await lobby.matches.tick("", "one", 5.0)
    assert (news.is_lost, sweeps) == (True, True)
    (entry,) = await lobby.wait("bora")
    heard, sweeps, _ = await lobby.matches.tick(news.cursor, "two", 5.0)
    assert sweeps is False
    # Nothing was there before: what the feed has since is all that there is, or must be read anew.
    assert heard.is_lost
    await lobby.matches.cancel("bora", lobby.record())
    later, *_ = await lobby.matches.tick(heard.cursor, "one", 5.0)
    assert (later.is_lost, list(later.changes)) == (False, [entry])
    await lobby.matches.leave_sweeping("two")
    assert not (await lobby.matches.tick(later.cursor, "two", 5.0))[1]
    await lobby.matches.leave_sweeping("one")
    assert (await lobby.matches.tick(later.cursor, "two", 5.0))[1]
    await lobby.redis.flushall()
    assert (await lobby.matches.tick(later.cursor, "one", 5.0))[0].is_lost


async def test_everybody_who_waits_can_be_read_anew(lobby: Lobby) -> None:
    entries = await lobby.wait("bora", "chul")
    entries += await lobby.wait("dana", difficulty="hard", level=100, region="")
    found = await lobby.board.waiting()
    assert {each.entry for each in found} == set(entries)
    assert {each.user_id: each.region for each in found} == {"bora": "asia", "chul": "asia", "dana": ""}


async def test_a_key_of_another_type_stops_a_batch_before_its_first_write(lobby: Lobby) -> None:
    await lobby.redis.set(keys.game_waiting("easy", 9), "no queue")
    with pytest.raises(Exception, match="WRONGTYPE"):
        await lobby.enter(wants("bora"), wants("chul", level=9))
    assert await lobby.status("bora") is None
