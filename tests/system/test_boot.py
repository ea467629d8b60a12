"""How the parts come up, fail, beat and end: the first seed document, on real processes."""

import asyncio
import re
import signal
import socket
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from client import ConnectionLost
from protocol.messages.auth import Login
from protocol.messages.connection import Goodbye
from storage import keys
from tests.servers import HOST, free_port
from tests.system.cluster import Cluster, Process, until
from tests.system.conftest import run_house
from tests.system.guest import PASSWORD, Guest

pytestmark = pytest.mark.servers

QUICK_HEARTBEATS = {"status.heartbeat_s": 0.5}
SEED_FIELDS = {
    "serverType",
    "statusCode",
    "startTime",
    "queueId",
    "cpuUsage",
    "memoryUsage",
    "networkStatus",
}
OPERATORS_FIELDS = {"host", "port", "pid", "connections", "version", "bootId", "lastHeartbeat", "error"}


@pytest.fixture(scope="module")
def watched(servers_folder: Path) -> Iterator[Cluster]:
    """A status manager and a login worker, with quick heartbeats; each test starts nodes of its own."""
    for cluster in run_house(servers_folder / uuid.uuid4().hex, QUICK_HEARTBEATS):
        cluster.start(nodes=0)
        yield cluster


def left_behind(cluster: Cluster, process: Process) -> list[str]:
    """What of a process is still there: its lease; a node's queue and the index of it, its open port."""
    queue = keys.node_queue(process.name)
    names = [queue, keys.queue_meta(queue), keys.queue_stats(queue), keys.server_lease(process.name)]
    found = [name for name in names if cluster.redis.exists(name)]
    if cluster.redis.sismember(keys.QUEUE_IDS, queue):
        found.append(keys.QUEUE_IDS)
    with socket.socket() as probe:
        if process.port is not None and probe.connect_ex(process.endpoint) == 0:
            found.append(f"port {process.port}")
    return found


def failed(cluster: Cluster, process: Process, step: str) -> str:
    """See that a process ended in ERROR at a step and left nothing behind. Answers its status's cause."""
    assert process.wait() == 1
    status = cluster.wait_for(process, "ERROR")
    assert status["error"].startswith(f"{step}: "), status
    assert f'"cause": "{step}: ' in process.log
    assert left_behind(cluster, process) == []
    return status["error"]


async def somebody_signs_in(node: Process) -> None:
    """See that the node, its queue and a login worker serve a player from beginning to end."""
    name = f"somebody-{uuid.uuid4().hex[:8]}"
    guest = await Guest.at(node.endpoint)
    assert (await guest.sign_up(name)).user_id == name
    guest.leave()


@pytest.fixture(scope="module")
def node(watched: Cluster) -> Process:
    """A node to look at."""
    return watched.start_node()


class TestReady:
    def test_the_status_hash_has_the_fields_of_the_seed(self, watched: Cluster, node: Process) -> None:
        status = watched.status(node)

        assert status.keys() == SEED_FIELDS | OPERATORS_FIELDS
        assert status["serverType"] == "SOCKET"
        assert status["statusCode"] == "READY"
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", status["startTime"])
        assert status["queueId"] == f"{node.name}_Q"
        assert float(status["cpuUsage"]) >= 0
        assert 0 < float(status["memoryUsage"]) < 100
        assert status["networkStatus"] == "GOOD"
        assert (status["host"], status["port"]) == (HOST, str(node.port))
        assert (status["connections"], status["error"], status["pid"]) == ("0", "", str(node.pid))

    def test_starting_comes_before_ready(self, watched: Cluster, node: Process) -> None:
        log = watched["status-1"].log
        reported = re.findall(rf'"server": "{node.name}", "status": "(\w+)"', log)

        assert reported == ["STARTING", "READY"]

    def test_the_queue_is_that_of_the_seed(self, watched: Cluster, node: Process) -> None:
        queue = f"{node.name}_Q"

        meta = watched.redis.hgetall(keys.queue_meta(queue))

        assert int(meta.pop("createdAt")) > 0
        assert float(meta.pop("expireTime")) == 3600
        assert meta == {
            "queueType": "socket_message",
            "maxSize": "10000",
            "priority": "high",
            "serverId": node.name,
        }
        assert watched.redis.type(queue) == "stream"
        assert [group["consumers"] for group in watched.redis.xinfo_groups(queue)] == [1]

    def test_heartbeats_go_on(self, watched: Cluster, node: Process) -> None:
        first = watched.status(node)["lastHeartbeat"]

        until(lambda: watched.status(node)["lastHeartbeat"] > first, "a heartbeat")

        assert watched.status(node)["statusCode"] == "READY"

    async def test_a_heartbeat_counts_the_connections(self, watched: Cluster, node: Process) -> None:
        guests = [await Guest.at(node.endpoint) for _ in range(3)]

        until(lambda: watched.status(node)["connections"] == "3", "three connections in the status")

        for guest in guests:
            guest.leave()

    def test_a_node_waits_for_no_status_manager(self, cluster: Cluster) -> None:
        node = cluster.start_node(wait=False)
        until(lambda: '"event": "ready"' in node.log, "ready without a status manager")

        cluster.start_worker("status")

        assert cluster.wait_for(node, "READY")["startTime"]

    def test_two_nodes_stand_side_by_side(self, watched: Cluster) -> None:
        first, second = watched.start_node(), watched.start_node()

        first.end()

        assert watched.wait_for(first, "STOPPED")
        assert watched.status(second)["statusCode"] == "READY"
        assert watched.redis.exists(f"{second.name}_Q")
        asyncio.run(somebody_signs_in(second))


