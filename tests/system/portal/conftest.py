"""Clusters with portal workers, and players in them.

- `portal`: a node, a login worker and two portal workers that a module's tests share.
- `office`: where tasks of kinds that only tests know are asked for.
- `player`: somebody who is signed in there; the name is `player.name`.
"""

import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from client.connection import DECLARED
from protocol.messages import REQUESTS
from tests.system.cluster import Cluster
from tests.system.conftest import run_house
from tests.system.portal.asking import Office, Player, Raw, signed_in

QUOTA_BYTES = 3_000_000
PROCESSING_MEMORY_BYTES = 300_000_000


@pytest.fixture(scope="module")
def portal(servers_folder: Path) -> Iterator[Cluster]:
    settings = {
        "portal.quota_bytes": QUOTA_BYTES,
        "portal.processing_memory_bytes": PROCESSING_MEMORY_BYTES,
        "queues.lease_s": 1,
    }
    for cluster in run_house(servers_folder / uuid.uuid4().hex, settings):
        cluster.start()
        for number in (1, 2):
            cluster.start_worker("portal", number)
        yield cluster


@pytest.fixture
async def player(portal: Cluster) -> AsyncIterator[Player]:
    guest = await signed_in(portal)
    yield guest
    guest.leave()


@pytest.fixture
async def office(portal: Cluster) -> AsyncIterator[Office]:
    office = Office(portal)
    yield office
    await office.redis.aclose()


@pytest.fixture(autouse=True)
def raw_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a client send what no Struct could hold."""
    monkeypatch.setitem(cast("dict[Any, Any]", DECLARED), Raw, REQUESTS["portal.submit"])
