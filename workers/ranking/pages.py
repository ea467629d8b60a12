"""Parts of boards as clients see them: with nicknames, and encoded once for all that ask at the same time."""

from collections.abc import Sequence, Set
from typing import cast

import msgspec

from protocol.codec import encode
from protocol.messages.ranking import Ranking
from storage.boards import Boards, Page, Place
from storage.gathering import Gathering
from storage.nicknames import Nicknames


class Pages:
    """Reads pages. Raises StoreAway."""

    def __init__(self, boards: Boards, nicknames: Nicknames) -> None:
        self._boards = boards
        self._nicknames = nicknames
        self._gathering = Gathering(self._look_up)

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
