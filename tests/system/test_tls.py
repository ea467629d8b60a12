"""Nodes whose clients come by TLS: who gets in, a new certificate meanwhile, handshakes that never end."""

import asyncio
import signal
import socket
import ssl
import uuid
import warnings
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest
from cryptography import x509

from client import Player
from protocol.errors import GoodbyeCode
from tests.certificates import HOST, Authority, Files
from tests.secure_servers import SecureMaria, SecureRedis
from tests.system.cluster import Cluster, Process, eventually
from tests.system.conftest import run_cluster, run_house
from tests.system.guest import HEARING_S, PASSWORD, Guest
from tests.system.wire import HELLO, envelope

pytestmark = pytest.mark.servers

HELLO_TIMEOUT_S = 2.5
MOST_PER_ADDRESS = 3
TIMED_OUT = f'"code": "{GoodbyeCode.HANDSHAKE_TIMEOUT.code}"'


@pytest.fixture(scope="module")
def authority(servers_folder: Path) -> Authority:
    return Authority(servers_folder / uuid.uuid4().hex)


@pytest.fixture(scope="module")
def files(authority: Authority) -> Files:
    return authority.issue("node")


@pytest.fixture(scope="module")
def secure(servers_folder: Path, files: Files) -> Iterator[Cluster]:
    """A house whose node speaks TLS alone."""
    settings = {"socketd.tls_certificate": files.certificate, "socketd.tls_key": files.key}
    for cluster in run_house(servers_folder / uuid.uuid4().hex, {**settings, "log.level": "debug"}):
        yield cluster.start()


@pytest.fixture
async def strict(secure: Cluster) -> AsyncIterator[Process]:
    """A node with little patience, and few connections for an address."""
    settings = {
        "socketd.hello_timeout_s": HELLO_TIMEOUT_S,
        "limits.connections_per_ip": MOST_PER_ADDRESS,
    }
    node = await asyncio.to_thread(secure.start_node, settings=settings)
    yield node
    node.kill()


@pytest.fixture
def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=authority.certificate)


@pytest.fixture
def over_tls(
    tmp_path: Path, servers_folder: Path, mariadb_seed: Path, authority: Authority, files: Files
) -> Iterator[Cluster]:
    """Everything by TLS: clients, Redis and MariaDB."""
    redis = SecureRedis(servers_folder, authority, files)
    mariadb = SecureMaria(servers_folder, mariadb_seed, authority, files)
    settings = {"socketd.tls_certificate": files.certificate, "socketd.tls_key": files.key}
    try:
        redis.start()
        mariadb.start()
        database_url = mariadb.create_secure_database("lobbyd")
        for cluster in run_cluster(Cluster(tmp_path / "cluster", redis.url, database_url, settings)):
            yield cluster.start()
    finally:
        redis.stop()
        mariadb.stop()


def presented(guest: Guest) -> int:
    """The serial number of the certificate that the node has shown."""
    shown = guest.connection._transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return x509.load_der_x509_certificate(shown).serial_number


def serial(files: Files) -> int:
    return x509.load_pem_x509_certificate(files.certificate.read_bytes()).serial_number


def _says(node: Process, text: str) -> bool:
    return text in node.log


async def reads_to_the_end(endpoint: tuple[str, int], first: bytes = b"") -> bytes:
    """Connect without TLS, send something and read until the node closes."""
    reader, writer = await asyncio.open_connection(*endpoint)
    writer.write(first)
    try:
        async with asyncio.timeout(HEARING_S):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def test_a_player_signs_in_over_tls(secure: Cluster, trusting: ssl.SSLContext) -> None:
    async with Player(secure.endpoints[:1], ssl=trusting) as player:
        await player.register("private-person", PASSWORD, "private@example.com", "private")
        assert (await player.sign_in("private-person", PASSWORD)).user_id == "private-person"


async def test_a_player_signs_in_where_the_stores_are_reached_by_tls_too(
    over_tls: Cluster, trusting: ssl.SSLContext
) -> None:
    async with Player(over_tls.endpoints, ssl=trusting) as player:
        await player.register("private-person", PASSWORD, "private@example.com", "private")
        assert (await player.sign_in("private-person", PASSWORD)).user_id == "private-person"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_the_versions_that_are_taken(
    secure: Cluster, trusting: ssl.SSLContext, version: ssl.TLSVersion
) -> None:
    trusting.minimum_version = trusting.maximum_version = version
    guest = await Guest.at(secure.endpoints[0], ssl=trusting)
    await guest.is_served()
    guest.leave()


