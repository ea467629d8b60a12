"""Workers come and go by the load, and nothing that was asked for is lost."""

import asyncio
import json
import re

import pytest

from client import RequestFailed
from protocol.messages.auth import Login
from tests.commands.conftest import Start
from tests.commands.running import CHEAP, UP, Running, lobbyctl, wait_until
from tests.system.guest import PASSWORD, Guest

pytestmark = pytest.mark.servers

QUICK = (
    "--set", "status.heartbeat_s=0.5", "--set", "monitoring.every_s=0.3", "--set", "scaling.every_s=0.3",
    "--set", "scaling.more_after_s=0.3", "--set", "scaling.fewer_after_s=1",
)  # fmt: skip


def logins(running: Running) -> list[str]:
    """The login workers that run."""
    return sorted(name for name in running.pids if name.startswith("login-"))


def decided(running: Running, kind: str) -> dict[str, object]:
    """What `lobbyctl scaling` says of a kind of worker."""
    done = lobbyctl("scaling", "--json", "--data-dir", str(running.data), folder=running.folder)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, object]] = json.loads(done.stdout)
    return found.get(kind, {})


async def test_fewer_workers_stay_while_there_is_little_to_do_and_every_request_is_answered(
    start: Start,
) -> None:
    running = start("--no-demo", *CHEAP, *QUICK, "--workers", "login=3", "--autoscale")
    running.wait_for(UP)
    host, _, port = running.endpoints["sockets"]["SOCK001"].rpartition(":")
    guest = await Guest.at((host, int(port)))
    answers = 0
    while len(await asyncio.to_thread(logins, running)) > 1:
        with pytest.raises(RequestFailed) as refusal:
            await guest.ask(Login(username=f"nobody-{answers}", password=PASSWORD))
        assert refusal.value.code in {"INVALID_CREDENTIALS", "TOO_MANY_ATTEMPTS"}
        answers += 1
        await asyncio.sleep(0.05)
    guest.leave()
    assert logins(running) == ["login-1"]
    running.wait_for("login-3 has stopped")
    assert re.search(r"^login: \d workers, load \d+% is below 30%: \d; end login-\d", running.stdout, re.M)
    assert running.end() == 0
    assert running.left() == set()


def test_more_workers_come_when_they_are_wanted_and_the_reason_is_told(start: Start) -> None:
    running = start("--no-demo", *CHEAP, *QUICK, "--set", "scaling.least=2", "--autoscale", "--dry-run")
    running.wait_for(UP)
    running.wait_for("would start login-2")
    assert re.search(
        r"^login: 1 worker, load \d+% .*, 2 at least: 2; would start login-2$", running.stdout, re.M
    )
    assert decided(running, "login")["wanted"] == 2
    assert logins(running) == ["login-1"], "nothing follows a dry run"
    assert running.end() == 0

    running = start("--no-demo", *CHEAP, *QUICK, "--set", "scaling.least=2", "--autoscale")
    running.wait_for(UP)
    wait_until(lambda: logins(running) == ["login-1", "login-2"], "there are two login workers")
    wait_until(lambda: decided(running, "login").get("now") == 2, "they are counted")
    assert "; start login-2\n" in running.stdout
    assert running.end() == 0
    assert running.left() == set()
