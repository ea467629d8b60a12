"""`lobbyctl admission` on a system that is up: what an operator sets holds for every worker, and is told."""

import asyncio
import contextlib
import getpass
import json
import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from client import Player
from storage import keys
from tests.commands.running import CHEAP, LOBBYCTL, PATIENCE_S, UP, Running, environment, lobbyctl, wait_until

pytestmark = pytest.mark.servers

PASSWORD = "correct horse battery"
SLOW = 1
"""Players a minute: nobody's turn comes while a test looks, but that of the first."""

HELD = 10
"""Minutes in which nobody else's turn comes at that rate, for what a busy machine does slowly."""

FAST = 60_000


class Desk:
    """An operator's place at a running system."""

    def __init__(self, running: Running) -> None:
        self.running = running

    def type(self, *words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run `lobbyctl admission` as an operator who came by sudo."""
        return subprocess.run(
            [LOBBYCTL, "admission", *words, "--data-dir", str(self.running.data)],
            cwd=self.running.folder,
            env={**environment(), "SUDO_USER": "kim"},
            capture_output=True,
            input=stdin or "",
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    def do(self, *words: str) -> dict[str, Any]:
        """Run a command that works, and take what it says as JSON."""
        done = self.type(*words, "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def audited(self) -> list[str]:
        """Who did what, the newest first."""
        with self.redis() as redis:
            lines: Any = redis.lrange(keys.AUDIT_LOGS, 0, -1)
        return [line.partition("|")[2] for line in lines]

    def clear(self) -> None:
        """Forget what was set, and let all in who wait."""
        with self.redis() as redis:
            redis.delete(keys.PORTAL_CONFIG)
            redis.hset(keys.PORTAL_CONFIG, "totalRate", FAST)
            wait_until(lambda: not redis.zcard(keys.PORTAL_WAITING), "all are let in")
            redis.delete(keys.PORTAL_BUCKET, keys.PORTAL_WINDOW)
            redis.hset(keys.PORTAL_CONFIG, mapping={"admitRate": SLOW, "podCount": 1, "totalRate": SLOW})

    def redis(self) -> Redis:
        """The system's."""
        return Redis.from_url(self.running.endpoints["redis"], decode_responses=True)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A system of two login workers that lets players in slowly."""
    rate = ("--set", f"login.admit_rate={SLOW}", "--set", "login.pod_count=1")
    limits = ("--set", "limits.registrations_per_ip_per_hour=1000")
    folder = tmp_path_factory.mktemp("admission")
    running = Running(folder, "--no-demo", "--workers", "login=2", *CHEAP, *rate, *limits)
    try:
        running.wait_for(UP)
        yield running
    finally:
        running.clean_up()


@pytest.fixture
def desk(running: Running) -> Iterator[Desk]:
    """At a system of which only the configured is set, and where nobody waits in the end."""
    desk = Desk(running)
    yield desk
    desk.clear()


async def cancel(task: asyncio.Task[None]) -> None:
    """End a task, and take what came of it."""
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()


@contextlib.asynccontextmanager
async def crowd(running: Running, *names: str) -> AsyncIterator[dict[str, asyncio.Task[None]]]:
    """Players who wait, in this order, by name. One more goes before them and takes what the bucket holds."""
    host, port = running.endpoints["sockets"]["SOCK001"].rsplit(":", 1)
    async with contextlib.AsyncExitStack() as stack:
        waiting = {}
        for name in (f"first.of-{names[0]}", *names):
            player = await stack.enter_async_context(Player([(host, int(port))]))
            await player.register(name, PASSWORD, f"{name}@example.com", name)
            await player.login(name, PASSWORD)
            waiting[name] = asyncio.create_task(player.wait_until_ready())
            stack.push_async_callback(cancel, waiting[name])
            if name not in names:
                await waiting[name]
                with Desk(running).redis() as redis:
                    redis.hincrbyfloat(keys.PORTAL_BUCKET, "tokens", -HELD)
                    redis.delete(keys.PORTAL_READY)  # when their deadlines pass, others come in for them
        yield {name: waiting[name] for name in names}


async def streams(desk: Desk, name: str) -> dict[str, Any]:
    """What is said of a player, once their connection streams the ticket."""
    while True:
        said = await asyncio.to_thread(desk.do, "why", name)
        if said["status"] != "PENDING" or said["connected"]:
            return said


def test_show_says_what_is_configured(running: Running) -> None:
    shown = Desk(running).do("show")
    assert (shown["totalRate"], shown["rate"], shown["podRate"]) == (SLOW, SLOW, SLOW)
    assert (shown["paused"], shown["setBy"], shown["setAt"]) == (False, None, None)
    assert shown["ledger"].keys() == {"issued", "waiting", "ready", "consumed", "cancelled", "expired"}
    assert {"avgWaitSec", "lastWaitSec"} <= shown.keys()
    said = Desk(running).type("show").stdout
    assert "Let in: 1 player a minute (1.0 for each pod of 1)." in said
    assert "The rate is the configured one." in said


def test_show_says_who_changed_what(desk: Desk) -> None:
    desk.do("rate", "90", "--yes")
    desk.do("pause")
    shown = desk.do("show")
    assert (shown["totalRate"], shown["rate"], shown["configuredRate"]) == (0, 90, SLOW)
    assert (shown["paused"], shown["setBy"]) == (True, "kim")
    said = desk.type("show").stdout
    assert said.startswith("PAUSED: nobody is let in.\n")
    assert "`lobbyctl admission resume` lets in 90 players a minute" in said
    assert "set by an operator; configured are 1." in said
    assert f"Last changed by kim at {shown['setAt']}." in said
    status = subprocess.run(
        [LOBBYCTL, "status", "--data-dir", str(desk.running.data)],
        cwd=desk.running.folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert "Nobody is admitted: `lobbyctl admission show` says why." in status.stdout


def test_each_change_is_audited(desk: Desk) -> None:
    before = desk.do("show")["rate"]
    waits = {"waiting": 0, "lastWaitSecBefore": 0, "lastWaitSecAfter": 0}
    assert desk.do("rate", "90", "--yes") == {"changed": True, "before": before, "after": 90, **waits}
    assert desk.do("pause") == {"changed": True, "before": 90, "after": 0}
    assert desk.do("pause") == {"changed": False, "before": 0, "after": 0}
    assert desk.do("resume") == {"changed": True, "before": 0, "after": 90}
    assert desk.audited()[:3] == [
        "kim|admission:resume|queue:portal:0->90|ALLOWED|lobbyctl",
        "kim|admission:pause|queue:portal:90->0|ALLOWED|lobbyctl",
        f"kim|admission:rate|queue:portal:{before:.0f}->90|ALLOWED|lobbyctl",
    ]


def test_without_sudo_the_operator_is_the_login_name(desk: Desk) -> None:
    data = ("--data-dir", str(desk.running.data))
    assert lobbyctl("admission", "rate", "70", "--yes", *data, folder=desk.running.folder).returncode == 0
    assert desk.audited()[0].startswith(f"{getpass.getuser()}|admission:rate|")


def test_a_rate_is_asked_for_before_it_is_set(desk: Desk) -> None:
    before = desk.do("show")["rate"]
    for answer in ("n\n", "\n", ""):
        done = desk.type("rate", "90", stdin=answer)
        assert done.returncode == 1
        assert done.stdout == "0 players wait.\n"
        assert "Let in 90 players a minute, all pods together? [y/N]" in done.stderr
        assert done.stderr.endswith("Nothing was changed.\n")
    assert desk.do("show")["rate"] == before
    done = desk.type("rate", "90", stdin="y\n")
    assert (done.returncode, desk.do("show")["rate"]) == (0, 90)
    assert "Set: 90 players a minute, 1 before." in done.stdout


def test_json_stays_json_when_it_asks(desk: Desk) -> None:
    done = desk.type("rate", "90", "--json", stdin="y\n")
    assert json.loads(done.stdout)["after"] == 90
    assert "0 players wait." in done.stderr


def test_ctrl_c_is_a_no(desk: Desk) -> None:
    master, terminal = pty.openpty()
    command = [LOBBYCTL, "admission", "rate", "90", "--data-dir", str(desk.running.data)]
    with subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment(), start_new_session=True
    ) as asking:
        os.close(terminal)
        said = b""
        while b"[y/N]" not in said:
            said += os.read(master, 1024)
        asking.send_signal(signal.SIGINT)
        assert asking.wait(PATIENCE_S) == 1
    os.close(master)
    assert desk.do("show")["rate"] == SLOW


@pytest.mark.parametrize(
    ("number", "said"),
    [
        ("0", "use `lobbyctl admission pause`"),
        ("-5", "-5 is not a number"),
        ("many", "neither a number of players nor `configured`"),
    ],
)
def test_a_rate_that_cannot_be_is_refused(running: Running, number: str, said: str) -> None:
    done = Desk(running).type("rate", number, "--yes")
    assert done.returncode == 2
    assert said in re.sub(r"[\s│]+", " ", done.stderr)


@pytest.mark.parametrize(
    "words", [("show",), ("rate", "5", "--yes"), ("pause",), ("resume",), ("why", "ada")]
)
def test_nothing_runs(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = lobbyctl("admission", *words, "--data-dir", str(tmp_path / "none"), folder=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Start it with `lobbyctl up`" in done.stderr


async def test_a_rate_change_reaches_every_worker(desk: Desk) -> None:
    """Each worker in turn is the only one that is not frozen, so it must be the one that lets players in."""
    for awake, asleep in (("login-1", "login-2"), ("login-2", "login-1")):
        pid = desk.running.pids[asleep]
        async with crowd(desk.running, f"a.{awake}", f"b.{awake}", f"c.{awake}") as waiting:
            os.kill(pid, signal.SIGSTOP)
            try:
                assert not any(task.done() for task in waiting.values())
                await asyncio.to_thread(desk.do, "rate", str(FAST), "--yes")
                await asyncio.gather(*waiting.values())
            finally:
                os.kill(pid, signal.SIGCONT)
        desk.clear()


async def test_a_pause_holds_for_every_worker_and_outlasts_them(desk: Desk) -> None:
    async with crowd(desk.running, "pat", "pia") as waiting:
        await asyncio.to_thread(desk.do, "pause")
        await asyncio.to_thread(desk.do, "rate", str(FAST), "--yes")
        for worker in ("login-1", "login-2"):
            pid = desk.running.pids[worker]
            os.kill(pid, signal.SIGKILL)
            await asyncio.to_thread(desk.running.wait_until_restarted, worker, pid)
        await asyncio.sleep(3)  # whoever surveys the room looks at the rate every 2 s
        shown = await asyncio.to_thread(desk.do, "show")
        assert (shown["paused"], shown["totalRate"], shown["rate"]) == (True, 0, FAST)
        assert shown["lastWaitSec"] is None
        assert not any(task.done() for task in waiting.values())

        await asyncio.to_thread(desk.do, "resume")
        await asyncio.gather(*waiting.values())


async def test_a_rate_outlasts_the_workers(desk: Desk) -> None:
    await asyncio.to_thread(desk.do, "rate", "90", "--yes")
    pid = desk.running.pids["login-1"]
    os.kill(pid, signal.SIGKILL)
    await asyncio.to_thread(desk.running.wait_until_restarted, "login-1", pid)
    assert (await asyncio.to_thread(desk.do, "show"))["totalRate"] == 90


def test_a_rate_is_given_back_to_configuration(desk: Desk) -> None:
    desk.do("rate", "90", "--yes")
    done = desk.type("rate", "configured", stdin="y\n")
    assert "Let in 1 player a minute, as configured, all pods together? [y/N]" in done.stderr
    assert "Set: 1 player a minute, as configured, 90 before." in done.stdout
    assert desk.audited()[0] == "kim|admission:rate|queue:portal:90->1|ALLOWED|lobbyctl"
    assert "The rate is the configured one." in desk.type("show").stdout


async def test_the_projection_says_what_a_rate_does_to_the_last_in_line(desk: Desk) -> None:
    async with crowd(desk.running, "quin", "rob"):
        done = await asyncio.to_thread(desk.type, "rate", "120", stdin="n\n")
        assert done.stdout == (
            "2 players wait.\nThe last in line waits 2 min 0 s at 1 a minute, and 1 s at 120.\n"
        )


async def test_why_tells_what_a_player_waits_for(desk: Desk) -> None:
    async with crowd(desk.running, "uma", "val") as waiting:
        val = await streams(desk, "VAL")
        assert (val["userId"], val["status"], val["position"], val["totalWaiting"]) == (
            "val",
            "PENDING",
            2,
            2,
        )
        assert (val["waitsFor"], val["opensAt"], val["node"]) == ("rate", None, "SOCK001")
        assert val["estimatedWaitSec"] is None, "nobody has come in"
        said = (await asyncio.to_thread(desk.type, "why", "val")).stdout
        assert said.startswith("val is PENDING, place 2 of 2, tier NORMAL; logged in ")
        assert "Connected through SOCK001, last seen " in said
        assert "Waits for its turn at 1 player a minute; nobody has come in yet" in said
        with desk.redis() as redis:
            redis.hincrby(keys.PORTAL_STATS, "consumed", 1)
            redis.hset(keys.PORTAL_BUCKET, mapping={"tokens": 0, "at": int(time.time() * 1000)})
        val = await asyncio.to_thread(desk.do, "why", "val")
        assert 50 <= val["estimatedWaitSec"] <= 120
        said = (await asyncio.to_thread(desk.type, "why", "val")).stdout
        assert re.search(r"Waits for its turn, in about .*, at 1 player a minute\.", said)
        with desk.redis() as redis:
            redis.hincrby(keys.PORTAL_STATS, "consumed", -1)

        await asyncio.to_thread(desk.do, "pause")
        assert (await asyncio.to_thread(desk.do, "why", "val"))["waitsFor"] == "paused"
        said = (await asyncio.to_thread(desk.type, "why", "val")).stdout
        assert "Waits for the end of the pause: `lobbyctl admission resume`." in said

        await asyncio.to_thread(desk.do, "rate", str(FAST), "--yes")
        await asyncio.to_thread(desk.do, "resume")
        await asyncio.gather(*waiting.values())
        val = await asyncio.to_thread(desk.do, "why", "val")
        assert (val["status"], val["position"], val["waitsFor"]) == ("READY", 0, "finalize")
        assert 0 < val["finalizeDeadlineSec"] <= 60
        said = (await asyncio.to_thread(desk.type, "why", "val")).stdout
        assert re.search(r"the game client has \d+ s|1 min 0 s left to finalize\.", said)


async def test_why_knows_of_no_ticket(desk: Desk) -> None:
    host, port = desk.running.endpoints["sockets"]["SOCK001"].rsplit(":", 1)
    async with Player([(host, int(port))]) as player:
        await player.register("Nadja", PASSWORD, "nadja@example.com", "Nadja")
    found = await asyncio.to_thread(desk.do, "why", "Nadja")
    assert found == {"userId": "nadja", "status": None, "waitsFor": None}
    said = await asyncio.to_thread(desk.type, "why", "nadja")
    assert said.returncode == 0
    assert said.stdout.startswith("nadja has no ticket, so waits for nothing")


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_why_knows_nothing_of_who_has_no_account(running: Running, options: tuple[str, ...]) -> None:
    said = Desk(running).type("why", "Nobody", *options)
    assert (said.returncode, said.stdout, said.stderr) == (1, "", "There is no user nobody.\n")