async def test_an_older_version_is_refused(secure: Cluster, trusting: ssl.SSLContext) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        trusting.minimum_version = trusting.maximum_version = ssl.TLSVersion.TLSv1_1
    trusting.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(OSError):  # noqa: PT011 - an alert, or a reset in its place
        await Guest.at(secure.endpoints[0], ssl=trusting)
    await eventually(lambda: "unsupported protocol" in secure["SOCK001"].log, "the refusal is logged")


async def test_a_client_without_tls_gets_no_answer(secure: Cluster) -> None:
    assert await reads_to_the_end(secure.endpoints[0], b"\0\0\0\x20" + bytes(32)) == b""


async def test_a_new_certificate_harms_no_connection(
    secure: Cluster, authority: Authority, files: Files, trusting: ssl.SSLContext
) -> None:
    node = secure["SOCK001"]
    before = await Guest.at(node.endpoint, ssl=trusting)
    assert presented(before) == serial(files)

    renewed = authority.issue("node")
    psutil.Process(node.pid).send_signal(signal.SIGHUP)
    await eventually(lambda: "certificate reloaded" in node.log, "the reload is logged")

    after = await Guest.at(node.endpoint, ssl=trusting)
    assert presented(after) == serial(renewed) != presented(before)
    for guest in (before, after):
        await guest.is_served()
        guest.leave()


async def test_a_bad_certificate_is_refused_and_the_old_one_stays(
    secure: Cluster, authority: Authority, files: Files, trusting: ssl.SSLContext
) -> None:
    node, good = secure["SOCK001"], [path.read_bytes() for path in files]
    guest = await Guest.at(node.endpoint, ssl=trusting)
    shown = presented(guest)
    try:
        for refusal, spoil in (
            ("is not the key of", lambda: files.key.write_bytes(authority.issue("other").key.read_bytes())),
            ("not a certificate in PEM", lambda: files.certificate.write_text("-----BEGIN")),
            ("cannot be read: No such file", files.certificate.unlink),
        ):
            spoil()
            psutil.Process(node.pid).send_signal(signal.SIGHUP)
            await eventually(partial(_says, node, refusal), f"refused: {refusal}")
            newcomer = await Guest.at(node.endpoint, ssl=trusting)
            assert presented(newcomer) == shown
            newcomer.leave()
        assert "certificate refused, the one before stays" in node.log
        await guest.is_served()
    finally:
        for path, content in zip(files, good, strict=True):
            path.write_bytes(content)
    guest.leave()


async def test_a_node_without_tls_outlives_a_reload(secure: Cluster) -> None:
    node = await asyncio.to_thread(
        secure.start_node, settings={"socketd.tls_certificate": None, "socketd.tls_key": None}
    )
    guest = await Guest.at(node.endpoint)
    psutil.Process(node.pid).send_signal(signal.SIGHUP)
    await eventually(lambda: "nothing to reload" in node.log, "the reload is logged")
    await guest.is_served()
    guest.leave()
    node.kill()


async def test_a_handshake_that_never_ends_leaves_nothing(strict: Process, trusting: ssl.SSLContext) -> None:
    guest = await Guest.at(strict.endpoint, ssl=trusting)
    files_before = psutil.Process(strict.pid).num_fds()
    slow = [
        asyncio.create_task(reads_to_the_end(strict.endpoint, first))
        for first in (b"", b"\x16\x03\x01\x02\x00\x01")
    ]
    await eventually(lambda: psutil.Process(strict.pid).num_fds() == files_before + 2, "both are in")

    # As many as there may be from one address: handshakes count.
    assert await reads_to_the_end(strict.endpoint) == b""
    assert not any(task.done() for task in slow)

    assert await asyncio.gather(*slow) == [b"", b""]
    await eventually(lambda: strict.log.count(TIMED_OUT) == 2, "both are counted")
    await eventually(lambda: psutil.Process(strict.pid).num_fds() == files_before, "nothing is left")
    others = [await Guest.at(strict.endpoint, ssl=trusting) for _ in range(MOST_PER_ADDRESS - 1)]
    for each in (guest, *others):
        await each.is_served()
        each.leave()


async def test_a_handshake_counts_for_its_ipv6_network(secure: Cluster, authority: Authority) -> None:
    files = authority.issue("six", hosts=("::1",))
    settings = {
        "socketd.host": "::1",
        "socketd.tls_certificate": files.certificate,
        "socketd.tls_key": files.key,
        "limits.connections_per_ip": 2,
    }
    node = await asyncio.to_thread(secure.start_node, settings=settings)
    endpoint = "::1", node.endpoint[1]
    trusting = ssl.create_default_context(cafile=authority.certificate)
    guest = await Guest.at(endpoint, ssl=trusting)
    slow = asyncio.create_task(reads_to_the_end(endpoint))
    await asyncio.sleep(0.2)
    assert await reads_to_the_end(endpoint) == b""
    assert not slow.done()
    await guest.is_served()
    node.kill()
    await slow
    guest.leave()