@pytest.fixture
def taken_port() -> Iterator[socket.socket]:
    with socket.socket() as taken:
        taken.bind((HOST, free_port()))
        taken.listen()
        yield taken


def port_of(listening: socket.socket) -> int:
    port: int = listening.getsockname()[1]
    return port


@dataclass(frozen=True)
class Failing:
    """Processes that cannot start, each for its own reason; side by side, as each takes time to give up."""

    no_queue: Process
    deaf: Process
    no_redis: Process
    no_database: Process


@pytest.fixture(scope="module")
def failing(watched: Cluster) -> Failing:
    watched.redis.set("SOCK901_Q", "somebody else's")
    watched.redis.acl_setuser(
        "deaf", enabled=True, passwords=["+pw"], keys=["*"], channels=["*"],
        commands=["+@all", "-xreadgroup"],
    )  # fmt: skip
    deaf_url = str(watched.settings["redis.url"]).replace("//", "//deaf:pw@")
    database_url = f"mysql+aiomysql://nobody:secret-word@{HOST}:1/nothing"
    return Failing(
        no_queue=watched.start_node(901, wait=False),
        deaf=watched.start_node(settings={"redis.url": deaf_url}, wait=False),
        no_redis=watched.start_node(settings={"redis.url": f"redis://{HOST}:1/0"}, wait=False),
        no_database=watched.start_worker("login", 2, {"database.url": database_url}, wait=False),
    )


