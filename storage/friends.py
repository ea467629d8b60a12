"""The noun "friend": SQL is the truth of who is whose, a sorted set in Redis spares it a read per look.

A friendship is two rows, one for either side, made and ended in one transaction. A user without friends has a
set of themself alone, since Redis knows no empty one. A set lives for a minute; `functions/friends.lua` says
why a change made here is noticed at once.
"""

import json
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from typing import Any, NamedTuple
from uuid import uuid4

from sqlalchemy import delete, func, insert, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from protocol.messages.ranking import BoardType
from storage import keys
from storage.boards import Place, Raised
from storage.database import Database
from storage.errors import redis_away_is_store_away
from storage.functions import Library
from storage.gathering import Gathering
from storage.periods import ALL
from storage.placing import score_of
from storage.tables import friends, users
from storage.wire import Argument, Wire

LIBRARY = Library("friends")

CACHE_LIFE_S = 60
MARK_LIFE_S = 10
"""How long a reader's mark is kept: well above what a read from SQL may take."""

MOST_OVERTAKING = 50
"""Players whose friends one call looks at: it keeps Redis for a few ms then."""

BOARD = keys.board(BoardType.TOTAL.value, ALL)


class Overtook(NamedTuple):
    """A friend has passed a user, with this score to this rank."""

    user_id: str
    friend_id: str
    score: int
    rank: int


class NoSuchFriend(Exception):
    """There is no account of this user id."""


class TooManyFriends(Exception):
    """One of the two has as many friends as there may be."""


