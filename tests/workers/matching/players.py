"""What the state machine of matching is made of: workers, step by step, and what must be so of players."""

from dataclasses import dataclass, field

from storage.matches import MatchBoard, Matches, News
from tests.storage.lobby import SESSION_TTL_S, Lobby
from workers.matching.crowd import Crowd, widening


class Worker:
    """What a matching worker knows and does, one step at a time."""

    def __init__(self, lobby: Lobby) -> None:
        self.matches = Matches(lobby.redis, SESSION_TTL_S)
        self.board = MatchBoard(lobby.redis)
        self.crowd = Crowd(dict.fromkeys(("easy",), widening("0:0 2:1 10:5+ 30:99+")))
        self.cursor = ""

    async def hear(self, news: News) -> None:
        """Take in what the feed has."""
        self.cursor = news.cursor
        if news.is_lost:
            self.crowd.replace(await self.board.waiting())
        else:
            self.crowd.hear(news.changes)

    async def catch_up(self) -> None:
        """Know all that there is to know, and who is back."""
        news, *_ = await self.matches.tick(self.cursor, "nobody", 0.001)
        await self.hear(news)
        away = dict(self.crowd.away)
        present = await self.board.present(list(away.values()))
        self.crowd.back([entry for entry, user_id in away.items() if user_id in present])


@dataclass
class Stay:
    """What must be so of a player who entered: waits since then, or plays."""

    entry: int
    since_ms: int
    deadline_ms: int
    session_id: str | None = None


@dataclass
class Game:
    """A session that was made."""

    players: tuple[str, ...]
    told: bool = False
    since: dict[str, int] = field(default_factory=dict)
