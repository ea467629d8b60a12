"""Who may name another user in a request."""

import msgspec
import pytest

from protocol.envelope import Address, Envelope
from protocol.errors import RequestError
from protocol.messages import Nothing
from workers.requests import Call, acting_for


def call(user_id: str | None, *roles: str) -> Call[Nothing]:
    """A request of this user, over a connection with these roles."""
    envelope = Envelope(
        type="probe", origin=Address("SOCK001", 1), id=1, number=1, data=msgspec.Raw(b"\x80"),
        sent_ms=0, deadline_ms=1, trace_id="trace", peer="127.0.0.1", user_id=user_id, roles=roles,
    )  # fmt: skip
    return Call(Nothing(), envelope)


@pytest.mark.parametrize("named", [None, "minji"])
def test_who_names_nobody_or_themselves_acts_for_themselves(named: str | None) -> None:
    assert acting_for(call("minji", "NORMAL"), named) == "minji"


@pytest.mark.parametrize("role", ["ADMIN", "GAME_SERVER"])
def test_a_trusted_role_may_name_another(role: str) -> None:
    assert acting_for(call("operator", "NORMAL", role), "minji") == "minji"


@pytest.mark.parametrize("roles", [(), ("NORMAL",), ("VIP_Users",), ("admin",)])
def test_nobody_else_may(roles: tuple[str, ...]) -> None:
    with pytest.raises(RequestError) as refusal:
        acting_for(call("stranger", *roles), "minji")
    assert refusal.value.kind.code == "FORBIDDEN"


def test_who_is_not_signed_in_acts_for_nobody() -> None:
    with pytest.raises(RequestError) as refusal:
        acting_for(call(None, "ADMIN"), "minji")
    assert refusal.value.kind.code == "NOT_AUTHENTICATED"