async def test_handshakes_that_fail_give_their_place_back(strict: Process, trusting: ssl.SSLContext) -> None:
    for _ in range(3 * MOST_PER_ADDRESS):
        assert await reads_to_the_end(strict.endpoint, b"GET / HTTP/1.0\r\n\r\n") == b""
        with pytest.raises(ssl.SSLCertVerificationError):
            await Guest.at(strict.endpoint, ssl=ssl.create_default_context())

    async def served() -> None:
        guest = await Guest.at(strict.endpoint, ssl=trusting)
        await guest.is_served()
        guest.leave()

    async with asyncio.timeout(HEARING_S):
        while True:
            try:
                return await served()
            except OSError:  # the node may not have heard of the last refusal yet
                await asyncio.sleep(0.05)


async def test_a_handshake_without_a_hello_is_closed_in_words(
    strict: Process, trusting: ssl.SSLContext
) -> None:
    reader, writer = await asyncio.open_connection(*strict.endpoint, ssl=trusting)
    async with asyncio.timeout(HEARING_S):
        assert b"HANDSHAKE_TIMEOUT" in await reader.read()
    writer.close()


async def test_a_client_that_never_reads_is_cut(secure: Cluster, authority: Authority) -> None:
    settings = {"socketd.max_write_buffer_bytes": 4096, "limits.requests_per_second": 1_000_000}
    node = await asyncio.to_thread(secure.start_node, settings=settings)
    memory = secure.memory_bytes(node)
    trusting = ssl.create_default_context(cafile=authority.certificate)
    pings = b"".join(envelope("ping", number, {}) for number in range(1, 1000))

    def send_until_cut() -> None:
        with (
            socket.create_connection(node.endpoint) as plain,
            trusting.wrap_socket(plain, server_hostname=HOST) as talking,
        ):
            talking.settimeout(HEARING_S)
            talking.sendall(envelope("hello", 1, HELLO))
            while True:
                talking.sendall(pings)

    with pytest.raises(OSError):  # noqa: PT011 - a reset, or the end of TLS
        await asyncio.to_thread(send_until_cut)

    cut = f'"code": "{GoodbyeCode.SLOW_CONSUMER.code}"'
    await eventually(lambda: cut in node.log, "it is logged")
    assert secure.memory_bytes(node) < memory + 16 * 1024 * 1024
    node.kill()


async def test_a_draining_node_waits_for_no_handshake(
    secure: Cluster, strict: Process, trusting: ssl.SSLContext
) -> None:
    node = await asyncio.to_thread(secure.start_node, settings={"socketd.hello_timeout_s": 60})
    guest = await Guest.at(node.endpoint, ssl=trusting)
    slow = asyncio.create_task(reads_to_the_end(node.endpoint))
    await asyncio.sleep(0.2)

    node.asked_to_end()

    assert "SERVER_DRAINING" in str(await guest.gone())
    assert await slow == b""
    assert await asyncio.to_thread(node.wait) == 0


def test_a_certificate_that_cannot_be_used_is_told_before_anything_starts(
    secure: Cluster, authority: Authority
) -> None:
    good = authority.issue("good")
    text = authority.certificate.parent / "text.pem"
    text.write_text("no certificate")
    unusable = (
        ("socketd.tls_key: missing", good.certificate, None),
        ("socketd.tls_certificate: missing", None, good.key),
        (": not a certificate in PEM", text, good.key),
        (": not a certificate and its key in PEM", good.certificate, text),
        ("is not the key of", good.certificate, authority.issue("another").key),
        (": expired at 20", *authority.issue("old", days=(-2, -1))),
        (": valid only from 20", *authority.issue("young", days=(1, 2))),
        (": is behind a passphrase", *authority.issue("locked", passphrase=b"hunter2")),
        ("cannot be read: No such file", good.certificate, good.key.with_name("none")),
    )
    nodes = [
        secure.start_node(
            settings={"socketd.tls_certificate": certificate, "socketd.tls_key": key}, wait=False
        )
        for _, certificate, key in unusable
    ]
    for node, (wanted, *_) in zip(nodes, unusable, strict=True):
        assert node.wait() == 2, node.log
        assert wanted in node.log
        assert "Traceback" not in node.log
        assert len(node.log.splitlines()) == 1