class Friends:
    """Who is whose friend. Every method raises StoreAway when a store that it needs is away.

    A change that returns is seen by all who ask from then on.
    """

    def __init__(self, database: Database, redis: Wire, most: int) -> None:
        """`most` friends may one user have."""
        self._database = database
        self._redis = redis
        self._most = most
        self._scores = Gathering(self._look_up)

    async def of(self, user_id: str) -> list[tuple[str, str]]:
        """A user's friends and their nicknames, by user id; read from SQL."""

        async def query(connection: AsyncConnection) -> list[tuple[str, str]]:
            rows = await connection.execute(
                select(users.c.user_id, users.c.nickname)
                .join(friends, friends.c.friend_id == users.c.user_id)
                .where(friends.c.user_id == user_id)
                .order_by(users.c.user_id)
            )
            return [(friend_id, nickname) for friend_id, nickname in rows]

        return await self._database.read(query)

    async def add(self, user_id: str, friend_id: str) -> None:
        """Make two users friends, if they are not. Raises NoSuchFriend or TooManyFriends."""
        pair = sorted({user_id, friend_id})

        async def work(connection: AsyncConnection) -> None:
            await _lock(connection, pair)
            if await _are_friends(connection, user_id, friend_id):
                return
            for each in pair:
                count = select(func.count()).select_from(friends).where(friends.c.user_id == each)
                if (await connection.scalar(count) or 0) >= self._most:
                    raise TooManyFriends(each)
            now_ms = int(time.time() * 1000)
            rows = [
                {"user_id": one, "friend_id": other, "created_at": now_ms}
                for one, other in (pair, pair[::-1])
            ]
            await connection.execute(insert(friends), rows)

        await self._database.transaction(work)
        await self._forget(pair)

    async def remove(self, user_id: str, friend_id: str) -> None:
        """End a friendship, if there is one. Raises NoSuchFriend."""
        pair = sorted({user_id, friend_id})

        async def work(connection: AsyncConnection) -> None:
            await _lock(connection, pair)
            both = [(user_id, friend_id), (friend_id, user_id)]
            await connection.execute(
                delete(friends).where(tuple_(friends.c.user_id, friends.c.friend_id).in_(both))
            )

        await self._database.transaction(work)
        await self._forget(pair)

    async def ranked(self, user_id: str) -> list[Place]:
        """The user and those friends who have a score on the all-time board, best first, ranked among
        themselves.

        All that are asked for in one turn of the loop are read together.
        """
        return ranked(await self._scores.get(user_id) or [])

    async def overtake(self, raised: Sequence[Raised]) -> None:
        """Note whom these users have passed among their friends, for `take_overtaken`."""
        risen = {each.user_id: each for each in raised if each.has_risen}
        # Not from the cache: hardly anybody plays twice while it lives, and to fill it costs more.
        found = await self._find(sorted(risen)) if risen else {}
        names = [BOARD, keys.RANKING_OVERTAKEN, keys.RANKING_OVERTAKEN_DUE]
        having = list(found)
        for start in range(0, len(having), MOST_OVERTAKING):
            args: list[Argument] = []
            for user_id in having[start : start + MOST_OVERTAKING]:
                each = risen[user_id]
                before = -1 if each.score_before is None else each.score_before
                args += [user_id, before, each.score, json.dumps(found[user_id])]
            await self._call("friends_overtake", names, args)

    async def take_overtaken(self, most: int, gap_s: float) -> list[Overtook]:
        """Who is to hear now that a friend passed them; they hear of the next after `gap_s` seconds."""
        names = [keys.RANKING_OVERTAKEN, keys.RANKING_OVERTAKEN_DUE]
        answer = await self._call("friends_overtaken", names, [most, int(gap_s * 1000)])
        taken = []
        for i in range(0, len(answer), 2):
            friend_id, score, rank = answer[i + 1].decode().split("|")
            taken.append(Overtook(answer[i].decode(), friend_id, int(score), int(rank)))
        return taken

    async def _look_up(self, user_ids: Set[str]) -> dict[str, list[tuple[str, float | None]]]:
        found, missing = await self._read(list(user_ids))
        if missing:
            # Once more where a change came between; then what SQL says has no cache to stand in.
            found |= (await self._read(missing))[0]
        return found

    async def _read(
        self, user_ids: Sequence[str]
    ) -> tuple[dict[str, list[tuple[str, float | None]]], list[str]]:
        mark = f"?{uuid4().hex}"
        names = [BOARD, *map(keys.ranking_friends, user_ids)]
        answers = await self._call("friends_read", names, [mark, MARK_LIFE_S * 1000])
        rows = dict(zip(user_ids, answers, strict=True))
        missing = [user_id for user_id in user_ids if rows[user_id] is None]
        await self._fill(missing, mark)
        return {user_id: _numbers(row) for user_id, row in rows.items() if row is not None}, missing

    async def _fill(self, user_ids: Sequence[str], mark: str) -> None:
        if not user_ids:
            return
        found = await self._find(user_ids)
        args: list[Argument] = [mark, CACHE_LIFE_S * 1000]
        args += [json.dumps([user_id, *found.get(user_id, ())]) for user_id in user_ids]
        await self._call("friends_fill", [BOARD, *map(keys.ranking_friends, user_ids)], args)

    async def _find(self, user_ids: Sequence[str]) -> Mapping[str, list[str]]:
        async def query(connection: AsyncConnection) -> dict[str, list[str]]:
            found: dict[str, list[str]] = defaultdict(list)
            rows = select(friends.c.user_id, friends.c.friend_id).where(friends.c.user_id.in_(user_ids))
            for user_id, friend_id in await connection.execute(rows):
                found[user_id].append(friend_id)
            return found

        return await self._database.read(query)

    async def _forget(self, user_ids: Sequence[str]) -> None:
        with redis_away_is_store_away():
            await self._redis.execute_command("DEL", *map(keys.ranking_friends, user_ids))

    async def _call(self, function: str, names: Sequence[str], args: Sequence[Argument]) -> Any:
        return await LIBRARY.call(self._redis, function, names, args)


def ranked(numbers: Sequence[tuple[str, float | None]]) -> list[Place]:
    """Users by their numbers, best first; equal scores share a rank, who has no number has none."""
    known = sorted(((number, user_id) for user_id, number in numbers if number is not None), reverse=True)
    places: list[Place] = []
    for index, (number, user_id) in enumerate(known):
        score = score_of(number)
        shares = places and places[-1].score == score
        places.append(Place(places[-1].rank if shares else index + 1, user_id, score))
    return places


def _numbers(row: Sequence[bytes]) -> list[tuple[str, float | None]]:
    return [(row[i].decode(), float(row[i + 1]) if row[i + 1] else None) for i in range(0, len(row), 2)]


async def _lock(connection: AsyncConnection, pair: Sequence[str]) -> None:
    """Hold both accounts, so that nobody else counts their friends now. Raises NoSuchFriend."""
    statement = select(users.c.user_id).where(users.c.user_id.in_(pair)).order_by(users.c.user_id)
    found = set(await connection.scalars(statement.with_for_update()))
    for user_id in pair:
        if user_id not in found:
            raise NoSuchFriend(user_id)


async def _are_friends(connection: AsyncConnection, user_id: str, friend_id: str) -> bool:
    statement = select(friends.c.user_id).where(
        friends.c.user_id == user_id, friends.c.friend_id == friend_id
    )
    return await connection.scalar(statement) is not None
