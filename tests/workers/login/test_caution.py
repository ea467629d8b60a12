"""The risk of a login, and what is stored of where it comes from."""

import itertools

import pytest
from hypothesis import given, strategies as st

from runtime.secrets import Secrets
from runtime.settings import LimitsSettings
from storage.logins import Outlook
from workers.login.caution import Origins, risk_score

MASTER = b"a master secret of tests and tests alone"
ORIGINS = Origins(Secrets(MASTER))
LIMITS = LimitsSettings()
MOST = LIMITS.failed_logins_per_account_per_hour


def outlook(failures: int, *, knows_place: bool = False, knows_device: bool = False) -> Outlook:
    return Outlook(0, failures, 1000, knows_place=knows_place, knows_device=knows_device, is_fresh=True)


@pytest.mark.parametrize(
    ("failures", "knows_place", "knows_device", "risk"),
    [
        (0, True, True, 0.0), (0, False, True, 0.25), (0, True, False, 0.25), (0, False, False, 0.5),
        (MOST // 2, True, True, 0.25), (MOST, True, True, 0.5), (MOST, False, True, 0.75),
        (MOST, True, False, 0.75), (MOST, False, False, 1.0), (10 * MOST, False, False, 1.0),
    ],
)  # fmt: skip
def test_what_makes_a_risk(failures: int, knows_place: bool, knows_device: bool, risk: float) -> None:
    assert risk_score(outlook(failures, knows_place=knows_place, knows_device=knows_device), MOST) == risk


@given(st.integers(0, 10**6), st.booleans())
def test_strangers_keep_nobody_waiting_who_is_known(failures: int, is_place: bool) -> None:
    known = outlook(failures, knows_place=is_place, knows_device=not is_place)
    assert risk_score(known, MOST) < LIMITS.risk_limit


def test_a_new_place_alone_keeps_nobody_waiting_and_failures_do() -> None:
    scores = [risk_score(outlook(failures), MOST) for failures in range(MOST + 1)]
    assert scores == sorted(scores)
    waits = [failures for failures, score in enumerate(scores) if score >= LIMITS.risk_limit]
    assert waits == list(range(60, MOST + 1))


def test_what_is_stored_tells_nothing_and_cannot_be_compared_between_accounts() -> None:
    home = ORIGINS.of("ada", "192.0.2.1", "phone")
    assert home == ORIGINS.of("ada", "192.0.2.1", "phone")
    assert home.address == ORIGINS.of("eve", "192.0.2.1", "phone").address == ORIGINS.address("192.0.2.1")
    others = [
        ORIGINS.of("eve", "192.0.2.1", "phone"),
        ORIGINS.of("ada", "192.0.2.2", "desk"),
        Origins(Secrets(MASTER + b"!")).of("ada", "192.0.2.1", "phone"),
    ]
    for one, other in itertools.combinations([home, *others], 2):
        assert one.place != other.place
        assert one.device != other.device
    assert ORIGINS.of("ada", "192.0.2.1", None).device == ORIGINS.of("ada", "192.0.2.1", "").device == ""


@given(st.text(max_size=256), st.text(max_size=64))
def test_whatever_is_sent_what_is_stored_is_hexadecimal(fingerprint: str, peer: str) -> None:
    origin = ORIGINS.of("ada", peer, fingerprint)
    for part in (origin.address, origin.place, origin.device):
        assert set(part) <= set("0123456789abcdef")
