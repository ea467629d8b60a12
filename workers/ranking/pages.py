"""Parts of boards as clients see them: with nicknames, and encoded once for all that ask at the same time."""

import asyncio
from asyncio import Future
from collections.abc import Sequence, Set
from typing import cast

import msgspec

from protocol.codec import encode
from protocol.messages.ranking import Ranking
from storage.boards import Boards, Page, Place
from storage.gathering import Gathering
from storage.nicknames import Nicknames

RECENT_S = 0.05
"""How old a page may be that is kept for the next asker. A score has a second to become visible, and all that
ask for a top 100 within this time cost Redis one read of it."""


class Pages:
    """Reads pages. Raises StoreAway."""

    def __init__(self, boards: Boards, nicknames: Nicknames) -> None:
        self._boards = boards
        self._nicknames = nicknames
        self._gathering = Gathering(self._look_up)
        self._kept: dict[Page, Future[list[Ranking]]] = {}
        self._kept_since_s = 0.0

    def recent(self, page: Page) -> Future[list[Ranking]]:
        """The same as `get`, as it was at most RECENT_S ago; its reading has begun when this returns."""
        now_s = asyncio.get_running_loop().time()
        if now_s - self._kept_since_s > RECENT_S:
            self._kept, self._kept_since_s = {}, now_s
        kept = self._kept.get(page)
        if kept is None:
            kept = self._kept[page] = asyncio.ensure_future(self.get(page))
        reading = asyncio.shield(kept)  # others may wait for the same
        reading.add_done_callback(_look)  # whoever asked may have failed meanwhile
        return reading

    async def get(self, page: Page) -> list[Ranking]:
        """A part of a board, to be sent and not looked at: it is encoded already.

        All that are asked for in one turn of the loop are read together, and each once.
        """
        return await self._gathering.get(page) or []

    async def rankings(self, places: Sequence[Place]) -> list[Ranking]:
        """Places with their users' nicknames."""
        names = await self._nicknames.of(place.user_id for place in places)
        return [
            Ranking(rank=rank, user_id=user_id, nickname=names[user_id], score=score)
            for rank, user_id, score in places
        ]

    async def _look_up(self, pages: Set[Page]) -> dict[Page, list[Ranking]]:
        found = await self._boards.pages(pages)
        # A top 100 is 5 KB; to build and encode it again for each asker is most of what an answer costs.
        return {
            page: cast("list[Ranking]", msgspec.Raw(encode(await self.rankings(places))))
            for page, places in found.items()
        }


def _look(reading: Future[list[Ranking]]) -> None:
    """Keep asyncio from reporting a failure that nobody waits for."""
    if not reading.cancelled():
        reading.exception()
