"""A cluster whose workers announce and listen, and players at its door.

- `stage`: two nodes and a worker of each kind, which a module's tests share; they say what they do.
- `arrive`: makes connections with new accounts; all are gone after the test.
- `region`: one that no other test's players are in.
"""

import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.cluster import Cluster
from tests.system.conftest import run_house
from tests.system.events.acting import LEASE_S
from tests.system.guest import Guest


@pytest.fixture(scope="module")
def stage(servers_folder: Path) -> Iterator[Cluster]:
    """Two nodes and a worker of each kind that announces or listens, all of which say what they do."""
    settings = {"queues.lease_s": LEASE_S, "log.level": "debug", "socketd.request_timeout_s": 60.0}
    for cluster in run_house(servers_folder / uuid.uuid4().hex, settings):
        cluster.start(nodes=2)
        for worker in [cluster.start_worker(kind, wait=False) for kind in ("matching", "ranking", "portal")]:
            cluster.wait_for(worker, "READY")
        yield cluster


@pytest.fixture
def region() -> str:
    """A region that no other test's players are in."""
    return f"region-{uuid.uuid4().hex[:8]}"


@pytest.fixture
async def arrive(stage: Cluster) -> AsyncIterator[Callable[..., Any]]:
    """A connection at one node or the other with a new account; all are gone after the test."""
    guests: list[Guest] = []

    async def arrive(node: int = 0) -> tuple[str, Guest]:
        guest = await Guest.at(stage.endpoints[node])
        guests.append(guest)
        name = f"player-{uuid.uuid4().hex[:12]}"
        await guest.register(name)
        return name, guest

    yield arrive
    for guest in guests:
        guest.leave()
