"""The same over TLS."""

import ssl
from pathlib import Path

import pytest

from client import Connection, Player
from protocol.messages.connection import Ping, Pong
from tests.certificates import Authority
from tests.client.peer import Peer


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def server_side(authority: Authority) -> ssl.SSLContext:
    """A server's context, with its certificate for `localhost`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("node", hosts=("localhost",)))
    return context


async def test_request_over_tls(server_side: ssl.SSLContext, authority: Authority) -> None:
    trusting = ssl.create_default_context(cafile=authority.certificate)
    async with Peer(ssl=server_side) as peer:
        connection = await Connection.open("localhost", peer.endpoint[1], ssl=trusting)
        assert isinstance(await connection.request(Ping()), Pong)
        connection.close()
        await connection.closed


async def test_certificate_that_is_not_trusted_ends_the_player(server_side: ssl.SSLContext) -> None:
    async with Peer(ssl=server_side) as peer:
        player = Player([("localhost", peer.endpoint[1])], ssl=ssl.create_default_context())
        with pytest.raises(ssl.SSLCertVerificationError):
            await player.request(Ping())
