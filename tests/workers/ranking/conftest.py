"""A hall on each Redis and each database, and what keeps scores in it."""

from collections.abc import AsyncIterator

import pytest

from storage.queues import Outbox
from storage.whereabouts import Whereabouts
from tests.storage.hall import Hall, opened
from workers.ranking.keeping import Keeping
from workers.telling import Telling


@pytest.fixture(
    params=[
        pytest.param(("valkey_url", "sqlite_url"), id="valkey-sqlite", marks=pytest.mark.servers),
        pytest.param(("redis7_url", "mariadb_url"), id="redis7-mariadb", marks=pytest.mark.servers),
    ]
)
async def hall(request: pytest.FixtureRequest) -> AsyncIterator[Hall]:
    redis_url, database_url = (request.getfixturevalue(name) for name in request.param)
    async with opened(redis_url, database_url) as hall:
        yield hall


@pytest.fixture
def keeping(hall: Hall) -> Keeping:
    return keeping_in(hall)


def keeping_in(hall: Hall) -> Keeping:
    telling = Telling(Whereabouts(hall.wire), Outbox(hall.wire))
    return Keeping(hall.scores, hall.removals, hall.boards, hall.friends, hall.calendar, telling)
