"""The setting of the opening, and the draw for it."""

import pytest

from runtime.config import ConfigError
from runtime.secrets import Secrets
from workers.login.opening import Draw, opening_ms

SECRETS = Secrets(b"a master secret of 32 bytes or more")


def test_an_opening_is_a_time_in_its_zone() -> None:
    assert opening_ms("") == 0
    assert opening_ms("2024-12-18T18:00:00+09:00") == opening_ms("2024-12-18T09:00Z") == 1_734_512_400_000


def test_a_day_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"login\.opens_at: '2024-02-30T18:00Z' is no time"):
        opening_ms("2024-02-30T18:00Z")


def test_a_draw_is_the_same_each_time_and_another_for_each_user_opening_and_secret() -> None:
    draw = Draw(SECRETS, 1)
    drawn = [draw("ada"), draw("bob"), Draw(SECRETS, 2)("ada"), Draw(Secrets(b"another" * 5), 1)("ada")]
    assert len(set(drawn)) == 4
    assert Draw(SECRETS, 1)("ada") == drawn[0]


def test_a_draw_is_spread_over_its_range() -> None:
    draw = Draw(SECRETS, 1)
    shares = [draw(f"user-{number}") / 2**32 for number in range(4000)]
    for tenth in range(10):
        assert 300 < sum(tenth / 10 <= share < (tenth + 1) / 10 for share in shares) < 500
