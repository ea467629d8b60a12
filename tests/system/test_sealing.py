"""What the stores and the logs know of passwords, tokens, emails and addresses: nothing that can be read."""

import asyncio
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import msgspec
import pytest
from redis.asyncio import Redis

from client import RequestFailed
from protocol.connection import reply_frame
from protocol.envelope import Delivery, Envelope
from protocol.messages.auth import Login, Logout, Refresh, TokenPair
from protocol.messages.connection import Ping, Pong
from runtime.secrets import Secrets
from storage import keys
from storage.queues import QueueServer
from tests.servers import RedisServer
from tests.system.cluster import SECRET, Cluster, eventually
from tests.system.conftest import run_cluster
from tests.system.guest import HEARING_S, PASSWORD, Guest, Pass, registration

pytestmark = pytest.mark.servers

QUEUE = "login_queue:normal"
ADDRESS = "127.0.0.77"
FINGERPRINT = "a very particular device"
WRONG = "an old password"


@pytest.fixture
def valkey(servers_folder: Path) -> Iterator[RedisServer]:
    server = RedisServer("valkey", servers_folder / uuid.uuid4().hex)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def deadly(tmp_path: Path, valkey: RedisServer) -> Iterator[Cluster]:
    """A cluster with a node and no login worker yet, which gives up on what has killed one."""
    database_url = f"sqlite+aiosqlite:///{valkey.directory / 'lobbyd.sqlite3'}"
    settings = {"queues.max_deliveries": 1, "queues.lease_s": 0.5, "log.level": "debug"}
    for cluster in run_cluster(Cluster(tmp_path / "cluster", valkey.url, database_url, settings)):
        yield cluster.start(logins=0)


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def worker_that_dies(cluster: Cluster) -> str:
    """A program: a login worker that dies of the first request."""
    program = cluster.folder / "workers_that_die.py"
    program.write_text(
        "import os, runpy\n"
        "from workers import requests\n"
        "async def die(*_: object) -> None:\n"
        "    os._exit(9)\n"
        "requests.Requests.work = die\n"
        "runpy.run_module('workers', run_name='__main__', alter_sys=True)\n"
    )
    return str(program)


async def test_no_store_and_no_log_can_tell_a_secret(deadly: Cluster, valkey: RedisServer) -> None:
    worker = await asyncio.to_thread(deadly.start_worker, "login", 1, program=worker_that_dies(deadly))
    guest = await Guest.at(deadly.endpoints[0], local_address=ADDRESS)
    login = Login(username="sealed-one", password=PASSWORD, client_fingerprint=FINGERPRINT)
    unanswered = asyncio.create_task(guest.ask(login))
    await eventually(lambda: worker.exit_code is not None, "the worker dies of it")
    await asyncio.to_thread(deadly.start_worker, "login", 2)
    await eventually(lambda: deadly.redis.xlen(keys.dead_letters(QUEUE)) == 1, "it is given up on")

    await guest.register("sealed-one")
    await guest.refused(Login(username="sealed-one", password=WRONG), "INVALID_CREDENTIALS")
    ticket = Pass.of(await guest.ask(login))
    await guest.wait(ticket)
    first = await guest.finalize(ticket)
    await guest.resume(first.access_token)
    second = cast(TokenPair, await guest.ask(Refresh(refresh_token=first.refresh_token)))
    await guest.ask(Login(refresh_token=second.refresh_token))
    await guest.ask(Logout(refresh_token=second.refresh_token))
    unanswered.cancel()
    guest.leave()

    stored = everything_in(valkey.directory)
    logged = "".join(log for _, log in deadly.logs()).encode()
    assert b"sealed-one" in stored
    assert b"auth.login" in stored
    tokens = (first.access_token, first.refresh_token, second.access_token, second.refresh_token)
    for secret in (PASSWORD, WRONG, "sealed-one@example.com", ADDRESS, FINGERPRINT, SECRET, *tokens):
        assert secret.encode() not in stored
        assert secret.encode() not in logged
    assert b"$2b$" in stored
    assert b"$2b$" not in logged  # what bcrypt makes of a password


