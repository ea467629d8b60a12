"""Limits that hold when everything comes at once, over two nodes and two workers."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import cast

import pytest

from client import RequestFailed
from protocol.messages import Message
from protocol.messages.auth import LoggedIn, Login, Registered
from storage import keys
from tests.system.cluster import Cluster, Process
from tests.system.guest import PASSWORD, Guest, registration
from tests.system.wire import Wire, envelope, leave

pytestmark = pytest.mark.servers

LIMIT = 5
REFUSALS = 70
FROM_ADDRESS = 20
ON_ACCOUNT = 30
RISKY = 18
"""Failures after which a stranger's risk is 0.25 + 0.25 + 0.5 * 18 / 30 = 0.8."""
RACERS = 60


@pytest.fixture
async def racers(cluster: Cluster) -> AsyncIterator[Sequence[Guest]]:
    cluster.settings |= {
        "limits.registrations_per_ip_per_hour": LIMIT,
        "limits.refused_registrations_per_ip_per_hour": REFUSALS,
        "limits.login_attempts_per_minute": LIMIT,
        "limits.failed_logins_per_ip_per_minute": FROM_ADDRESS,
        "limits.failed_logins_per_account_per_hour": ON_ACCOUNT,
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
    cluster.redis.delete(*cluster.redis.keys(keys.limit("failed-login*", "*")))  # a minute passes
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


async def test_asking_what_is_taken_at_once(racers: Sequence[Guest]) -> None:
    await racers[0].register("taken")
    same = registration("another", email="taken@example.com")

    first, second = await race(racers, [same] * RACERS), await race(racers, [same] * RACERS)

    assert first + second == {"EMAIL_TAKEN": REFUSALS, "TOO_MANY_ATTEMPTS": 2 * RACERS - REFUSALS}
    await racers[0].refused(registration("taken"), "TOO_MANY_ATTEMPTS")


async def come_from(cluster: Cluster, number: int) -> Guest:
    """Somebody with an address that nobody had before."""
    return await Guest.at(
        cluster.endpoints[number % 2], local_address=f"127.1.{number // 250}.{number % 250 + 1}"
    )


async def guess(cluster: Cluster, name: str, first: int, count: int) -> Counter[str]:
    """Guess so often at one account, each time from another address."""
    guests = [await come_from(cluster, number) for number in range(first, first + count)]
    outcomes = await race(guests, [Login(username=name, password="a guess")] * count)
    for guest in guests:
        guest.leave()
    return outcomes


async def test_guessing_at_many_accounts_from_one_address(cluster: Cluster, racers: Sequence[Guest]) -> None:
    await racers[0].register("bystander")
    guesses = [Login(username=f"name-{number}", password="a guess") for number in range(RACERS)]

    outcomes = await race(racers, guesses)

    assert outcomes == {"INVALID_CREDENTIALS": FROM_ADDRESS, "TOO_MANY_ATTEMPTS": RACERS - FROM_ADDRESS}
    right = Login(username="bystander", password=PASSWORD)
    assert (await racers[0].refused(right, "TOO_MANY_ATTEMPTS")).retry_after_ms
    elsewhere = await come_from(cluster, 1)
    assert isinstance(await elsewhere.ask(right), LoggedIn)
    elsewhere.leave()


async def test_a_stranger_locks_nobody_out(cluster: Cluster, racers: Sequence[Guest]) -> None:
    """Who was there before comes in by address or by device, whatever strangers do meanwhile."""
    await racers[0].register("victim")
    right = Login(username="victim", password=PASSWORD, client_fingerprint="phone")
    await racers[0].ask(right)

    assert await guess(cluster, "victim", 0, RISKY) == {"INVALID_CREDENTIALS": RISKY}
    assert await guess(cluster, "victim", RISKY, 5) == {"TOO_MANY_ATTEMPTS": 5}
    lines = cast("list[str]", cluster.redis.lrange(keys.AUDIT_LOGS, 0, -1))
    denied = [line.partition("|")[2] for line in lines if "|DENIED|" in line]
    assert denied == ["victim|auth:login|user:victim|DENIED|risk"]

    at_home = Login(username="victim", password=PASSWORD)
    assert isinstance(await racers[0].ask(at_home), LoggedIn)
    on_the_way = await come_from(cluster, 100)
    assert isinstance(await on_the_way.ask(right), LoggedIn)
    on_the_way.leave()
    stranger = await come_from(cluster, 101)
    refusal = await stranger.refused(at_home, "TOO_MANY_ATTEMPTS")
    assert 0 < (refusal.retry_after_ms or 0) <= 3_600_000
    cluster.redis.delete(keys.limit("failed-login-account", "victim"))  # an hour passes
    assert isinstance(await stranger.ask(at_home), LoggedIn)
    stranger.leave()


async def test_an_account_that_nobody_has_is_treated_alike(cluster: Cluster, racers: Sequence[Guest]) -> None:
    await racers[0].register("somebody")
    outcomes = [
        [await guess(cluster, name, 0, RISKY), await guess(cluster, name, RISKY, 5)]
        for name in ("somebody", "nobody-at-all")
    ]
    assert outcomes[0] == outcomes[1]


async def test_the_risk_of_a_login_is_told(cluster: Cluster, racers: Sequence[Guest]) -> None:
    await racers[0].sign_up("ada")
    assert cluster.redis.hget(keys.session("ada"), "risk_score") == "0.5"
    await racers[0].sign_in("ada")
    assert cluster.redis.hget(keys.session("ada"), "risk_score") == "0.25"
    await guess(cluster, "ada", 0, 6)
    await racers[1].sign_in("ada")
    assert cluster.redis.hget(keys.session("ada"), "risk_score") == "0.35"


async def test_no_address_and_no_device_is_kept_as_it_is(cluster: Cluster, racers: Sequence[Guest]) -> None:
    await racers[0].register("ada")
    login = Login(username="ada", password=PASSWORD, client_fingerprint="a phone of hers")
    await racers[0].ask(login)
    await racers[0].refused(Login(username="ada", password="a guess"), "INVALID_CREDENTIALS")
    names = list(cluster.redis.scan_iter("*"))
    assert not [name for name in names if "127.0.0." in name or "phone" in name]
    kept = cast("list[str]", cluster.redis.hkeys(keys.places("ada")))
    assert sorted(field.partition(":")[0] for field in kept) == ["address", "device"]
    assert all(set(field.partition(":")[2]) <= set("0123456789abcdef") for field in kept)


class TestBuckets:
    """What one user may ask for, over a node that takes RATE requests a second."""

    RATE = 20

    @pytest.fixture
    async def node(self, cluster: Cluster) -> Process:
        cluster.settings["limits.requests_per_second"] = self.RATE
        return cluster.start()["SOCK001"]

    async def flood(self, wire: Wire, count: int, **data: object) -> Counter[int]:
        """The statuses that so many pings at once get."""
        numbers = range(100, 100 + count)
        wire.send(b"".join(envelope("ping", number, data) for number in numbers))
        return Counter([(await wire.reply(number))["status"] for number in numbers])

    async def resumed(self, node: Process, token: str) -> Wire:
        """A connection of its own that is signed in."""
        wire = await Wire.greeted(node.endpoint)
        assert (await wire.ask("auth.resume", {"accessToken": token}, 2))["status"] == 200
        return wire

    async def test_a_reconnect_brings_no_new_bucket(self, node: Process) -> None:
        tokens = await (guest := await Guest.at(node.endpoint)).sign_up("ada")
        clock, taken = asyncio.get_running_loop().time, 0
        began_s = clock()
        for _ in range(5):
            wire = await self.resumed(node, tokens.access_token)
            taken += (await self.flood(wire, 2 * self.RATE))[200]
            wire.leave()
        guest.leave()
        # Buckets of their own would have let five seconds' worth through, beside what comes with time.
        assert taken <= (2 + clock() - began_s) * self.RATE

    async def test_another_user_has_another(self, node: Process) -> None:
        tokens = [await (await Guest.at(node.endpoint)).sign_up(name) for name in ("ada", "eve")]
        wires = [await self.resumed(node, pair.access_token) for pair in tokens]
        await self.flood(wires[0], 3 * self.RATE)
        assert (await self.flood(wires[1], self.RATE // 2))[429] == 0
        leave(wires)

    async def test_before_sign_in_long_frames_cost_more(self, node: Process) -> None:
        short, long = await Wire.greeted(node.endpoint), await Wire.greeted(node.endpoint)
        few = self.RATE // 2
        assert (await self.flood(short, few))[429] == 0
        assert (await self.flood(long, few, filling=b"x" * 7_000))[429] > 0
        leave([short, long])
