"""What passes between processes sealed: only who has the key opens it, and only where it belongs."""

import pytest
from hypothesis import given, settings, strategies as st

from runtime.sealing import COUNTER_BYTES, FORMAT, OVERHEAD_BYTES, SALT_BYTES, Seals, Undecipherable
from runtime.secrets import Secrets

MASTER = b"a master secret of more than 32 bytes"


@settings(max_examples=30)
@given(st.binary(max_size=200), st.binary(max_size=50))
def test_every_process_of_one_master_secret_opens_what_another_sealed(message: bytes, context: bytes) -> None:
    one, other = Secrets(MASTER).seals(), Secrets(MASTER).seals()
    sealed = one.seal(message, context)
    assert len(sealed) == len(message) + OVERHEAD_BYTES
    assert other.open(sealed, context) == one.open(sealed, context) == message


def test_another_master_secret_opens_nothing() -> None:
    sealed = Secrets(MASTER).seals().seal(b"password", b"here")
    with pytest.raises(Undecipherable, match="every process must have the same one"):
        Secrets(MASTER[::-1]).seals().open(sealed, b"here")


def test_it_opens_in_its_context_alone() -> None:
    seals = Seals(bytes(32))
    with pytest.raises(Undecipherable):
        seals.open(seals.seal(b"password", b"auth.login SOCK001/1 7"), b"auth.login SOCK001/2 7")


@settings(max_examples=60)
@given(st.data())
def test_a_changed_one_is_not_opened(data: st.DataObject) -> None:
    seals = Seals(bytes(32))
    sealed = bytearray(seals.seal(b"password", b""))
    at = data.draw(st.integers(0, len(sealed) - 1))
    sealed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Undecipherable):
        seals.open(bytes(sealed), b"")


@given(st.binary(max_size=OVERHEAD_BYTES + 10))
def test_any_bytes_are_refused_in_words(text: bytes) -> None:
    for one in (text, FORMAT + text):
        with pytest.raises(Undecipherable):
            Seals(bytes(32)).open(one, b"")


def test_no_nonce_and_no_salt_comes_twice() -> None:
    many = [Seals(bytes(32)) for _ in range(20)]
    sealed = [seals.seal(b"", b"") for seals in many for _ in range(50)]
    unique = len(FORMAT) + SALT_BYTES + COUNTER_BYTES
    assert len({each[:unique] for each in sealed}) == len(sealed)
    assert len({each[: len(FORMAT) + SALT_BYTES] for each in sealed}) == len(many)


def test_no_key_is_shown() -> None:
    assert repr(Seals(bytes(32))) == "<Seals>"
