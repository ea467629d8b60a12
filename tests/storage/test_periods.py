"""Periods: days, ISO weeks and months where a zone's midnight is, and their names."""

from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings, strategies as st

from protocol.messages.ranking import BoardType
from storage.periods import ALL_TIME, EPOCH_MS, Calendar, Period

MIDNIGHT = "%Y-%m-%d %H:%M"
PARTS = (BoardType.DAILY, BoardType.WEEKLY, BoardType.MONTHLY)


def at(text: str, zone: str = "UTC") -> int:
    return int(datetime.strptime(text, MIDNIGHT).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


def names(calendar: Calendar, at_ms: int) -> tuple[str, str, str]:
    periods = calendar.periods(at_ms)
    return periods.day.name, periods.week.name, periods.month.name


@pytest.mark.parametrize(
    ("moment", "day", "week", "month"),
    [
        ("2024-12-18 12:00", "20241218", "2024W51", "202412"),
        ("2024-12-29 23:59", "20241229", "2024W52", "202412"),
        ("2024-12-30 00:00", "20241230", "2025W01", "202412"),
        ("2024-12-31 23:59", "20241231", "2025W01", "202412"),
        ("2025-01-01 00:00", "20250101", "2025W01", "202501"),
        ("2021-01-03 23:59", "20210103", "2020W53", "202101"),
        ("2021-01-04 00:00", "20210104", "2021W01", "202101"),
        ("2024-02-29 00:00", "20240229", "2024W09", "202402"),
    ],
)
def test_a_moment_is_in_its_day_iso_week_and_month(moment: str, day: str, week: str, month: str) -> None:
    calendar = Calendar("UTC")
    assert names(calendar, at(moment)) == (day, week, month)
    for board_type, name in zip(PARTS, (day, week, month), strict=True):
        period = calendar.named(board_type, name)
        assert period == calendar.periods(at(moment))[board_type]
        assert period.ends_ms is not None
        assert period.starts_ms <= at(moment) < period.ends_ms


def test_days_begin_at_the_zones_midnight() -> None:
    seoul = Calendar("Asia/Seoul")
    assert names(seoul, at("2024-12-29 14:59")) == ("20241229", "2024W52", "202412")
    assert names(seoul, at("2024-12-29 15:00")) == ("20241230", "2025W01", "202412")
    assert names(seoul, at("2024-12-31 15:00")) == ("20250101", "2025W01", "202501")


def test_days_of_a_clock_change_have_23_and_25_hours() -> None:
    berlin = Calendar("Europe/Berlin")
    for name, hours in (("20240331", 23), ("20240330", 24), ("20241027", 25)):
        day = berlin.named(BoardType.DAILY, name)
        assert day.ends_ms is not None
        assert day.ends_ms - day.starts_ms == hours * 3_600_000


@settings(max_examples=200)
@given(
    at_ms=st.integers(EPOCH_MS + 86_400_000, EPOCH_MS + 2**40),
    zone=st.sampled_from(["UTC", "Asia/Seoul", "America/St_Johns", "Europe/Berlin", "Pacific/Kiritimati"]),
)
def test_periods_are_those_of_the_calendar(at_ms: int, zone: str) -> None:
    calendar = Calendar(zone)
    local = datetime.fromtimestamp(at_ms / 1000, ZoneInfo(zone))
    assert names(calendar, at_ms) == (f"{local:%Y%m%d}", f"{local:%GW%V}", f"{local:%Y%m}")
    for board_type in PARTS:
        period = calendar.periods(at_ms)[board_type]
        assert period.ends_ms is not None
        assert period.starts_ms <= at_ms < period.ends_ms
        assert calendar.named(board_type, period.name) == period
        before, after = calendar.periods(period.starts_ms - 1), calendar.periods(period.ends_ms)
        assert before[board_type].ends_ms == period.starts_ms
        assert after[board_type].starts_ms == period.ends_ms


def test_a_period_has_the_days_that_are_in_it() -> None:
    calendar = Calendar("Europe/Berlin")
    assert calendar.days(calendar.named(BoardType.WEEKLY, "2025W01")) == [
        "20241230", "20241231", "20250101", "20250102", "20250103", "20250104", "20250105"
    ]  # fmt: skip
    march = calendar.days(calendar.named(BoardType.MONTHLY, "202403"))
    assert (len(march), march[0], march[-1]) == (31, "20240301", "20240331")
    assert calendar.days(calendar.named(BoardType.DAILY, "20240331")) == ["20240331"]
    assert calendar.days(ALL_TIME) == []


def test_all_of_time_is_never_over() -> None:
    assert Calendar("UTC").named(BoardType.TOTAL, "all") == Period(BoardType.TOTAL, "all", EPOCH_MS, None)
    assert not ALL_TIME.is_over(at("2050-01-01 00:00"))
    day = Calendar("UTC").named(BoardType.DAILY, "20240101")
    assert not day.is_over(at("2024-01-01 23:59"))
    assert day.is_over(at("2024-01-02 00:00"))


@pytest.mark.parametrize(
    ("board_type", "name"),
    [
        (BoardType.TOTAL, "2024"), (BoardType.DAILY, "20240230"), (BoardType.DAILY, "2024W01"),
        (BoardType.WEEKLY, "2024W53"), (BoardType.WEEKLY, "2024W00"), (BoardType.WEEKLY, "202401"),
        (BoardType.MONTHLY, "202413"), (BoardType.MONTHLY, "20240101"), (BoardType.MONTHLY, ""),
        (BoardType.MONTHLY, "２０２４０１"), (BoardType.DAILY, "99991231"), (BoardType.DAILY, "00000101"),
    ],
)  # fmt: skip
def test_a_name_that_is_no_period_is_told_in_words(board_type: BoardType, name: str) -> None:
    with pytest.raises(ValueError, match=r"is one|has the one period"):
        Calendar("UTC").named(board_type, name)


def test_a_zone_that_there_is_not_is_told_in_words() -> None:
    for zone in ("Mars/Olympus", "", "../etc/passwd"):
        with pytest.raises(ValueError, match="there is no time zone"):
            Calendar(zone)


def test_a_moment_is_found_again_whatever_was_asked_between() -> None:
    calendar, fixed = Calendar("Asia/Seoul"), timezone(timedelta(hours=9))
    for day in (1, 15, 2, 1):
        moment = datetime(2024, 5, day, 0, 0, tzinfo=fixed)
        assert calendar.periods(int(moment.timestamp() * 1000)).day.name == f"202405{day:02}"