class TestFailure:
    def test_queue_creation(self, watched: Cluster, failing: Failing) -> None:
        node = failing.no_queue

        assert node.wait() == 1

        error = watched.wait_for(node, "ERROR")["error"]
        assert error.startswith("queue creation: ")
        assert "WRONGTYPE" in error
        assert left_behind(watched, node) == ["SOCK901_Q"]
        assert watched.redis.get("SOCK901_Q") == "somebody else's"
        watched.redis.delete("SOCK901_Q")
        assert watched.status(watched.start_node(901))["error"] == ""

    def test_queue_creation_that_works_when_tried_again(self, watched: Cluster) -> None:
        watched.redis.set("SOCK902_Q", "somebody else's")
        node = watched.start_node(902, wait=False)
        until(lambda: "trying again" in node.log, "a second try")

        watched.redis.delete("SOCK902_Q")

        assert watched.wait_for(node, "READY")["error"] == ""

    def test_subscription(self, watched: Cluster, failing: Failing) -> None:
        assert "xreadgroup" in failed(watched, failing.deaf, "subscription")
        assert "deaf:pw" not in failing.deaf.log

    def test_handler_registration(self, watched: Cluster) -> None:
        program = watched.with_one_request_more("socketd", owner="socketd")

        node = watched.start_node(program=program, wait=False)

        assert "handlers" in failed(watched, node, "handler registration")

    def test_handler_registration_of_a_worker(self, watched: Cluster) -> None:
        program = watched.with_one_request_more("workers", owner="login")

        worker = watched.start_worker("login", 3, program=program, wait=False)

        assert "probe.request" in failed(watched, worker, "handler registration")

    def test_a_taken_port(self, watched: Cluster, taken_port: socket.socket) -> None:
        node = watched.start_node(port=port_of(taken_port), wait=False)

        assert watched.wait_for(node, "STARTING")["error"] == ""
        assert node.wait() == 1
        assert "address already in use" in watched.wait_for(node, "ERROR")["error"]
        taken_port.close()
        assert left_behind(watched, node) == []

    def test_a_port_that_is_freed_meanwhile(self, watched: Cluster, taken_port: socket.socket) -> None:
        node = watched.start_node(port=port_of(taken_port), wait=False)
        until(lambda: "trying again" in node.log, "a second try")

        taken_port.close()

        assert watched.wait_for(node, "READY")["error"] == ""
        asyncio.run(somebody_signs_in(node))

    def test_no_redis(self, watched: Cluster, failing: Failing) -> None:
        assert failing.no_redis.wait() == 1
        assert '"cause": "claim: StoreAway: Redis cannot be reached' in failing.no_redis.log
        assert watched.status(failing.no_redis) == {}

    def test_no_database(self, watched: Cluster, failing: Failing) -> None:
        assert "cannot be reached" in failed(watched, failing.no_database, "database")
        assert "secret-word" not in failing.no_database.log

    def test_a_setting_that_cannot_be(self, watched: Cluster) -> None:
        node = watched.start_node(settings={"socketd.keepalive_s": "soon"}, wait=False)

        assert node.wait() == 2
        assert node.log.count("\n") == 1
        assert "LOBBYD_SOCKETD__KEEPALIVE_S: socketd.keepalive_s" in node.log
        assert watched.status(node) == {}


class TestDown:
    def test_a_frozen_node_is_down_and_comes_back(self, watched: Cluster) -> None:
        node = watched.start_node()
        node.freeze()

        status = watched.wait_for(node, "DOWN")

        assert status["error"] == "No heartbeat for 1.5 s."
        queue = f"{node.name}_Q"
        until(lambda: not watched.redis.exists(queue), "the queue of the dead is gone")
        node.thaw()
        assert watched.wait_for(node, "READY")["error"] == ""
        until(lambda: bool(watched.redis.exists(queue)), "the queue is there again")
        asyncio.run(somebody_signs_in(node))

    def test_a_node_that_was_replaced_while_frozen_does_not_go_on(self, watched: Cluster) -> None:
        old = watched.start_node(903)
        old.freeze()
        until(lambda: not watched.redis.exists(keys.server_lease(old.name)), "its lease is over")
        new = watched.start_node(903, port=free_port())

        old.thaw()

        assert old.wait() == 3
        assert f"Another process has become {old.name}" in old.log
        status = watched.status(new)
        assert (status["statusCode"], status["pid"]) == ("READY", str(new.pid))
        asyncio.run(somebody_signs_in(new))

    def test_a_killed_node_starts_again_at_once(self, watched: Cluster) -> None:
        watched.start_node(904).kill()

        asyncio.run(somebody_signs_in(watched.start_node(904)))

    def test_a_dead_node_is_down_and_a_stopped_one_is_not(self, watched: Cluster) -> None:
        stopped, dead = watched.start_node(), watched.start_node()
        stopped.end()
        dead.kill()

        watched.wait_for(dead, "DOWN")

        assert watched.status(stopped)["statusCode"] == "STOPPED"


class TestOneLiveNode:
    def test_a_second_one_is_refused_and_disturbs_nobody(self, watched: Cluster) -> None:
        first = watched.start_node(905)
        before = watched.status(first)

        second = watched.start_node(905, port=free_port(), wait=False)

        assert second.wait() == 3
        assert f"{first.name} is alive already: process {first.pid}" in second.log
        status = watched.status(first)
        assert (status["statusCode"], status["bootId"]) == ("READY", before["bootId"])
        assert watched.redis.exists(f"{first.name}_Q")
        asyncio.run(somebody_signs_in(first))

    def test_an_ended_one_makes_way(self, watched: Cluster) -> None:
        watched.start_node(906).end()

        assert watched.start_node(906).exit_code is None


