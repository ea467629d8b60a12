"""A node that comes back under its name, and one that has been replaced: whose replies are whose."""

from collections.abc import Iterator

import pytest

from runtime.daemon import EXIT_REFUSED
from tests.servers import free_port
from tests.system.cluster import Cluster, eventually
from tests.system.wire import Wire, envelope

pytestmark = pytest.mark.servers

LOGIN = envelope("auth.login", 2, {"username": "nobody", "password": "a wrong password"})
QUICKER = envelope("auth.resume", 2, {"accessToken": "no token"})


@pytest.fixture
def thawed(cluster: Cluster) -> Iterator[Cluster]:
    yield cluster.start()
    for process in cluster.processes.values():
        if process.exit_code is None:
            process.thaw()


async def test_a_reply_to_an_earlier_life_answers_nobody(cluster: Cluster) -> None:
    cluster.settings["socketd.request_timeout_s"] = 60.0  # a busy machine starts no worker in 10 s
    node = cluster.start()["SOCK001"]
    cluster["login-1"].end()
    before = await Wire.greeted(node.endpoint)
    before.send(QUICKER)
    await eventually(lambda: cluster.redis.xlen("login_queue:high") == 1, "the request is in its queue")
    node.kill()
    again = await Wire.greeted(cluster.start_node(1).endpoint)
    again.send(LOGIN)

    cluster.start_worker("login")

    assert (await again.reply(2))["error"]["code"] == "INVALID_CREDENTIALS"
    again.leave()


def test_who_was_replaced_leaves_its_successor_the_queue(thawed: Cluster) -> None:
    node = thawed["SOCK001"]
    node.freeze()
    thawed.redis.delete(f"SERVER_ID:{node.name}:lease")  # as when it runs out
    successor = thawed.start_node(1, port=free_port())
    successor.freeze()  # or it would make its queue again

    node.thaw()

    assert node.wait() == EXIT_REFUSED
    assert thawed.redis.exists(f"{node.name}_Q")
