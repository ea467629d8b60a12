"""A peer on each kind of Redis."""

from collections.abc import AsyncIterator

import pytest

from tests.storage.queues.making import Peer, open_peer


@pytest.fixture
async def peer(redis_url: str) -> AsyncIterator[Peer]:
    async with open_peer(redis_url) as opened:
        yield opened
