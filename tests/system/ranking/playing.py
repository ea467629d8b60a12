"""What players do in the tests of ranking: submit scores, wait for them, read boards."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

from protocol.messages.ranking import (
    BoardType,
    GetRankings,
    Rankings,
    RankingUpdate,
    ScoreAccepted,
    SubmitScore,
)
from tests.system.guest import HEARING_S, Guest
from workers.ranking.pages import RECENT_S

Player = tuple[str, Guest]
SignUp = Callable[[int], Awaitable[list[Player]]]


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
