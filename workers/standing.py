"""Where a player stands with a match, as clients are told it: by `game.status`, and when they are back."""

import math

from protocol.messages.matching import MatchState, MatchStatus
from storage.matches import Meeting, Standing


def match_state(standing: Standing) -> MatchState:
    """The state of one who waits or is in a match."""
    if standing.meeting is not None:
        return matched(standing.meeting)
    left_ms = None if standing.expected_ms is None else max(0, standing.expected_ms - standing.waited_ms)
    return MatchState(
        status=MatchStatus.MATCHING,
        wait_time=standing.waited_ms // 1000,
        estimated_match_time=seconds(left_ms),
    )


def matched(meeting: Meeting) -> MatchState:
    """The state of one who is in a match."""
    return MatchState(
        status=MatchStatus.MATCHED,
        matched_users=list(meeting.others),
        game_session_id=meeting.session_id,
    )


def seconds(ms: float | None) -> int | None:
    """A time that may be unknown, in whole seconds."""
    return None if ms is None else math.ceil(ms / 1000)
