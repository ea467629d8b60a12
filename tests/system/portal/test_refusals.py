"""Requests that cannot be: each gets its error."""

from typing import Any, cast

import pytest

from client import RequestFailed
from protocol.messages import Message
from protocol.messages.portal import Submit
from tests.system.cluster import Cluster
from tests.system.portal.asking import SUBMIT_FILE, Player, Raw, ended, signed_in, submit

pytestmark = pytest.mark.servers


@pytest.mark.parametrize(
    "data",
    [
        {"taskType": "mining"},
        {},
        {"taskType": "file_upload", "fileName": "a"},
        {"taskType": "file_upload", "fileName": "a", "size": 2, "fileData": b"x"},
        {"taskType": "data_processing", "source": {}, "operation": {}},
        {"taskType": "data_processing", "source": {"rows": [{"a": 1}]}},
        {"taskType": "notification", "message": "hi"},
        {"taskType": "notification", "message": "hi", "recipients": ["a"] * 1001},
    ],
)
async def test_what_cannot_be_is_refused(player: Player, data: dict[str, Any]) -> None:
    with pytest.raises(RequestFailed) as refused:
        await player.ask(cast(Message, Raw(data)))
    assert refused.value.code == "INVALID_REQUEST"


async def test_what_cannot_be_for_another_user_takes_a_role(portal: Cluster, player: Player) -> None:
    data: dict[str, Any] = {**SUBMIT_FILE, "file_name": "a", "size": 0}
    await player.refused(Submit(**data, user_id="somebody"), "FORBIDDEN")
    server = await signed_in(portal, role="GAME_SERVER")

    accepted = await submit(server, **data, user_id=player.name)

    assert (await ended(player, accepted.task_id)).status == "completed"
    server.leave()
