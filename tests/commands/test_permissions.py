"""`lobbyctl policy | group | audit` on a system that is up: what counts at once, and what is told of it."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from redis import Redis

from protocol.messages.iam import CheckPermission, Permission
from storage import keys
from tests.commands.running import CHEAP, LOBBYCTL, PATIENCE_S, UP, Running, environment
from tests.system.guest import Guest

pytestmark = pytest.mark.servers


class Desk:
    """An operator's place at a running system."""

    def __init__(self, running: Running) -> None:
        self.running = running

    def type(self, *words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [LOBBYCTL, *words, "--data-dir", str(self.running.data)],
            cwd=self.running.folder,
            env={**environment(), "SUDO_USER": "kim"},
            capture_output=True,
            input=stdin or "",
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    def do(self, *words: str, stdin: str | None = None) -> Any:
        done = self.type(*words, "--json", stdin=stdin)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def refused(self, *words: str, code: int, stdin: str | None = None) -> str:
        done = self.type(*words, stdin=stdin)
        assert done.returncode == code, done
        return done.stderr

    def put(self, policy_id: str, *rules: dict[str, str]) -> None:
        policy = {"policyId": policy_id, "policyName": policy_id, "rules": rules}
        assert self.do("policy", "put", "-", stdin=json.dumps(policy)) == {"policyId": policy_id}

    def lines(self) -> list[str]:
        with Redis.from_url(self.running.endpoints["redis"], decode_responses=True) as redis:
            found: Any = redis.lrange(keys.AUDIT_LOGS, 0, -1)
        return [line.partition("|")[2] for line in reversed(found)]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Any:
    limits = ("--set", "limits.registrations_per_ip_per_hour=1000")
    options = ("--no-demo", "--nodes", "2", "--workers", "login=2", "--set", "login.admit_rate=60000")
    running = Running(tmp_path_factory.mktemp("iam"), *CHEAP, *limits, *options)
    try:
        running.wait_for(UP)
        yield Desk(running)
    finally:
        running.clean_up()


@asynccontextmanager
async def player(desk: Desk, name: str, node: str = "SOCK001") -> AsyncIterator[Guest]:
    host, port = desk.running.endpoints["sockets"][node].rsplit(":", 1)
    guest = await Guest.at((host, int(port)))
    await guest.sign_up(name)
    yield guest
    guest.leave()


async def may(guest: Guest, action: str, resource: str) -> bool:
    return cast(Permission, await guest.ask(CheckPermission(action=action, resource=resource))).allowed


def test_policies_are_listed_and_shown_as_they_are_put(desk: Desk) -> None:
    said = desk.type("policy", "list").stdout
    assert "1. allow role:bear on role:* if resource ==" in said
    shown = desk.type("policy", "show", "roles").stdout
    assert desk.do("policy", "put", "-", stdin=shown) == {"policyId": "roles"}
    assert "no policy `nowhere`" in desk.refused("policy", "remove", "nowhere", code=1)


async def test_what_an_operator_puts_counts_at_once_at_every_node(desk: Desk) -> None:
    async with player(desk, "cmd-anna") as anna, player(desk, "cmd-ben", "SOCK002") as ben:
        for guest in (anna, ben):
            assert not await may(guest, "arena:join", "arena:1")
        await asyncio.to_thread(desk.put, "arena", {"action": "arena:*", "resource": "arena:*"})
        for guest in (anna, ben):
            assert await may(guest, "arena:join", "arena:1")
        await asyncio.to_thread(desk.do, "policy", "remove", "arena")
        for guest in (anna, ben):
            assert not await may(guest, "arena:join", "arena:1")
    assert desk.lines()[-2:] == [f"cmd-{name}|arena:join|arena:1|DENIED|-" for name in ("anna", "ben")]
    assert "kim|policy:put|policy:arena|ALLOWED|lobbyctl" in desk.lines()
    assert "kim|policy:remove|policy:arena|ALLOWED|lobbyctl" in desk.lines()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "-: line 1, column 2: "),
        (
            '{"policyId": "p", "policyName": "P", "rules": [{"action": "a"}]}',
            "missing required field `resource`",
        ),
        (
            '{"policyId": "p", "policyName": "P", "rules": '
            '[{"action": "a", "resource": "b", "condition": "user.role ==\\n 5 &&"}]}',
            "-: rule 1, condition, line 2, column 6: Syntax error",
        ),
    ],
)
def test_a_policy_that_cannot_be_is_refused_with_the_place_of_the_fault(
    desk: Desk, text: str, said: str
) -> None:
    assert said in desk.refused("policy", "put", "-", stdin=text, code=2)


def test_a_file_that_cannot_be_read_is_said(desk: Desk, tmp_path: Path) -> None:
    assert "cannot be read" in desk.refused("policy", "put", str(tmp_path / "none.json"), code=2)
    (tmp_path / "bytes").write_bytes(b"\xff")
    assert "not UTF-8" in desk.refused("policy", "put", str(tmp_path / "bytes"), code=2)


