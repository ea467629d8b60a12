"""`lobbyctl user` on a system that is up: what an operator says of a user holds at once, on every node."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import pytest
from redis import Redis

from protocol.messages.auth import Login, Refresh, Resume, TokenPair
from protocol.messages.connection import ADMIN_MESSAGE, Goodbye, KickedOut
from protocol.messages.ranking import GetFriendRankings
from storage import keys
from tests.commands.running import CHEAP, LOBBYCTL, PATIENCE_S, UP, Running, environment, lobbyctl
from tests.system.guest import PASSWORD, Guest

pytestmark = pytest.mark.servers


class Desk:
    """An operator's place at a running system."""

    def __init__(self, running: Running) -> None:
        self.running = running

    async def type(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command as an operator who came by sudo."""
        return await asyncio.to_thread(
            subprocess.run,
            [LOBBYCTL, *words, "--data-dir", str(self.running.data)],
            cwd=self.running.folder,
            env={**environment(), "SUDO_USER": "kim"},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    async def do(self, *words: str) -> dict[str, Any]:
        """Run `lobbyctl user` so that it works, and take what it says as JSON."""
        done = await self.type("user", *words, "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    @property
    def audited(self) -> list[str]:
        """Who did what, the newest first."""
        with self.redis as redis:
            lines: Any = redis.lrange(keys.AUDIT_LOGS, 0, -1)
        return [line.partition("|")[2] for line in lines]

    @property
    def redis(self) -> Redis:
        """The system's."""
        return Redis.from_url(self.running.endpoints["redis"], decode_responses=True)

    async def guest(self, node: str = "SOCK001") -> Guest:
        """A connection to a node."""
        host, port = self.running.endpoints["sockets"][node].rsplit(":", 1)
        return await Guest.at((host, int(port)))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A system of two nodes that lets everybody in."""
    options = ("--nodes", "2", "--set", "login.admit_rate=60000")
    limits = ("--set", "limits.registrations_per_ip_per_hour=1000")
    running = Running(tmp_path_factory.mktemp("user"), "--no-demo", *CHEAP, *options, *limits)
    try:
        running.wait_for(UP)
        yield running
    finally:
        running.clean_up()


@pytest.fixture
async def desk(running: Running) -> Desk:
    return Desk(running)


@pytest.fixture
async def guests(desk: Desk) -> AsyncIterator[list[Guest]]:
    """Connections to the two nodes by turns."""
    guests = [await desk.guest(f"SOCK00{number % 2 + 1}") for number in range(4)]
    yield guests
    for guest in guests:
        guest.leave()


async def kicked_by_an_operator(guest: Guest) -> None:
    """See that a connection was told why, and closed."""
    assert (await guest.gone()).code == "TAKEN_OVER"
    last = [event for event in guest.heard if isinstance(event, KickedOut | Goodbye)]
    assert last[0] == KickedOut(reason="ADMIN", message=ADMIN_MESSAGE)
    assert isinstance(last[1], Goodbye)
    assert not last[1].reconnect


async def test_who_is_disabled_is_off_and_stays_off_until_enabled(desk: Desk, guests: list[Guest]) -> None:
    phone = await guests[0].sign_up("ada")
    tokens = await guests[1].sign_in("ada")
    await guests[0].gone()
    waiting = await guests[2].log_in("ada")

    said = await desk.do("disable", "Ada")

    assert said == {
        "userId": "ada", "changed": True, "before": "ACTIVE", "after": "DISABLED",
        "devices": 2, "signedInAt": "SOCK002", "waitedAt": "SOCK001",
    }  # fmt: skip
    await kicked_by_an_operator(guests[1])
    await kicked_by_an_operator(guests[2])
    other = guests[3]
    for pair in (phone, tokens):
        await other.refused(Resume(access_token=pair.access_token), "ACCOUNT_DISABLED")
        await other.refused(Refresh(refresh_token=pair.refresh_token), "ACCOUNT_DISABLED")
    await other.refused(Login(username="ada", password=PASSWORD), "ACCOUNT_DISABLED")
    await other.refused(waiting.stream, "TICKET_NOT_FOUND")
    await other.refused(waiting.finalize, "ACCOUNT_DISABLED")
    assert (await desk.do("disable", "ada"))["changed"] is False
    assert (await desk.do("show", "ada"))["status"] == "DISABLED"

    assert (await desk.do("enable", "ada"))["changed"] is True
    for pair in (phone, tokens):
        await other.refused(Resume(access_token=pair.access_token), "INVALID_TOKEN")
        await other.refused(Refresh(refresh_token=pair.refresh_token), "INVALID_TOKEN")
        await other.refused(Login(refresh_token=pair.refresh_token), "INVALID_TOKEN")
    assert (await other.sign_in("ada")).user_id == "ada"
    assert [line for line in desk.audited if "|user:ada|" in line] == [
        "kim|user:enable|user:ada|ALLOWED|lobbyctl",
        "kim|user:disable|user:ada|ALLOWED|lobbyctl",
        "kim|user:disable|user:ada|ALLOWED|lobbyctl",
    ]


async def test_who_is_kicked_out_may_come_back(desk: Desk, guests: list[Guest]) -> None:
    bystander = await guests[3].sign_up("bob")
    tokens = await guests[1].sign_up("eve")

    said = await desk.do("kick", "eve")

    assert (said["changed"], said["devices"], said["signedInAt"]) == (True, 1, "SOCK002")
    await kicked_by_an_operator(guests[1])
    await guests[0].refused(Resume(access_token=tokens.access_token), "INVALID_TOKEN")
    await guests[0].refused(Refresh(refresh_token=tokens.refresh_token), "INVALID_TOKEN")
    await guests[0].refused(Login(refresh_token=tokens.refresh_token), "INVALID_TOKEN")
    assert (await guests[0].sign_in("eve")).user_id == "eve"
    await guests[0].is_served()
    await guests[3].is_served()
    assert (await guests[2].resume(bystander.access_token)).user_id == "bob"
    assert "kim|user:kick|user:eve|ALLOWED|lobbyctl" in desk.audited


async def test_a_role_holds_from_the_next_token_on(desk: Desk, guests: list[Guest]) -> None:
    await guests[0].register("friend")
    tokens = await guests[1].sign_up("game")
    for_another = GetFriendRankings(user_id="friend")
    await guests[1].refused(for_another, "FORBIDDEN")

    said = await desk.do("role", "game", "game_server")

    assert said == {"userId": "game", "changed": True, "before": "NORMAL", "after": "GAME_SERVER"}
    assert "GAME_SERVER" not in (await guests[2].resume(tokens.access_token)).roles
    fresh = cast(TokenPair, await guests[2].ask(Refresh(refresh_token=tokens.refresh_token)))
    assert "GAME_SERVER" in (await guests[2].resume(fresh.access_token)).roles
    await guests[2].ask(for_another)
    assert (await desk.do("role", "game", "GAME_SERVER"))["changed"] is False
    await guests[2].is_served()


async def test_whoever_loses_a_role_of_trust_is_kicked_out(desk: Desk, guests: list[Guest]) -> None:
    await guests[0].register("friend-2")
    await guests[0].register("game-2")
    await desk.do("role", "game-2", "GAME_SERVER")
    tokens = await guests[2].sign_in("game-2")
    for_another = GetFriendRankings(user_id="friend-2")
    await guests[2].ask(for_another)

    assert (await desk.do("role", "game-2", "NORMAL"))["signedInAt"] == "SOCK001"

    await kicked_by_an_operator(guests[2])
    await guests[3].refused(Resume(access_token=tokens.access_token), "INVALID_TOKEN")
    await guests[3].sign_in("game-2")
    await guests[3].refused(for_another, "FORBIDDEN")
    assert "kim|user:role|user:game-2|ALLOWED|lobbyctl" in desk.audited


async def test_show(desk: Desk, guests: list[Guest]) -> None:
    await guests[0].sign_up("una")
    await guests[1].refused(Login(username="una", password="not this one"), "INVALID_CREDENTIALS")

    shown = await desk.do("show", "una")

    assert shown.pop("createdAt").endswith("Z")
    assert shown.pop("lastLogin").endswith("Z")
    assert shown == {
        "userId": "una", "nickname": "una", "status": "ACTIVE", "role": "NORMAL", "groups": [],
        "signedInAt": "SOCK001", "ticket": None, "devices": 1, "loginCount": 1, "riskScore": 0.5,
        "failedLogins": 1,
    }  # fmt: skip
    said = (await desk.type("user", "show", "una")).stdout
    assert said.startswith("una (una) is ACTIVE, role NORMAL, since 20")
    assert "Signed in at SOCK001; no ticket; 1 device logged in.\n" in said
    assert "1 failed login within an hour.\n" in said
    assert "example.com" not in said


async def test_a_user_who_is_not(desk: Desk) -> None:
    before = desk.audited
    commands = [("show", "nobody"), ("disable", "no:body*{x}\n"), ("enable", "a|b"), ("kick", "'--")]
    for words in (*commands, ("role", "nobody", "ADMIN")):
        done = await desk.type("user", *words)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("There is no user ")
    assert desk.audited == before


async def test_a_role_that_is_none(desk: Desk) -> None:
    done = await desk.type("user", "role", "ada", "KING")
    assert done.returncode == 2
    assert "KING is no role" in done.stderr


def test_nothing_runs(running: Running) -> None:
    nowhere = str(running.folder / "none")
    done = lobbyctl("user", "kick", "ada", "--data-dir", nowhere, folder=running.folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Start it with `lobbyctl up`" in done.stderr
