"""Tasks in the database, when Redis has forgotten them."""

import pytest

from storage import keys
from tests.system.cluster import Cluster
from tests.system.portal.asking import SUBMIT_FILE, Player, becomes, ended, rows, submit, view

pytestmark = pytest.mark.servers


async def test_a_task_is_in_the_database_when_redis_has_forgotten_it(portal: Cluster, player: Player) -> None:
    accepted = await submit(player, **SUBMIT_FILE, file_name="a", size=0)
    await ended(player, accepted.task_id)

    async def is_written() -> bool:
        asked = "SELECT status FROM portal_tasks WHERE task_id = :id"
        return await rows(portal, asked, id=accepted.task_id) == [("completed",)]

    await becomes(is_written, "the task is in the database")
    portal.redis.delete(keys.task(accepted.task_id))

    seen = await view(player, accepted.task_id)
    assert (seen.status, seen.result["size"]) == ("completed", 0)
