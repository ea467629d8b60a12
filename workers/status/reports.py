"""What a report means for a process's status. Pure: no clock, no Redis."""

from collections.abc import Mapping

from protocol.envelope import ServerStatus

ALIVE = frozenset({"STARTING", "READY", "DRAINING"})
"""The states in which a process is expected to send heartbeats."""


def is_news(report: ServerStatus, known: Mapping[str, str]) -> bool:
    """Whether a report says something newer than what is known.

    A heartbeat that was overtaken by an announcement must not take it back, and the last words of a
    process that was replaced must not overwrite its successor.
    """
    return report.sent_at >= int(known.get("lastHeartbeat", 0))


def has_missed(known: Mapping[str, str], now_ms: int, patience_s: float) -> bool:
    """Whether a process that should send heartbeats has sent none for `patience_s` seconds."""
    if known.get("statusCode") not in ALIVE:
        return False
    return now_ms - int(known.get("lastHeartbeat", 0)) > patience_s * 1000
