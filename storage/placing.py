"""A score and when it was reached as the one number by which a sorted set orders them.

Pure. The whole part is the score. The fraction is larger the earlier it was reached, so equal scores stand in
the order in which they were reached. The number depends on nothing else: whoever writes it, in whatever order
and however often, with `ZADD GT` the board comes out the same (docs/decisions/0018).

A double has 53 bits. The score takes what it needs, the fraction gets the rest, and more of it than the
period has milliseconds is of no use: a day has 2^27, a week 2^30, a month 2^32, all of time 2^40 until 2054.
"""

import math

from storage.periods import Period

MOST_SCORE = 2**43
"""Beyond it there would be too few bits left to tell the hours of a day apart."""

_DOUBLE_BITS = 53
_ALL_TIME_BITS = 40


def placed(score: int, reached_ms: int, period: Period) -> float:
    """The number of a score (0 to MOST_SCORE) that was reached in a period, at ms since the epoch."""
    span_bits = span(period)
    bits = min(span_bits, _DOUBLE_BITS - max(1, score.bit_length()))
    since = min(max(reached_ms - period.starts_ms, 0), (1 << span_bits) - 1)
    return score + ((1 << bits) - 1 - (since >> (span_bits - bits))) / (1 << bits)


def score_of(number: float) -> int:
    """The score that is in a number."""
    return math.floor(number)


def span(period: Period) -> int:
    """The bits that a period's milliseconds need."""
    if period.ends_ms is None:
        return _ALL_TIME_BITS
    return (period.ends_ms - period.starts_ms - 1).bit_length()
