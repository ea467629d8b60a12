"""Numbers on boards: the score whole, the earlier before the later, and nothing else."""

from hypothesis import given, settings, strategies as st

from storage.periods import ALL_TIME, Calendar, Period
from storage.placing import MOST_SCORE, placed, score_of, span

UTC = Calendar("UTC")
PERIODS = [ALL_TIME, *(getattr(UTC.periods(1_734_500_000_000), name) for name in ("day", "week", "month"))]

scores = st.integers(0, 5000) | st.integers(0, MOST_SCORE)
periods = st.sampled_from(PERIODS)


def moments(period: Period) -> st.SearchStrategy[int]:
    return st.integers(period.starts_ms, (period.ends_ms or period.starts_ms + 2**40) - 1)


@settings(max_examples=300)
@given(data=st.data(), period=periods, score=scores)
def test_the_score_is_whole_whenever_it_was_reached(data: st.DataObject, period: Period, score: int) -> None:
    number = placed(score, data.draw(moments(period)), period)
    assert score_of(number) == score
    assert float(repr(number)) == number == float(f"{number:.17g}")


@settings(max_examples=300)
@given(data=st.data(), period=periods, score=scores)
def test_of_equal_scores_the_earlier_has_no_smaller_number(
    data: st.DataObject, period: Period, score: int
) -> None:
    early, late = sorted(data.draw(st.tuples(moments(period), moments(period))))
    assert placed(score, early, period) >= placed(score, late, period)


@settings(max_examples=300)
@given(data=st.data(), period=periods, score=scores)
def test_equal_scores_are_told_apart_as_finely_as_is_promised(
    data: st.DataObject, period: Period, score: int
) -> None:
    bits_left = 53 - max(1, score.bit_length())
    step_ms = 2 ** max(0, span(period) - bits_left)
    early = data.draw(moments(period))
    late = min(early + step_ms, period.starts_ms + 2 ** span(period) - 1)
    if late - early == step_ms:
        assert placed(score, early, period) > placed(score, late, period)


def test_what_is_promised_of_days_weeks_and_all_of_time() -> None:
    assert [span(period) for period in PERIODS] == [40, 27, 30, 32]
    for period, score in ((PERIODS[1], 2**26 - 1), (PERIODS[2], 2**23 - 1), (PERIODS[3], 2**21 - 1)):
        at_ms = period.starts_ms + 12_345_678
        assert placed(score, at_ms, period) > placed(score, at_ms + 1, period)
    assert placed(15_000, 1_734_500_000_000, ALL_TIME) > placed(15_000, 1_734_500_000_002, ALL_TIME)


def test_a_moment_outside_of_its_period_counts_as_its_edge() -> None:
    day = PERIODS[1]
    assert placed(7, day.starts_ms - 5, day) == placed(7, day.starts_ms, day)
    assert 7 <= placed(7, day.starts_ms + 2**40, day) < 8
