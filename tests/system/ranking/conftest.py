"""Clusters with ranking workers, and players in them.

- `arcade`: two nodes and two ranking workers that a module's tests share, on Valkey and SQLite, then on Redis
  and MariaDB.
- `sign_up`: signs new players up there.
"""

import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.servers import MariaServer
from tests.system.cluster import Cluster
from tests.system.conftest import run_house
from tests.system.guest import Guest
from tests.system.ranking.playing import Player, SignUp


@pytest.fixture(scope="module", params=["valkey-sqlite", "redis7-mariadb"])
def arcade(request: pytest.FixtureRequest, servers_folder: Path) -> Iterator[Cluster]:
    """A town with two ranking workers, and games enough for each test that wants boards to itself."""
    ceilings = "{ suika = 10_000_000, " + ", ".join(f"game{number} = 1000" for number in range(10)) + " }"
    folder, settings = (
        servers_folder / uuid.uuid4().hex,
        {
            "ranking.score_ceilings": ceilings,
            "ranking.min_session_s_of": "{ game3 = 3600.0 }",
        },
    )
    if request.param == "valkey-sqlite":
        houses = run_house(folder, settings)
    else:
        mariadb: MariaServer = request.getfixturevalue("shared_mariadb")
        houses = run_house(folder, settings, "redis7", mariadb.create_database(f"arcade_{folder.name}"))
    for cluster in houses:
        cluster.start(nodes=2)
        for number in (1, 2):
            cluster.start_worker("ranking", number)
        yield cluster


@pytest.fixture
async def sign_up(arcade: Cluster) -> AsyncIterator[SignUp]:
    """Signs new players up, by turns at both nodes."""
    made: list[Player] = []

    async def one(name: str, number: int) -> Player:
        guest = await Guest.at(arcade.endpoints[number % 2])
        made.append((name, guest))
        await guest.sign_up(name)
        return name, guest

    async def some(count: int) -> list[Player]:
        prefix = uuid.uuid4().hex[:8]
        return [await one(f"{prefix}-{number}", number) for number in range(count)]

    yield some
    for _, guest in made:
        guest.leave()
