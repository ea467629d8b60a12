"""From what is wrong now and what was, which alerts open, escalate and close. Pure."""

from collections.abc import Mapping, Sequence

import msgspec

from protocol.messages.monitor import Alert, AlertLevel, AlertState
from runtime.settings import MonitoringSettings
from workers.operations.thresholds import Finding


class OpenAlert(msgspec.Struct, frozen=True):
    """An alert that is open, when its finding was last seen (ms since the epoch), and whether it was told."""

    alert: Alert
    seen_at: int
    is_told: bool = False


Open = Mapping[str, OpenAlert]
"""The open alerts by subject. One that is closed stays until that is told."""


def judge(open_alerts: Open, findings: Sequence[Finding], now_ms: int, settings: MonitoringSettings) -> Open:
    """The alerts after a sample; what is not told is to be told now."""
    after = {subject: each for subject, each in open_alerts.items() if not _is_over(each)}
    for finding in findings:
        known = after.get(finding.subject)
        after[finding.subject] = (
            _opened(finding, now_ms) if known is None else _seen(known, finding, now_ms, settings)
        )
    wrong = {finding.subject for finding in findings}
    clear_ms = settings.clear_after_s * 1000
    for subject in after.keys() - wrong:
        known = after[subject]
        if known.alert.state is not AlertState.CLOSED and now_ms - known.seen_at >= clear_ms:
            after[subject] = OpenAlert(known.alert.changed(AlertState.CLOSED, now_ms), known.seen_at)
    return after


def told(alerts: Open) -> Open:
    """The same alerts, all of them told; what is closed is gone."""
    return {
        subject: msgspec.structs.replace(each, is_told=True)
        for subject, each in alerts.items()
        if each.alert.state is not AlertState.CLOSED
    }


def _is_over(known: OpenAlert) -> bool:
    return known.is_told and known.alert.state is AlertState.CLOSED


def _opened(finding: Finding, now_ms: int) -> OpenAlert:
    alert = Alert(
        id=f"{finding.subject}@{now_ms}",
        subject=finding.subject,
        state=AlertState.OPEN,
        level=finding.level,
        message=finding.message,
        value=finding.value,
        limit=finding.limit,
        opened_at=now_ms,
        at=now_ms,
    )
    return OpenAlert(alert, now_ms)


def _seen(known: OpenAlert, finding: Finding, now_ms: int, settings: MonitoringSettings) -> OpenAlert:
    """An alert whose finding is still there: worse, long, or as it was."""
    if known.alert.state is AlertState.CLOSED:  # it came back before its end was told
        return _opened(finding, now_ms)
    is_worse = AlertLevel.CRITICAL in (
        finding.level,
        AlertLevel.CRITICAL
        if now_ms - known.alert.opened_at >= settings.escalate_after_s * 1000
        else AlertLevel.WARNING,
    )
    if not is_worse or known.alert.level is AlertLevel.CRITICAL:
        return msgspec.structs.replace(known, seen_at=now_ms)
    alert = msgspec.structs.replace(
        known.alert.changed(AlertState.ESCALATED, now_ms),
        level=AlertLevel.CRITICAL,
        message=finding.message,
        value=finding.value,
    )
    return OpenAlert(alert, now_ms)
