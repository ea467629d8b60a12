"""The operator's desk on a system that is up: queues looked at and cleared, processes drained."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from storage import keys
from tests.commands.running import LOBBYCTL, PATIENCE_S, Running, environment, wait_until

pytestmark = pytest.mark.servers


def typed(running: Running, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LOBBYCTL, *words, "--data-dir", str(running.data)],
        cwd=running.folder,
        env={**environment(), "SUDO_USER": "kim"},
        capture_output=True,
        input=stdin,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def answered(running: Running, *words: str) -> Any:
    done = typed(running, *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def put_letters(running: Running, queue_id: str, count: int) -> None:
    with Redis.from_url(running.endpoints["redis"]) as redis:
        for _ in range(count):
            fields: Any = {"m": b"\xc1", "queueId": queue_id, "cause": "CRASHED", "deliveries": 4}
            redis.xadd(keys.dead_letters(queue_id), fields)


def audited(running: Running) -> list[str]:
    with Redis.from_url(running.endpoints["redis"], decode_responses=True) as redis:
        found: Any = redis.lrange(keys.AUDIT_LOGS, 0, -1)
    return [line.partition("|")[2] for line in found]


def test_queues_are_listed_with_their_dead_letters(desk: Running) -> None:
    put_letters(desk, "ranking_queue:low", 2)
    queues = {each["queueId"]: each for each in answered(desk, "queue", "ls")["queues"]}
    assert queues["ranking_queue:low"]["deadLetters"] == 2
    assert queues["SOCK001_Q"] == {
        **queues["SOCK001_Q"], "queueType": "socket_message", "maxSize": 10_000, "deadLetters": 0,
    }  # fmt: skip
    said = typed(desk, "queue", "ls").stdout
    assert "event_bus" in said
    assert "1,000,000" in said
    assert "…" not in said, "all of it fits into the 80 columns of a pipe"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is full")
@pytest.mark.parametrize("words", [("queue", "ls", "--json"), ("status", "--json"), ("policy", "list")])
def test_an_answer_that_cannot_be_written_is_an_error_in_words(desk: Running, words: tuple[str, ...]) -> None:
    command = [LOBBYCTL, *words, "--data-dir", str(desk.data)]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=PATIENCE_S, check=False
        )
    assert (done.returncode, done.stderr) == (
        1,
        "This cannot be done: [Errno 28] No space left on device\n",
    )


def test_an_answer_that_nobody_reads_any_more_is_no_news(desk: Running) -> None:
    command = [LOBBYCTL, "policy", "list", "--data-dir", str(desk.data)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert (process.wait(PATIENCE_S), process.stderr.read()) == (1, "")
    process.stderr.close()


def test_what_nobody_reads_is_purged_once_it_is_confirmed(desk: Running) -> None:
    with Redis.from_url(desk.endpoints["redis"]) as redis:
        redis.hset(keys.queue_meta("old_queue"), mapping={"queueType": "request", "maxSize": 9})
        redis.sadd(keys.QUEUE_IDS, "old_queue")
        redis.xgroup_create("old_queue", "lobbyd", "0", mkstream=True)
        for _ in range(3):
            redis.xadd("old_queue", {"m": b"\xc1"})
    entries = answered(desk, "queue", "peek", "old_queue", "-n", "2")["entries"]
    assert [(each["bytes"], each["holder"], each["what"]) for each in entries] == 2 * [(1, None, {})]
    done = typed(desk, "queue", "purge", "old_queue", stdin="n\n")
    assert (done.returncode, done.stdout) == (1, "")
    assert "3 of 3 entries wait" in done.stderr
    assert "Nothing was changed" in done.stderr
    assert answered(desk, "queue", "purge", "old_queue", "--yes")["purged"] == 3
    assert "kim|queue:purge|queue:old_queue:3->0|ALLOWED|lobbyctl" in audited(desk)


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (("queue", "peek", "nothing"), "There is no queue nothing"),
        (("queue", "purge", "portal_queue:file_upload", "--yes"), "promised"),
        (("drain", "SOCK009", "--yes"), "There is no process SOCK009. There are"),
    ],
)
def test_what_cannot_be_done_says_why(desk: Running, words: tuple[str, ...], cause: str) -> None:
    done = typed(desk, *words)
    assert done.returncode == 1
    assert cause in done.stderr


def test_a_drained_node_ends_well_and_stays_away(desk: Running) -> None:
    pid = desk.pids["SOCK003"]
    done = answered(desk, "drain", "SOCK003", "--yes")
    assert (done["pid"], done["statusCode"]) == (pid, "STOPPED")
    desk.wait_for("SOCK003 was drained and stays away")
    wait_until(lambda: "SOCK003" not in desk.pids, "SOCK003 is forgotten")
    assert "SOCK003" not in desk.endpoints["sockets"]
    assert "SOCK001" in desk.endpoints["sockets"]
    assert "kim|server:drain|server:SOCK003|ALLOWED|lobbyctl" in audited(desk)
    again = typed(desk, "drain", "SOCK003", "--yes")
    assert again.returncode == 1
    assert "SOCK003 is not alive: it is STOPPED" in again.stderr
    assert "starting it again" not in desk.stdout


def test_a_worker_is_drained_as_a_node_is_once_it_is_confirmed(desk: Running) -> None:
    refused = typed(desk, "drain", "login-2", stdin="\n")
    assert refused.returncode == 1
    assert "Drain login-2?" in refused.stderr
    done = typed(desk, "drain", "login-2", stdin="y\n")
    assert (done.returncode, "has ended after" in done.stdout) == (0, True), done.stderr
    assert "login-2 DRAINING" in done.stderr or "login-2 READY" in done.stderr
    assert desk.server("login-1")["statusCode"] == "READY"


def test_shells_complete_commands(desk: Running) -> None:
    asked = {
        **environment(),
        "_LOBBYCTL_COMPLETE": "complete_bash",
        "COMP_WORDS": "lobbyctl dr",
        "COMP_CWORD": "1",
    }
    done = subprocess.run(
        [LOBBYCTL], env=asked, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.stdout.split() == ["drain"]
