"""Which scores can be: the rules of each game, as configured. Pure."""

from protocol.errors import INVALID_REQUEST, INVALID_SCORE, RequestError
from runtime.settings import RankingSettings


def check_game_type(settings: RankingSettings, game_type: str) -> None:
    """Raise RequestError INVALID_REQUEST for a game that nobody configured."""
    if game_type not in settings.score_ceilings:
        known = ", ".join(sorted(settings.score_ceilings))
        raise RequestError(INVALID_REQUEST, f"`gameType`: there is no game {game_type}; there are {known}")


def check_difficulty(settings: RankingSettings, difficulty: str) -> None:
    """Raise RequestError INVALID_REQUEST for a difficulty that nobody configured."""
    if difficulty not in settings.difficulties:
        known = ", ".join(settings.difficulties)
        raise RequestError(INVALID_REQUEST, f"`difficulty`: {difficulty} is none; there are {known}")


def check_score(settings: RankingSettings, game_type: str, score: int) -> None:
    """Raise RequestError INVALID_REQUEST or INVALID_SCORE, in words, for a score that cannot be."""
    check_game_type(settings, game_type)
    ceiling = settings.score_ceilings[game_type]
    if not 0 <= score <= ceiling:
        raise RequestError(INVALID_SCORE, f"A score of {game_type} is from 0 to {ceiling}, this is {score}.")


def check_age(settings: RankingSettings, game_type: str, age_s: float) -> None:
    """Raise RequestError INVALID_SCORE for a game session that is too young for a result."""
    least_s = settings.min_session_s_of.get(game_type, settings.min_session_s)
    if age_s < least_s:
        raise RequestError(
            INVALID_SCORE,
            f"No game is over within {least_s:g} s; this one began {age_s:g} s ago.",
        )