async def test_a_decision_can_be_tried_out_without_being_made(desk: Desk) -> None:
    async with player(desk, "cmd-vera"):
        pass
    type_ = asyncio.to_thread
    await type_(desk.do, "group", "add", "VIP_Users", "CMD-Vera")
    before = desk.lines()
    found = await type_(desk.do, "policy", "test", "cmd-vera", "queue:priority", "queue:portal:VIP")
    assert (found["allowed"], found["policyMatched"]) == (True, "queue-priority")
    assert found["reason"] == 'Allowed by rule 1 of policy "Queue Access Policy".'
    assert found["user"]["groups"] == ["VIP_Users"]
    said = desk.type("policy", "test", "nobody", "queue:priority", "queue:portal:VIP").stdout
    assert said.startswith("DENIED: There is no such account")
    assert desk.lines() == before
    desk.put("level", {"action": "level:x", "resource": "*", "condition": "context.level > 9"})
    words = ("policy", "test", "cmd-vera", "level:x", "y")
    assert "failed: Key not found" in desk.do(*words)["reason"]
    assert desk.do(*words, "--context", '{"level": 10}')["allowed"]
    assert "--context: line 1, column 2" in desk.refused(*words, "--context", "{", code=2)


async def test_groups_come_change_and_go(desk: Desk) -> None:
    async with player(desk, "cmd-gina") as gina:
        type_ = asyncio.to_thread
        await type_(
            desk.put, "clan", {"action": "clan:*", "resource": "*", "condition": '"duel" in user.permissions'}
        )
        await type_(desk.do, "group", "put", "Clan", "--name", "클랜", "--permissions", "duel, raid")
        assert not await may(gina, "clan:fight", "x")
        await type_(desk.do, "group", "add", "Clan", "cmd-gina")
        assert await may(gina, "clan:fight", "x")
        shown = await type_(desk.do, "group", "show", "Clan")
        assert shown == {
            "groupId": "Clan", "groupName": "클랜", "description": "", "memberCount": 1,
            "permissions": ["duel", "raid"], "members": ["cmd-gina"],
        }  # fmt: skip
        await type_(desk.do, "group", "put", "Clan", "--permissions", "raid")
        assert not await may(gina, "clan:fight", "x")
        await type_(desk.do, "group", "add", "Premium_Users", "cmd-gina")
        await type_(desk.do, "group", "remove", "Clan", "cmd-gina")
        await type_(desk.do, "group", "delete", "Clan")
    assert (
        "Premium_Users: Premium Users, 1 member, permits queue_priority" in desk.type("group", "list").stdout
    )
    mine = [line for line in desk.lines() if line.startswith("kim|group:") and "Clan" in line]
    assert mine[0] == "kim|group:put|group:Clan|ALLOWED|lobbyctl"
    assert mine[1] == "kim|group:add|group:Clan:cmd-gina|ALLOWED|lobbyctl"
    assert mine[-1] == "kim|group:delete|group:Clan|ALLOWED|lobbyctl"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("group", "add", "Nobodies", "cmd-x"), 1, "no group `Nobodies`"),
        (("group", "add", "VIP_Users", "cmd-nobody"), 1, "no account `cmd-nobody`"),
        (("group", "put", "a:{b}"), 2, "a group's id is"),
        (("audit", "search", "--result", "maybe"), 2, "--result MAYBE: it is ALLOWED or DENIED"),
    ],
)
def test_what_cannot_be_is_refused_in_words(desk: Desk, words: tuple[str, ...], code: int, said: str) -> None:
    assert said in desk.refused(*words, code=code)


async def test_all_that_was_written_down_can_be_searched(desk: Desk) -> None:
    async with player(desk, "cmd-sue") as sue:
        for number in range(3):
            await may(sue, "search:me", f"thing:{number}|x")
        await asyncio.to_thread(desk.do, "admission", "rate", "50000", "--yes")
        newest = await asyncio.to_thread(desk.do, "audit", "tail", "-n", "1")
        assert newest["entries"][0]["action"] == "admission:rate"
        found = await asyncio.to_thread(
            desk.do, "audit", "search", "--who", "cmd-sue", "--action", "search:*"
        )
        assert [entry["resource"] for entry in found["entries"]] == [f"thing:{n}%7Cx" for n in range(3)]
        assert found["entries"][0]["reason"] == "No policy allows this."
        by_kim = await asyncio.to_thread(
            desk.do,
            "audit",
            "search",
            "--who",
            "kim",
            "--result",
            "allowed",
            "--since",
            "2024-12-18",
            "-n",
            "1",
        )
        assert [entry["action"] for entry in by_kim["entries"]] == ["admission:rate"]
