"""One live connection a user, wherever in the cluster: who comes later has it, whoever races."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Sequence

import pytest

from client import ConnectionLost, RequestFailed
from protocol.messages import Message
from protocol.messages.auth import Finalized, LoggedIn, Login, Resume
from protocol.messages.connection import Goodbye, KickedOut
from protocol.messages.waiting import QueueReady
from storage import keys
from tests.system.cluster import Cluster
from tests.system.guest import HEARING_S, PASSWORD, Guest, Pass

pytestmark = pytest.mark.servers

RACERS = 100


@pytest.fixture
async def guests(town: Cluster) -> AsyncIterator[list[Guest]]:
    """Connections to the two nodes by turns."""
    guests = await come(town, 4)
    yield guests
    for guest in guests:
        guest.leave()


async def come(town: Cluster, count: int) -> list[Guest]:
    return [await Guest.at(town.endpoints[number % 2]) for number in range(count)]


async def kicked(guest: Guest) -> None:
    """See that this connection was kicked out: KICKED_OUT, then GOODBYE, then the end."""
    lost = await guest.gone()
    assert lost.code == "TAKEN_OVER"
    last = [event for event in guest.heard if isinstance(event, KickedOut | Goodbye)]
    assert [type(event) for event in last] == [KickedOut, Goodbye]
    assert last[0] == KickedOut(reason="TAKEN_OVER")


async def one_is_left(guests: Sequence[Guest]) -> Guest:
    """See that all of the connections but one are kicked out. Answers that one."""
    async with asyncio.timeout(HEARING_S):
        while sum(guest.connection.is_open for guest in guests) > 1:
            await asyncio.sleep(0.02)
    (left,) = [guest for guest in guests if guest.connection.is_open]
    await asyncio.sleep(0.3)  # a kick that should not be would come by now
    await left.is_served()
    assert left.all(KickedOut) == []
    for guest in guests:
        if guest is not left:
            await kicked(guest)
    return left


class TestTakeOver:
    async def test_by_a_login(self, guests: list[Guest], name: str) -> None:
        await guests[0].register(name)
        first = await guests[0].log_in(name)
        await guests[0].stream(first)

        second = await guests[1].log_in(name)

        await kicked(guests[0])
        await guests[2].refused(first.stream, "SESSION_TAKEN_OVER")
        await guests[1].wait(second)
        assert (await guests[1].finalize(second)).user_id == name

    async def test_by_a_stream(self, guests: list[Guest], name: str) -> None:
        await guests[0].register(name)
        ticket = await guests[0].log_in(name)
        await guests[0].stream(ticket)

        await guests[1].stream(ticket)

        await kicked(guests[0])
        await guests[1].hear(QueueReady)

    async def test_by_a_finalize(self, guests: list[Guest], name: str) -> None:
        first = await guests[0].sign_up(name)

        second = await guests[1].sign_in(name)

        await kicked(guests[0])
        assert (await guests[1].resume(second.access_token)).user_id == name
        assert first.refresh_token != second.refresh_token

    async def test_by_a_resume(self, guests: list[Guest], name: str) -> None:
        tokens = await guests[0].sign_up(name)

        await guests[1].resume(tokens.access_token)
        await kicked(guests[0])
        await guests[2].resume(tokens.access_token)

        await kicked(guests[1])
        await guests[2].is_served()

    async def test_a_finalize_elsewhere_than_the_stream(self, guests: list[Guest], name: str) -> None:
        await guests[0].register(name)
        ticket = await guests[0].log_in(name)
        await guests[0].wait(ticket)

        await guests[1].finalize(ticket)

        await guests[1].is_served()
        assert guests[1].all(KickedOut) == []

    async def test_a_new_ticket_does_not_touch_who_plays(self, guests: list[Guest], name: str) -> None:
        await guests[0].sign_up(name)

        await guests[1].log_in(name)

        await guests[0].is_served()
        assert guests[0].all(KickedOut) == []

    async def test_coming_back_on_the_same_connection(self, guests: list[Guest], name: str) -> None:
        tokens = await guests[0].sign_up(name)
        for _ in range(2):
            await guests[0].resume(tokens.access_token)
            await guests[0].sign_in(name)

        await guests[0].is_served()
        assert guests[0].all(KickedOut) == []


async def race(asking: Sequence[Awaitable[Message]]) -> tuple[list[Message], Counter[str]]:
    """The answers of those who got one, and how often each refusal, or the loss of the connection, came."""
    answers = await asyncio.gather(*asking, return_exceptions=True)
    codes: Counter[str] = Counter()
    for answer in answers:
        if isinstance(answer, RequestFailed):
            codes[answer.code] += 1
        elif isinstance(answer, ConnectionLost):
            codes["lost"] += 1
        elif isinstance(answer, BaseException):
            raise answer
    return [answer for answer in answers if not isinstance(answer, BaseException)], codes


class TestRaces:
    async def test_100_logins_leave_one_owner(self, town: Cluster, name: str) -> None:
        racers = await come(town, RACERS)
        await racers[0].register(name)

        answers, codes = await race([each.ask(Login(username=name, password=PASSWORD)) for each in racers])

        left = await one_is_left(racers)
        assert set(codes) <= {"lost"}
        logged_in = [answer for answer in answers if isinstance(answer, LoggedIn)]
        assert len({answer.tid for answer in logged_in}) == 1
        owner = town.redis.hgetall(keys.ticket(logged_in[0].tid))["clientId"]
        (its,) = [answer for answer in logged_in if answer.client_id == owner]
        await left.wait(Pass.of(its))
        assert (await left.finalize(Pass.of(its))).user_id == name
        left.leave()

    async def test_100_streams_leave_one(self, town: Cluster, name: str) -> None:
        racers = await come(town, RACERS)
        await racers[0].register(name)
        ticket = await racers[0].log_in(name)

        async def stream(each: Guest) -> Message:
            try:
                return await each.stream(ticket)
            except RequestFailed:
                each.leave()  # a request that was sent later got there first
                raise

        _, codes = await race([stream(each) for each in racers])

        left = await one_is_left([each for each in racers if not each.left])
        assert set(codes) <= {"lost", "SESSION_TAKEN_OVER"}
        await left.hear(QueueReady)
        assert (await left.finalize(ticket)).user_id == name
        left.leave()

    async def test_100_finalizes_give_one_token_pair(self, town: Cluster, name: str) -> None:
        racers = await come(town, RACERS)
        await racers[0].register(name)
        ticket = await racers[0].log_in(name)
        await racers[0].wait(ticket)

        answers, codes = await race([each.finalize(ticket) for each in racers])

        (pair,) = answers
        assert codes == {"TICKET_NOT_FOUND": RACERS - 1}
        assert isinstance(pair, Finalized)
        assert town.redis.hget(keys.session(name), "login_count") == "1"
        assert (await racers[0].resume(pair.access_token)).user_id == name
        for each in racers:
            each.leave()

    async def test_100_finalizes_with_one_key_leave_one(self, town: Cluster, name: str) -> None:
        racers = await come(town, RACERS)
        await racers[0].register(name)
        ticket = await racers[0].log_in(name)
        await racers[0].wait(ticket)

        answers, codes = await race([each.finalize(ticket, key="one-key") for each in racers])

        await one_is_left(racers)
        assert set(codes) <= {"lost"}
        assert len(set(answers)) == 1
        assert town.redis.hget(keys.session(name), "login_count") == "1"

    async def test_100_resumes_leave_one(self, town: Cluster, name: str) -> None:
        racers = await come(town, RACERS)
        tokens = await racers[0].sign_up(name)

        _, codes = await race([each.ask(Resume(access_token=tokens.access_token)) for each in racers])

        left = await one_is_left(racers)
        assert set(codes) <= {"lost"}
        session = town.redis.hgetall(keys.session(name))
        assert session["serverId"] == left.connection.hello.server_id
        left.leave()


async def test_a_connection_that_changed_hands_is_left_alone(guests: list[Guest], name: str) -> None:
    """It was signed in as one user and is another's now: the first one's next session must not close it."""
    shared, elsewhere, *_ = guests
    await shared.sign_up(name)
    await shared.sign_up(f"{name}-b")
    await elsewhere.sign_in(name)
    await asyncio.sleep(0.3)  # a kick that should not be would come by now
    await shared.is_served()
    assert shared.all(KickedOut) == []
