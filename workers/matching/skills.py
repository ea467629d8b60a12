"""What results say of players' skill, by openskill's Plackett-Luce model (Weng and Lin, JMLR 12, 2011)."""

from collections.abc import Awaitable, Callable, Mapping, Sequence, Set

import structlog
from openskill.models import PlackettLuce

from storage.errors import StoreAway
from storage.games import Games, Skill
from storage.gathering import Gathering

log = structlog.get_logger(__name__)

_model = PlackettLuce()


def rate(before: Sequence[Skill | None], scores: Sequence[int]) -> Sequence[Skill]:
    """The players' skills after a game. None is one who has not played before; higher scores are better."""
    teams = [[_model.rating() if each is None else _model.rating(each.mu, each.sigma)] for each in before]
    rated = _model.rate(teams, scores=[float(score) for score in scores])
    return [Skill(team[0].mu, team[0].sigma) for team in rated]


class Skills:
    """Players' skills as the pairing takes them: a point of the model is a level, who is not known has 0."""

    def __init__(self, games: Games, difficulties: Set[str]) -> None:
        """`difficulties` are those at which skill counts."""
        self._games = games
        self._asked = {
            difficulty: Gathering(self._look_up(difficulty)) for difficulty in sorted(difficulties)
        }

    def counts(self, difficulty: str) -> bool:
        """Whether skill counts at a difficulty."""
        return difficulty in self._asked

    async def of(self, user_id: str, difficulty: str) -> float:
        """A player's skill, 0 where it does not count. All of a turn of the loop are looked up together.

        A match is worth more than a good match: while the database is away nobody's skill is known.
        """
        if difficulty not in self._asked:
            return 0.0
        try:
            return await self._asked[difficulty].get(user_id) or 0.0
        except StoreAway as error:
            log.warning("matching without skill", cause=str(error))
            return 0.0

    def _look_up(self, difficulty: str) -> Callable[[Set[str]], Awaitable[Mapping[str, float]]]:
        async def look_up(user_ids: Set[str]) -> Mapping[str, float]:
            found = await self._games.skills(difficulty, user_ids)
            return {user_id: skill.mu - _model.mu for user_id, skill in found.items()}

        return look_up
