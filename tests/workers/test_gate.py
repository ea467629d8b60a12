"""The gates: what not everybody may ask is allowed by policies, and written down."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from protocol.envelope import Address, Envelope
from protocol.errors import RequestError
from protocol.messages import Nothing
from storage.audit import Audit
from storage.permissions import Permissions
from storage.policies import PolicyWatch
from tests.storage.desk import Desk, open_desk
from tests.storage.policies.making import allow, deny, policy
from workers.gate import Gate
from workers.requests import Call, sender

NAME = "ranking.submit"


@pytest.fixture
async def desk(pair: tuple[str, str]) -> AsyncIterator[Desk]:
    async with open_desk(*pair) as desk:
        yield desk


@pytest.fixture
def gate(desk: Desk) -> Gate:
    return Gate(Permissions(desk.redis, PolicyWatch(desk.policies), desk.groups, desk._role_of))


def call(user_id: str | None, name: str = NAME) -> Call[Nothing]:
    """A request of this user."""
    envelope = Envelope(
        type=name, origin=Address("SOCK001", 1), id=1, number=1, data=msgspec.Raw(b"\x80"),
        sent_ms=0, deadline_ms=1, trace_id="trace", peer="127.0.0.1", user_id=user_id,
    )  # fmt: skip
    return Call(Nothing(), envelope)


async def lines(desk: Desk) -> list[str]:
    """What is in the audit log, without the times."""
    return [line.partition("|")[2] for line in await Audit(desk.redis).tail(1000)]


@pytest.mark.parametrize("named", [None, "anna"])
async def test_who_names_nobody_or_themselves_acts_for_themselves(
    desk: Desk,
    gate: Gate,
    named: str | None,
) -> None:
    assert await gate.acting_for(call("anna"), named) == "anna"
    assert await gate.may_act_for(call("anna"), "anna")
    assert await lines(desk) == []


@pytest.mark.parametrize("role", ["ADMIN", "GAME_SERVER"])
async def test_by_default_a_role_of_trust_may_name_another(desk: Desk, gate: Gate, role: str) -> None:
    await desk.has("anna", role)
    assert await gate.acting_for(call("anna"), "ben") == "ben"
    assert await lines(desk) == ["anna|user:act_for|request:ranking:submit|ALLOWED|gates"]


@pytest.mark.parametrize("role", ["NORMAL", "VIP", "admin"])
async def test_nobody_else_may_and_each_refusal_is_written_down(desk: Desk, gate: Gate, role: str) -> None:
    await desk.has("anna", role)
    for _ in range(2):
        with pytest.raises(RequestError) as refusal:
            await gate.acting_for(call("anna"), "ben")
        assert refusal.value.kind.code == "FORBIDDEN"
        assert refusal.value.message == "You may not name another user: No policy allows this."
    assert not await gate.may_act_for(call("anna"), "ben")
    assert await lines(desk) == ["anna|user:act_for|request:ranking:submit|DENIED|-"] * 3


async def test_who_is_not_signed_in_acts_for_nobody(gate: Gate) -> None:
    for attempt in (gate.acting_for(call(None), "ben"), gate.may_act_for(call(None), "ben")):
        with pytest.raises(RequestError) as refusal:
            await attempt
        assert refusal.value.kind.code == "NOT_AUTHENTICATED"
    with pytest.raises(RequestError):
        sender(call(None))


async def test_a_gated_request_takes_a_policys_word(desk: Desk, gate: Gate) -> None:
    await desk.has("anna", "GAME_SERVER")
    await gate.let_in(call("anna", "game.finish"))
    with pytest.raises(RequestError, match="You may not send this request: No policy allows this"):
        await gate.let_in(call("anna", "monitor.subscribe"))
    assert await lines(desk) == [
        "anna|request:send|request:game:finish|ALLOWED|gates",
        "anna|request:send|request:monitor:subscribe|DENIED|-",
    ]


async def test_a_group_can_be_given_the_role_or_the_right(desk: Desk, gate: Gate) -> None:
    await desk.groups.add("VIP_Users", "anna")
    await desk.groups.add("Premium_Users", "ben")
    await desk.has("ben", "NORMAL")
    await desk.policies.put(
        policy(
            "clan",
            allow("role:bear", "role:GAME_SERVER", '"VIP_Users" in user.groups'),
            allow("user:act_for", "request:game:*", '"Premium_Users" in user.groups'),
        )
    )
    assert await gate.acting_for(call("anna"), "ben") == "ben"
    assert await gate.acting_for(call("ben", "game.match"), "anna") == "anna"
    assert not await gate.may_act_for(call("ben"), "anna")


async def test_who_asks_while_it_is_asked_gets_the_same_answer(
    desk: Desk,
    gate: Gate,
) -> None:
    await desk.has("anna", "GAME_SERVER")
    answers = await asyncio.gather(*(gate.acting_for(call("anna"), "ben") for _ in range(100)))
    assert set(answers) == {"ben"}
    assert len(await lines(desk)) == 1
    await desk.has("ben", "NORMAL")
    denied = [gate.acting_for(call("ben"), "anna") for _ in range(100)]
    refusals = await asyncio.gather(*denied, return_exceptions=True)
    assert all(isinstance(each, RequestError) for each in refusals)
    assert len(await lines(desk)) == 2


async def test_what_is_allowed_is_asked_twice_a_second_and_a_change_counts_within_it(
    desk: Desk,
    gate: Gate,
) -> None:
    await desk.has("anna", "GAME_SERVER")
    clock = asyncio.get_running_loop().time
    began_s = clock()
    for _ in range(1000):
        await gate.acting_for(call("anna"), "ben")
    assert len(await lines(desk)) <= 1 + 2 * (clock() - began_s)
    await desk.policies.put(policy("closed", deny("user:act_for")))
    async with asyncio.timeout(20):
        while await gate.may_act_for(call("anna"), "ben"):
            await asyncio.sleep(0.05)
    await desk.policies.remove("closed")
    assert await gate.may_act_for(call("anna"), "ben")