async def pending_request(cluster: Cluster) -> Envelope:
    """The request that waits in the queue, as whoever reads Redis finds it."""
    redis = Redis.from_url(str(cluster.settings["redis.url"]))
    async with asyncio.timeout(HEARING_S):
        while not (found := await redis.xrange(QUEUE)):
            await asyncio.sleep(0.02)
    await redis.aclose()
    (message,) = cast("dict[bytes, bytes]", found[0][1]).values()
    return msgspec.msgpack.decode(message, type=Envelope)


async def test_a_reply_opens_for_its_own_connection_alone(house: Cluster) -> None:
    """Who can write to Redis hands somebody else's tokens over, or invents some."""
    guest = await Guest.at(house["SOCK001"].endpoint)
    redis = Redis.from_url(str(house.settings["redis.url"]))
    house["login-1"].freeze()
    try:
        for master, elsewhere, wanted in (
            (SECRET, False, None),
            (SECRET, True, "INTERNAL"),
            (SECRET[::-1], False, "INTERNAL"),
        ):
            asking = asyncio.create_task(guest.ask(Login(username="who-ever", password=PASSWORD)))
            asked = await pending_request(house)
            await redis.xtrim(QUEUE, maxlen=0, approximate=False)
            told = Delivery(asked.origin.connection_id + elsewhere, b"", asked.number)
            frame = reply_frame(asked.id, 200, Pong(server_time=1))
            sealed = Secrets(master.encode()).seals().seal(frame, told.seal_context(asked.origin.server_id))
            forged = Delivery(asked.origin.connection_id, sealed, asked.number, sealed=True)
            queue_id = keys.node_queue(asked.origin.server_id)

            await QueueServer(redis).append(queue_id, msgspec.msgpack.encode([forged]))

            if wanted is None:
                with pytest.raises(Exception, match="tid"):  # opened, and no answer to a login
                    await asking
            else:
                with pytest.raises(RequestFailed, match=wanted):
                    await asking
    finally:
        house["login-1"].thaw()
        await redis.aclose()
    await guest.ask(Ping())
    guest.leave()


async def test_a_confidential_request_that_is_not_sealed_is_refused(house: Cluster) -> None:
    """Nobody gets a password into the queues by leaving the seal out."""
    guest = await Guest.at(house["SOCK001"].endpoint)
    redis = Redis.from_url(str(house.settings["redis.url"]))
    await eventually(lambda: not house.redis.xlen(QUEUE), "nothing is in the queue")
    house["login-1"].freeze()
    asking = asyncio.create_task(guest.ask(Login(username="who-ever", password=PASSWORD)))
    asked = await pending_request(house)
    await redis.xtrim(QUEUE, maxlen=0, approximate=False)
    clear = msgspec.structs.replace(asked, data=msgspec.Raw(msgspec.msgpack.encode({"refreshToken": "x"})))
    await QueueServer(redis).append(QUEUE, msgspec.msgpack.encode(clear))
    house["login-1"].thaw()

    with pytest.raises(RequestFailed, match="INTERNAL"):
        await asking

    await eventually(lambda: "not sealed" in house["login-1"].log, "it is logged")
    await redis.aclose()
    guest.leave()


async def test_a_node_with_another_master_secret_is_told_so(house: Cluster) -> None:
    node = house.start_node(settings={"auth.secret": SECRET[::-1]})
    guest = await Guest.at(node.endpoint)
    await guest.refused(registration("nobody-at-all"), "INTERNAL")
    words = "sealed with another master secret; every process must have the same one"
    await eventually(lambda: words in house["login-1"].log, "it is logged")
    guest.leave()
    node.kill()


def test_a_worker_with_another_master_secret_than_the_database_does_not_start(house: Cluster) -> None:
    worker = house.start_worker("login", 2, settings={"auth.secret": SECRET[::-1]}, wait=False)
    assert worker.wait() == 1
    assert "this database was begun with another master secret" in house.wait_for(worker, "ERROR")["error"]


def test_a_node_without_a_master_secret_does_not_start(cluster: Cluster) -> None:
    node = cluster.start_node(settings={"auth.secret": None}, wait=False)
    assert node.wait() == 2
    assert "auth.secret: there is no master secret" in node.log
