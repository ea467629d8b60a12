"""Two nodes' stand-ins, a place without any, and players that do not pause for long."""

import socket
from collections.abc import AsyncIterator, Iterator

import pytest

from client import Endpoint, link
from tests.client.peer import Peer


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "FIRST_PAUSE_S", 0.01)


@pytest.fixture
async def peers() -> AsyncIterator[list[Peer]]:
    async with Peer("SOCK001") as first, Peer("SOCK002") as second:
        yield [first, second]


@pytest.fixture
def nowhere() -> Iterator[Endpoint]:
    """Where nobody listens, and nobody else can begin to."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()
