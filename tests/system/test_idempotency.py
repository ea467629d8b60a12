"""One key, one effect: the same answer again, at once or later, at any node, and for nobody else."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import cast

import pytest

from protocol.messages import Message
from protocol.messages.auth import Finalized, LoggedIn, Login, Logout, Refresh, Registered
from protocol.messages.waiting import Cancel
from storage import keys
from tests.system.cluster import Cluster
from tests.system.guest import PASSWORD, Guest, Pass, registration

pytestmark = pytest.mark.servers

KEY = "one-and-the-same"


@pytest.fixture
async def here(town: Cluster) -> AsyncIterator[Guest]:
    guest = await Guest.at(town["SOCK001"].endpoint)
    yield guest
    guest.leave()


@pytest.fixture
async def there(town: Cluster) -> AsyncIterator[Guest]:
    """A connection to the other node."""
    guest = await Guest.at(town["SOCK002"].endpoint)
    yield guest
    guest.leave()


Prepare = Callable[[Guest, str], Awaitable[Message]]


async def a_registration(_: Guest, name: str) -> Message:
    return registration(name)


async def a_login(guest: Guest, name: str) -> Message:
    await guest.register(name)
    return Login(username=name, password=PASSWORD)


async def a_cancel(guest: Guest, name: str) -> Message:
    await guest.register(name)
    ticket = await guest.log_in(name)
    return Cancel(tid=ticket.tid, client_id=ticket.client_id)


async def a_finalize(guest: Guest, name: str) -> Message:
    await guest.register(name)
    ticket = await guest.log_in(name)
    await guest.wait(ticket)
    return ticket.finalize


async def a_refresh(guest: Guest, name: str) -> Message:
    return Refresh(refresh_token=(await guest.sign_up(name)).refresh_token)


async def a_login_by_token(guest: Guest, name: str) -> Message:
    return Login(refresh_token=(await guest.sign_up(name)).refresh_token)


async def a_logout(guest: Guest, name: str) -> Message:
    return Logout(refresh_token=(await guest.sign_up(name)).refresh_token)


@pytest.mark.parametrize(
    "prepare", [a_registration, a_login, a_login_by_token, a_cancel, a_finalize, a_refresh, a_logout]
)
class TestTheSameKey:
    async def test_gets_the_same_answer(self, here: Guest, there: Guest, name: str, prepare: Prepare) -> None:
        message = await prepare(here, name)
        first = await here.ask(message, KEY)

        assert await there.ask(message, KEY) == first
        assert await there.ask(message, KEY) == first

    async def test_at_once(self, town: Cluster, here: Guest, name: str, prepare: Prepare) -> None:
        message = await prepare(here, name)
        # Connections of one node and of both: those of a finalize kick each other out.
        others = [await Guest.at(town.endpoints[number % 2]) for number in range(6)]

        answers = await asyncio.gather(*(each.ask(message, KEY) for each in others), return_exceptions=True)

        given = [answer for answer in answers if not isinstance(answer, BaseException)]
        assert given
        assert all(answer == given[0] for answer in given)
        if prepare is not a_finalize and not isinstance(message, Login):
            assert len(given) == len(others)
        for each in others:
            each.leave()


class TestOneEffect:
    async def test_of_a_login(self, town: Cluster, here: Guest, there: Guest, name: str) -> None:
        await here.register(name)
        issued = int(town.redis.hget(keys.PORTAL_STATS, "issued") or 0)
        ticket = await here.log_in(name, KEY)

        again = await there.log_in(name, KEY)

        assert again == ticket
        assert int(town.redis.hget(keys.PORTAL_STATS, "issued") or 0) == issued + 1
        await there.wait(again)
        assert (await there.finalize(again)).user_id == name

    async def test_of_a_finalize(self, town: Cluster, here: Guest, there: Guest, name: str) -> None:
        await here.register(name)
        ticket = await here.log_in(name)
        await here.wait(ticket)
        await here.finalize(ticket, KEY)
        here.leave()

        tokens = await there.finalize(ticket, KEY)

        session = town.redis.hgetall(keys.session(name))
        assert (session["login_count"], session["serverId"]) == ("1", "SOCK002")
        other = await Guest.at(town["SOCK001"].endpoint)
        await other.resume(tokens.access_token)
        assert (await there.gone()).code == "TAKEN_OVER"
        other.leave()

    async def test_of_a_refresh(self, here: Guest, there: Guest, name: str) -> None:
        first = await here.sign_up(name)
        message = Refresh(refresh_token=first.refresh_token)
        second = cast(Finalized, await here.ask(message, KEY))

        assert await there.ask(message, KEY) == second

        assert await there.ask(Refresh(refresh_token=second.refresh_token), KEY) != second
        await there.refused(message, "TOKEN_REUSED", "another key")

    async def test_of_a_cancel(self, town: Cluster, here: Guest, there: Guest, name: str) -> None:
        message = await a_cancel(here, name)
        cancelled = int(town.redis.hget(keys.PORTAL_STATS, "cancelled") or 0)
        await here.ask(message, KEY)
        await there.ask(message, KEY)

        assert int(town.redis.hget(keys.PORTAL_STATS, "cancelled") or 0) == cancelled + 1
        await there.refused(message, "TICKET_NOT_FOUND", "another key")


class TestSomebodyElsesKey:
    async def test_a_registration(self, here: Guest, there: Guest, name: str) -> None:
        await here.register(name, KEY)

        await there.refused(registration(name, "another password"), "USERNAME_TAKEN", KEY)

        assert await there.ask(registration(f"{name}-2"), KEY) == Registered(user_id=f"{name}-2")

    async def test_a_login(self, here: Guest, there: Guest, name: str) -> None:
        await here.register(name)
        await here.log_in(name, KEY)

        wrong = Login(username=name, password="another password")
        await there.refused(wrong, "INVALID_CREDENTIALS", KEY)

    async def test_a_login_of_another_user(self, here: Guest, there: Guest, name: str) -> None:
        await here.register(name)
        await there.register(f"{name}-2")
        first = await here.log_in(name, KEY)

        second = await there.log_in(f"{name}-2", KEY)

        assert second.tid != first.tid

    async def test_a_finalize(self, here: Guest, there: Guest, name: str) -> None:
        await here.register(name)
        ticket = await here.log_in(name)
        await here.wait(ticket)
        await here.finalize(ticket, KEY)

        await there.refused(Pass(ticket.tid, "another").finalize, "TICKET_NOT_FOUND", KEY)

    async def test_one_key_for_several_requests(self, here: Guest, name: str) -> None:
        await here.register(name, KEY)
        ticket = await here.log_in(name, KEY)
        await here.wait(ticket)
        tokens = await here.finalize(ticket, KEY)
        refreshed = await here.ask(Refresh(refresh_token=tokens.refresh_token), KEY)
        assert refreshed != tokens
        assert isinstance(await here.ask(Login(username=name, password=PASSWORD), "next"), LoggedIn)
