"""How the parts come up and beat, or fail to: what every process promises of its status, on real ones."""

import asyncio
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from storage import keys
from tests.servers import HOST, free_port
from tests.system.cluster import Cluster, Process, until
from tests.system.guest import Guest
from tests.system.traces import left_behind, somebody_signs_in

pytestmark = pytest.mark.servers

ALWAYS_FIELDS = {
    "serverType",
    "statusCode",
    "startTime",
    "queueId",
    "cpuUsage",
    "memoryUsage",
    "networkStatus",
}
OPERATORS_FIELDS = {
    "host", "port", "pid", "connections", "version", "bootId", "lastHeartbeat", "error",
    "requests", "errors", "latencyP99Ms", "metricsPort",
}  # fmt: skip


def failed(cluster: Cluster, process: Process, step: str) -> str:
    """See that a process ended in ERROR at a step and left nothing behind. Answers its status's cause."""
    assert process.wait() == 1
    status = cluster.wait_for(process, "ERROR")
    assert status["error"].startswith(f"{step}: "), status
    assert f'"cause": "{step}: ' in process.log
    assert left_behind(cluster, process) == []
    return status["error"]


@pytest.fixture(scope="module")
def node(watched: Cluster) -> Process:
    """A node to look at."""
    return watched.start_node()


class TestReady:
    def test_the_status_hash_has_its_fields(self, watched: Cluster, node: Process) -> None:
        status = watched.status(node)

        assert status.keys() == ALWAYS_FIELDS | OPERATORS_FIELDS
        assert status["serverType"] == "SOCKET"
        assert status["statusCode"] == "READY"
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", status["startTime"])
        assert status["queueId"] == f"{node.name}_Q"
        assert float(status["cpuUsage"]) >= 0
        assert 0 < float(status["memoryUsage"]) < 100
        until(lambda: watched.status(node)["networkStatus"] == "GOOD", "a moment without lag")
        assert (status["host"], status["port"]) == (HOST, str(node.port))
        assert (status["connections"], status["error"], status["pid"]) == ("0", "", str(node.pid))

    def test_starting_comes_before_ready(self, watched: Cluster, node: Process) -> None:
        def reported() -> list[str]:
            return re.findall(rf'"server": "{node.name}", "status": "(\w+)"', watched["status-1"].log)

        until(lambda: len(reported()) >= 2, "both are logged")  # which comes after the status is written

        assert reported() == ["STARTING", "READY"]

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

        assert watched.wait_for(node, "READY")

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
        assert watched.wait_for(second, "READY")
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