class TestEnd:
    async def test_clients_are_told_and_the_queue_goes(self, watched: Cluster) -> None:
        node = watched.start_node()
        guest = await Guest.at(node.endpoint)

        node.asked_to_end()

        goodbye = await guest.hear(Goodbye)
        assert (goodbye.code, goodbye.reconnect) == ("SERVER_DRAINING", True)
        assert isinstance(goodbye.retry_after_ms, int)
        assert (await guest.gone()).code == "SERVER_DRAINING"
        assert node.wait() == 0
        status = watched.wait_for(node, "STOPPED")
        assert (status["connections"], status["error"]) == ("0", "")
        assert left_behind(watched, node) == []

    async def test_requests_in_flight_are_answered(self, cluster: Cluster) -> None:
        cluster.start()
        worker, node = cluster["login-1"], cluster["SOCK001"]
        guest = await Guest.at(node.endpoint)
        await guest.register("in-flight")
        worker.freeze()
        answer = guest.connection.send(Login(username="in-flight", password=PASSWORD))
        until(lambda: cluster.redis.xlen("login_queue:normal") == 1, "the request is in its queue")
        node.asked_to_end()
        cluster.wait_for(node, "DRAINING")
        await guest.is_served()
        with pytest.raises(ConnectionRefusedError):
            await Guest.at(node.endpoint)

        worker.thaw()

        async with asyncio.timeout(20):
            await answer
        assert (await guest.gone()).code == "SERVER_DRAINING"
        assert node.wait() == 0

    async def test_a_client_that_does_not_leave_is_cut(self, watched: Cluster) -> None:
        node = watched.start_node()
        reader, writer = await asyncio.open_connection(*node.endpoint)

        node.asked_to_end()

        async with asyncio.timeout(20):
            assert b"SERVER_DRAINING" in await reader.read()
        assert node.wait() == 0
        writer.close()

    async def test_a_second_signal_ends_at_once(self, cluster: Cluster) -> None:
        node = cluster.start_node(wait=False)
        until(lambda: '"event": "ready"' in node.log, "ready")
        guest = await Guest.at(node.endpoint)
        guest.connection.send(Login(username="nobody-answers", password=PASSWORD))
        await guest.is_served()
        node.asked_to_end()
        until(lambda: "a second signal ends at once" in node.log, "the first signal")
        assert node.exit_code is None

        node.asked_to_end()

        assert node.wait() == 128 + signal.SIGTERM
        with pytest.raises(ConnectionLost):
            raise await guest.gone()

    def test_a_worker_ends_well(self, cluster: Cluster) -> None:
        worker = cluster.start(nodes=0)["login-1"]

        assert worker.end() == 0

        cluster.wait_for(worker, "STOPPED")
        consumers = [
            consumer["name"]
            for lane in ("high", "normal", "low")
            for consumer in cluster.redis.xinfo_consumers(f"login_queue:{lane}", "lobbyd")
        ]
        assert consumers == []
        assert not cluster.redis.exists(keys.server_lease("login-1"))

    async def test_a_worker_that_ends_under_load_leaves_nothing_undone(self, cluster: Cluster) -> None:
        cluster.settings["limits.login_attempts_per_minute"] = 1_000_000
        cluster.start(logins=2)
        guests = [await Guest.at(cluster["SOCK001"].endpoint) for _ in range(2)]

        async def keep_asking(guest: Guest) -> None:
            while cluster["login-2"].exit_code is None:
                await guest.refused(Login(username="nobody", password=PASSWORD), "INVALID_CREDENTIALS")

        asking = asyncio.gather(*(keep_asking(guest) for guest in guests))
        await asyncio.sleep(0.5)
        cluster["login-2"].asked_to_end()

        await asking

        assert cluster["login-2"].wait() == 0
        for lane in ("high", "normal", "low"):
            stats = cluster.redis.hgetall(keys.queue_stats(f"login_queue:{lane}"))
            assert stats.get("claimed", "0") == "0", "an entry was left for another worker to claim"
            assert cluster.redis.xlen(f"login_queue:{lane}") == 0
        for guest in guests:
            guest.leave()

    def test_the_status_manager_takes_up_what_it_missed(self, cluster: Cluster) -> None:
        cluster.start_worker("status").kill()
        node = cluster.start_node(wait=False)
        until(lambda: '"event": "ready"' in node.log, "ready without a status manager")
        node.end()

        cluster.start_worker("status")

        assert cluster.wait_for(node, "STOPPED")["port"] == str(node.port)
