"""Alerts open once, escalate once, close once."""

from protocol.messages.monitor import AlertLevel, AlertState
from runtime.settings import MonitoringSettings
from workers.operations.alerts import Open, judge, told
from workers.operations.thresholds import Finding

SETTINGS = MonitoringSettings(escalate_after_s=60, clear_after_s=10)
SLOW = Finding("latency:SOCK001", AlertLevel.WARNING, "slow", 2.0, 1.0)
SILENT = Finding("server:SOCK002", AlertLevel.WARNING, "silent", 11.0, 10.0)
DOWN = Finding("server:SOCK002", AlertLevel.CRITICAL, "down", 16.0, 10.0)


class Story:
    """Samples one after the other; `news` is what each brings."""

    def __init__(self) -> None:
        self.open: Open = {}
        self.now_ms = 1_000_000

    def after(self, seconds: float, *findings: Finding) -> list[tuple[str, AlertState, AlertLevel]]:
        """What is told after a sample that comes so much later."""
        self.now_ms += int(seconds * 1000)
        judged = judge(self.open, findings, self.now_ms, SETTINGS)
        news = [each.alert for each in judged.values() if not each.is_told]
        self.open = told(judged)
        return [(alert.subject, alert.state, alert.level) for alert in news]


def test_an_alert_opens_once_and_closes_once() -> None:
    story = Story()
    assert story.after(5, SLOW) == [("latency:SOCK001", AlertState.OPEN, AlertLevel.WARNING)]
    assert story.after(5, SLOW) == []
    assert story.after(5) == []
    assert story.after(5) == [("latency:SOCK001", AlertState.CLOSED, AlertLevel.WARNING)]
    assert story.after(5) == []
    assert story.open == {}


def test_what_comes_and_goes_is_one_alert() -> None:
    story = Story()
    assert len(story.after(5, SLOW)) == 1
    for _ in range(6):
        assert story.after(5) == []
        assert story.after(4, SLOW) == []


def test_what_lasts_escalates_once() -> None:
    story = Story()
    story.after(0, SLOW)
    told_of = [news for _ in range(30) for news in story.after(5, SLOW)]
    assert told_of == [("latency:SOCK001", AlertState.ESCALATED, AlertLevel.CRITICAL)]
    story.after(5)
    assert story.after(5) == [("latency:SOCK001", AlertState.CLOSED, AlertLevel.CRITICAL)]


def test_what_gets_worse_escalates_at_once() -> None:
    story = Story()
    assert story.after(0, SILENT) == [("server:SOCK002", AlertState.OPEN, AlertLevel.WARNING)]
    assert story.after(5, DOWN) == [("server:SOCK002", AlertState.ESCALATED, AlertLevel.CRITICAL)]
    assert story.after(5, DOWN) == []


def test_what_is_critical_from_the_start_does_not_escalate() -> None:
    story = Story()
    assert story.after(0, DOWN) == [("server:SOCK002", AlertState.OPEN, AlertLevel.CRITICAL)]
    assert story.after(3600, DOWN) == []


def test_what_was_not_told_is_told_by_the_next() -> None:
    before = judge({}, [SLOW], 1_000, SETTINGS)
    again = judge(before, [SLOW], 6_000, SETTINGS)
    assert [each.alert.id for each in again.values() if not each.is_told] == ["latency:SOCK001@1000"]
    ended = judge(again, [], 16_000, SETTINGS)
    later = judge(ended, [], 21_000, SETTINGS)
    assert [each.alert.state for each in later.values()] == [AlertState.CLOSED]


def test_an_alert_that_comes_back_after_its_end_is_another() -> None:
    story = Story()
    story.after(0, SLOW)
    first = story.open["latency:SOCK001"].alert
    story.after(10)
    assert story.after(5, SLOW) == [("latency:SOCK001", AlertState.OPEN, AlertLevel.WARNING)]
    assert story.open["latency:SOCK001"].alert.id != first.id
