"""Which scores can be: the rules of each game, as configured. Pure."""

from protocol.errors import INVALID_REQUEST, INVALID_SCORE, RequestError
from protocol.messages.ranking import SubmitScore
from runtime.settings import RankingSettings


def check_game_type(settings: RankingSettings, game_type: str) -> None:
    """Raise RequestError INVALID_REQUEST for a game that nobody configured."""
    if game_type not in settings.score_ceilings:
        known = ", ".join(sorted(settings.score_ceilings))
        raise RequestError(INVALID_REQUEST, f"`gameType`: there is no game {game_type}; there are {known}")


def check_score(settings: RankingSettings, submitted: SubmitScore) -> None:
    """Raise RequestError INVALID_REQUEST or INVALID_SCORE, in words, for a score that cannot be."""
    check_game_type(settings, submitted.game_type)
    if submitted.difficulty not in settings.difficulties:
        known = ", ".join(settings.difficulties)
        raise RequestError(
            INVALID_REQUEST, f"`difficulty`: {submitted.difficulty} is none; there are {known}"
        )
    ceiling = settings.score_ceilings[submitted.game_type]
    if not 0 <= submitted.score <= ceiling:
        raise RequestError(
            INVALID_SCORE,
            f"A score of {submitted.game_type} is from 0 to {ceiling}, this is {submitted.score}.",
        )
