"""The book of sessions: what a worker left of it when it died, another finishes, once."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from protocol.announcement import GameFinished
from storage import keys
from storage.connections import connect_wire
from storage.database import Database
from storage.events import open_bus, read_announcement
from storage.games import AlreadyFinished, Finish, Games
from storage.matches import Session
from storage.migrations import migrate
from storage.queues import Outbox
from storage.servers import now_ms
from storage.whereabouts import Whereabouts
from tests.storage.lobby import Lobby, open_lobby
from workers.matching.book import Book, task_ids
from workers.matching.skills import Skills

pytestmark = pytest.mark.servers

AGO_MS = 60_000


@dataclass
class Library:
    """The stores of matching workers."""

    lobby: Lobby
    games: Games
    outbox: Outbox
    whereabouts: Whereabouts

    def book(self) -> Book:
        """That of one more worker."""
        skills = Skills(self.games, frozenset())
        return Book(
            self.games, self.lobby.matches, self.lobby.board, self.outbox, skills, self.whereabouts,
            leads=lambda: True,
        )  # fmt: skip

    async def session(self, session_id: str, *user_ids: str) -> Session:
        """A session that was made of players who waited."""
        await self.lobby.wait(*user_ids)
        assert (await self.lobby.match(session_id, *user_ids)).is_made
        made = await self.lobby.board.session(session_id)
        assert made is not None
        return made

    async def announced(self) -> list[tuple[str, list[str]]]:
        """The ends that are on the bus: their ids, and those of their results."""
        entries: Any = await self.lobby.redis.xrange(keys.EVENT_BUS)
        announcements = [read_announcement(fields[b"m"]) for _, fields in entries]
        return [
            (each.id, [result.task_id for result in each.fact.results])
            for each in announcements
            if isinstance(each.fact, GameFinished)
        ]


@pytest.fixture(params=[("sqlite", "valkey"), ("mariadb", "redis7")], ids="-".join)
async def library(request: pytest.FixtureRequest) -> AsyncIterator[Library]:
    url, redis_url = (request.getfixturevalue(f"{kind}_url") for kind in request.param)
    await migrate(url)
    database, wire = Database(url), connect_wire(redis_url)
    async with open_lobby(redis_url) as lobby:
        await open_bus(lobby.redis)
        # Somebody who listens: without, the bus keeps nothing.
        await lobby.redis.xgroup_create(keys.EVENT_BUS, "listening", id="$", mkstream=True)
        outbox = Outbox(wire)
        sending = asyncio.create_task(outbox.run())
        yield Library(lobby, Games(database), outbox, Whereabouts(wire))
        sending.cancel()
        await asyncio.wait([sending])
        await wire.aclose()
    await database.close()


def ended(session: Session, request_id: str, at_ms: int) -> Finish:
    scores = tuple((user_id, 7 + number) for number, user_id in enumerate(session.players))
    return Finish(session, "suika", scores, request_id, at_ms)


async def test_an_end_whose_worker_died_after_the_commit_is_announced_by_another(library: Library) -> None:
    session = await library.session("game-1", "bora", "chul")
    finish = ended(session, "request-1", now_ms() - AGO_MS)
    assert await library.games.finish(finish, None) == finish  # and dies

    await library.book().finish_left()

    expected = ("game_finished:game-1", task_ids(finish))
    assert await library.announced() == [expected]
    assert [await library.lobby.status(user_id) for user_id in session.players] == [None, None]
    assert await library.games.unannounced(0, 3600, 10) == []
    # The game's server had no answer, and asks again; anybody else is too late.
    assert await library.book().finish(ended(session, "request-1", now_ms()), "trace") == finish
    with pytest.raises(AlreadyFinished):
        await library.book().finish(ended(session, "request-2", now_ms()), "trace")
    assert await library.announced() == [expected] * 2, "the same again, told by its id"


async def test_players_who_found_another_match_meanwhile_keep_it(library: Library) -> None:
    first = await library.session("game-1", "bora", "chul")
    await library.games.finish(ended(first, "request-1", now_ms()), None)  # and dies
    await library.lobby.matches.finish("game-1", first.players)
    await library.session("game-2", "bora", "chul")
    await library.book().finish(ended(first, "request-1", now_ms()), "trace")
    standing = await library.lobby.board.standing("bora")
    assert standing is not None
    assert standing.meeting is not None
    assert standing.meeting.session_id == "game-2"


async def test_a_session_whose_worker_died_before_it_was_written_is_written_by_another(
    library: Library,
) -> None:
    session = await library.session("game-1", "bora", "chul")
    await library.lobby.matches.told(["game-1"])  # and dies
    await library.lobby.redis.zincrby(keys.GAME_UNWRITTEN, -AGO_MS, "game-1")
    await library.book().finish_left()

    assert await library.games.session("game-1") == session
    assert await library.lobby.board.unwritten(-3600.0, 10) == []


async def test_of_ends_that_race_over_two_workers_one_counts(library: Library) -> None:
    session = await library.session("game-1", "bora", "chul")
    books = [library.book(), library.book()] * 3
    outcomes = await asyncio.gather(
        *(book.finish(ended(session, f"request-{number}", now_ms()), "trace")
          for number, book in enumerate(books)),
        return_exceptions=True,
    )  # fmt: skip
    (won,) = [outcome for outcome in outcomes if isinstance(outcome, Finish)]
    assert sum(isinstance(outcome, AlreadyFinished) for outcome in outcomes) == len(books) - 1
    assert await library.announced() == [("game_finished:game-1", task_ids(won))]
