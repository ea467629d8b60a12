"""Limits that hold when everything comes at once, over two nodes and two workers."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence

import pytest

from client import RequestFailed
from protocol.messages import Message
from protocol.messages.auth import LoggedIn, Login, Registered
from storage import keys
from tests.system.cluster import Cluster
from tests.system.guest import PASSWORD, Guest, registration

pytestmark = pytest.mark.servers

LIMIT = 5
RACERS = 60


@pytest.fixture
async def racers(cluster: Cluster) -> AsyncIterator[Sequence[Guest]]:
    cluster.settings |= {
        "limits.registrations_per_ip_per_hour": LIMIT,
        "limits.login_attempts_per_minute": LIMIT,
    }
    cluster.start(nodes=2, logins=2)
    guests = [await Guest.at(cluster.endpoints[number % 2]) for number in range(RACERS)]
    yield guests
    for guest in guests:
        guest.leave()


async def race(guests: Sequence[Guest], messages: Sequence[Message]) -> Counter[str]:
    """How often each answer came when all ask at once: a refusal's code or the reply's type."""

    async def outcome(guest: Guest, message: Message) -> str:
        try:
            return type(await guest.ask(message)).__name__
        except RequestFailed as refused:
            return refused.code

    return Counter(await asyncio.gather(*map(outcome, guests, messages)))


async def test_guessing_a_password_at_once(cluster: Cluster, racers: Sequence[Guest]) -> None:
    await racers[0].register("victim")
    guesses = [Login(username="victim", password=f"guess {number}") for number in range(RACERS)]

    outcomes = await race(racers, guesses)

    assert outcomes == {"INVALID_CREDENTIALS": LIMIT, "TOO_MANY_ATTEMPTS": RACERS - LIMIT}
    right = Login(username="victim", password=PASSWORD)
    await racers[0].refused(right, "TOO_MANY_ATTEMPTS")
    cluster.redis.delete(keys.limit("failed-login", "victim"))  # a minute passes
    assert isinstance(await racers[0].ask(right), LoggedIn)


async def test_logging_in_at_once_is_no_guessing(racers: Sequence[Guest]) -> None:
    await racers[0].register("eager")

    for _ in range(3 * LIMIT):
        await racers[1].log_in("eager")


async def test_registering_at_once(racers: Sequence[Guest]) -> None:
    outcomes = await race(racers, [registration(f"one-of-many-{number}") for number in range(RACERS)])

    assert outcomes == {Registered.__name__: LIMIT, "TOO_MANY_ATTEMPTS": RACERS - LIMIT}


async def test_a_registration_that_fails_does_not_count(racers: Sequence[Guest]) -> None:
    await racers[0].register("taken")
    same = registration("another", email="taken@example.com")

    assert await race(racers, [same] * RACERS) == {"EMAIL_TAKEN": RACERS}

    for number in range(1, LIMIT):
        await racers[0].register(f"fresh-{number}")
    await racers[0].refused(registration("one-more"), "TOO_MANY_ATTEMPTS")
