"""How processes end, well or not, how that is noticed, and that one at a time bears a name."""

import asyncio
import signal

import pytest

from client import ConnectionLost
from protocol.messages.auth import Login
from protocol.messages.connection import Goodbye
from storage import keys
from tests.servers import free_port
from tests.system.cluster import Cluster, eventually, until
from tests.system.guest import HEARING_S, PASSWORD, Guest
from tests.system.traces import left_behind, somebody_signs_in

pytestmark = pytest.mark.servers


class TestDown:
    def test_a_frozen_node_is_down_and_comes_back(self, watched: Cluster) -> None:
        node = watched.start_node()
        node.freeze()

        status = watched.wait_for(node, "DOWN")

        assert status["error"] == "No heartbeat for 2.5 s."
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
        # Replies go out before acknowledgements.
        await eventually(lambda: not cluster.redis.xlen("login_queue:normal"), "nothing is in the queue")
        worker.freeze()
        answer = guest.connection.send(Login(username="in-flight", password=PASSWORD))
        until(lambda: cluster.redis.xlen("login_queue:normal") == 1, "the request is in its queue")
        node.asked_to_end()
        cluster.wait_for(node, "DRAINING")
        await guest.is_served()
        with pytest.raises(ConnectionRefusedError):
            await Guest.at(node.endpoint)

        worker.thaw()

        async with asyncio.timeout(HEARING_S):
            await answer
        assert (await guest.gone()).code == "SERVER_DRAINING"
        assert node.wait() == 0

    async def test_a_client_that_does_not_leave_is_cut(self, watched: Cluster) -> None:
        node = watched.start_node()
        reader, writer = await asyncio.open_connection(*node.endpoint)

        node.asked_to_end()

        async with asyncio.timeout(HEARING_S):
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
        lanes = [f"login_queue:{lane}" for lane in ("high", "normal", "low")]
        until(lambda: not any(map(cluster.redis.xlen, lanes)), "every request acknowledged")
        for lane in lanes:
            stats = cluster.redis.hgetall(keys.queue_stats(lane))
            assert stats.get("claimed", "0") == "0", "an entry was left for another worker to claim"
        for guest in guests:
            guest.leave()

    def test_the_status_manager_takes_up_what_it_missed(self, cluster: Cluster) -> None:
        cluster.start_worker("status").kill()
        node = cluster.start_node(wait=False)
        until(lambda: '"event": "ready"' in node.log, "ready without a status manager")
        node.end()

        cluster.start_worker("status")

        assert cluster.wait_for(node, "STOPPED")["port"] == str(node.port)
