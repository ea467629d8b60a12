"""The periods of boards: days, ISO weeks and months in one time zone, and all of time.

Pure. A period's name is what keys and clients call it: `20241218`, `2024W51`, `202412`, `all`. Weeks are
those of ISO 8601, which belong to the year of their Thursday: 2024-12-30 is in 2025W01.
"""

import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from protocol.messages.ranking import BoardType

ALL = "all"

EPOCH_MS = 1_577_836_800_000
"""2020-01-01 UTC: no score is older, and all-time boards count from there."""

_NAMES = {
    BoardType.DAILY: re.compile(r"(\d{4})(\d{2})(\d{2})"),
    BoardType.WEEKLY: re.compile(r"(\d{4})W(\d{2})"),
    BoardType.MONTHLY: re.compile(r"(\d{4})(\d{2})"),
}


@dataclass(frozen=True, slots=True)
class Period:
    """A stretch of time, in ms since the epoch, whose scores are compared; all of time has no end."""

    type: BoardType
    name: str
    starts_ms: int
    ends_ms: int | None

    def is_over(self, now_ms: int) -> bool:
        """Whether no score can be submitted for it any more."""
        return self.ends_ms is not None and now_ms >= self.ends_ms


ALL_TIME = Period(BoardType.TOTAL, ALL, EPOCH_MS, None)


@dataclass(frozen=True, slots=True)
class Periods:
    """The periods that a moment lies in."""

    day: Period
    week: Period
    month: Period

    def __getitem__(self, board_type: BoardType) -> Period:
        match board_type:
            case BoardType.DAILY:
                return self.day
            case BoardType.WEEKLY:
                return self.week
            case BoardType.MONTHLY:
                return self.month
        return ALL_TIME


class Calendar:
    """Finds periods in a time zone."""

    def __init__(self, zone: str) -> None:
        """Raises ValueError for a zone that there is not."""
        try:
            self._zone = ZoneInfo(zone)
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"there is no time zone `{zone}`; Asia/Seoul is one") from error
        self._latest: Periods | None = None

    def periods(self, at_ms: int) -> Periods:
        """The periods of a moment, in ms since the epoch."""
        latest = self._latest
        if latest is not None and latest.day.starts_ms <= at_ms < (latest.day.ends_ms or 0):
            return latest
        day = datetime.fromtimestamp(at_ms / 1000, self._zone).date()
        self._latest = Periods(self._day(day), self._week(day), self._month(day))
        return self._latest

    def named(self, board_type: BoardType, name: str) -> Period:
        """The period of this name. Raises ValueError, in words, for a name that is none of the type."""
        if board_type is BoardType.TOTAL:
            if name != ALL:
                raise ValueError(f"a total board has the one period `{ALL}`")
            return ALL_TIME
        match = _NAMES[board_type].fullmatch(name)
        try:
            if match is not None and name.isascii():
                return self._found(board_type, [int(part) for part in match.groups()])
        except (ValueError, OverflowError):
            pass
        example = self.periods(EPOCH_MS)[board_type].name
        raise ValueError(f"`{name}` is no period of a {board_type.value} board; {example} is one")

    def ending(self, name: str) -> Period:
        """The day, week or month of this name. Raises ValueError, in words, for a name that is none."""
        for board_type in _NAMES:
            try:
                return self.named(board_type, name)
            except ValueError:
                continue
        raise ValueError(f"`{name}` is no period; 20241218, 2024W51 and 202412 are some")

    def days(self, period: Period) -> list[str]:
        """The names of the days that a period has, which all of time has none of."""
        days: list[str] = []
        at_ms = period.starts_ms
        while period.ends_ms is not None and at_ms < period.ends_ms:
            day = self.periods(at_ms).day
            days.append(day.name)
            at_ms = day.ends_ms or period.ends_ms
        return days

    def _found(self, board_type: BoardType, parts: list[int]) -> Period:
        match board_type:
            case BoardType.DAILY:
                return self._day(date(parts[0], parts[1], parts[2]))
            case BoardType.WEEKLY:
                return self._week(date.fromisocalendar(parts[0], parts[1], 1))
        return self._month(date(parts[0], parts[1], 1))

    def _day(self, day: date) -> Period:
        return self._period(
            BoardType.DAILY, f"{day.year:04}{day.month:02}{day.day:02}", day, day + timedelta(days=1)
        )

    def _week(self, day: date) -> Period:
        year, week, weekday = day.isocalendar()
        first = day - timedelta(days=weekday - 1)
        return self._period(BoardType.WEEKLY, f"{year:04}W{week:02}", first, first + timedelta(days=7))

    def _month(self, day: date) -> Period:
        first = day.replace(day=1)
        following = (first + timedelta(days=31)).replace(day=1)
        return self._period(BoardType.MONTHLY, f"{day.year:04}{day.month:02}", first, following)

    def _period(self, board_type: BoardType, name: str, first: date, following: date) -> Period:
        return Period(board_type, name, self._midnight_ms(first), self._midnight_ms(following))

    def _midnight_ms(self, day: date) -> int:
        return int(datetime(day.year, day.month, day.day, tzinfo=self._zone).timestamp() * 1000)
