"""Every kind of store serves a player from registering to logging out, and two nodes share it."""

from pathlib import Path

import pytest

from protocol.messages.auth import Logout, Refresh, Resume, TokenPair
from protocol.messages.waiting import Cancel
from tests.system.cluster import Cluster
from tests.system.conftest import run_cluster
from tests.system.guest import Guest

pytestmark = pytest.mark.servers


async def test_a_stay_from_beginning_to_end(tmp_path: Path, redis_url: str, database_url: str) -> None:
    for cluster in run_cluster(Cluster(tmp_path / "cluster", redis_url, database_url)):
        cluster.start(nodes=2, logins=2)
        here, there = [await Guest.at(endpoint) for endpoint in cluster.endpoints]

        tokens = await here.sign_up("hong")
        resumed = await there.resume(tokens.access_token)
        fresh = await there.ask(Refresh(refresh_token=tokens.refresh_token))
        assert isinstance(fresh, TokenPair)
        await there.ask(Logout(refresh_token=fresh.refresh_token))
        again = await there.log_in("hong")
        await there.ask(Cancel(tid=again.tid, client_id=again.client_id))

        assert resumed.user_id == "hong"
        assert (await here.gone()).code == "TAKEN_OVER"
        await there.refused(Resume(access_token=fresh.access_token), "INVALID_TOKEN")
        there.leave()
        for process in cluster.processes.values():
            process.asked_to_end()
        for process in cluster.processes.values():
            assert process.wait() == 0, process.log
