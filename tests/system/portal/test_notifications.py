"""Notifications in the game: told to who is there, kept for who is not."""

import uuid
from typing import cast

import pytest

from protocol.messages.portal import (
    ListNotifications,
    Notification,
    NotificationList,
    ReadNotifications,
    TaskType,
)
from tests.system.cluster import Cluster
from tests.system.guest import Guest
from tests.system.portal.asking import Player, ended, rows, signed_in, submit

pytestmark = pytest.mark.servers


async def test_who_is_there_is_told_and_who_is_not_later(portal: Cluster, player: Player) -> None:
    there, away = await signed_in(portal), await Player.at(portal["SOCK001"].endpoint)
    away.name = f"away-{uuid.uuid4().hex[:12]}"
    await away.register(away.name)

    accepted = await submit(
        player,
        task_type=TaskType.NOTIFICATION,
        message="보스가 나타났다",
        recipients=(there.name, away.name, "nobody-at-all"),
    )

    told = await there.hear(Notification)
    assert (told.message, told.from_, told.id) == ("보스가 나타났다", player.name, accepted.task_id)
    assert (await ended(player, accepted.task_id)).result == {
        "sentCount": 2,
        "failedCount": 1,
        "failed": [{"userId": "nobody-at-all", "reason": "no such user"}],
    }
    tokens = await away.sign_in(away.name)
    back = await Guest.at(portal["SOCK001"].endpoint)
    assert (await back.resume(tokens.access_token)).unread_notifications == 1
    listed = cast(NotificationList, await back.ask(ListNotifications()))
    assert [each.message for each in listed.notifications] == ["보스가 나타났다"]
    await back.ask(ReadNotifications(ids=[accepted.task_id]))
    listed = cast(NotificationList, await back.ask(ListNotifications()))
    assert (listed.unread, listed.notifications[0].read) == (0, True)
    for guest in (there, back):
        guest.leave()


async def test_notifications_of_a_group_reach_its_members(portal: Cluster, player: Player) -> None:
    admin = await signed_in(portal, role="ADMIN")
    member = {"group": "VIP_Users", "name": player.name}
    await rows(portal, "INSERT INTO group_members VALUES (:group, :name, 0)", **member)

    accepted = await submit(
        admin, task_type=TaskType.NOTIFICATION, message="hi", groups=("VIP_Users", "no-such-group")
    )

    assert (await player.hear(Notification)).from_ == admin.name
    update = await ended(admin, accepted.task_id)
    assert (update.result["sentCount"], update.result["failedCount"]) == (1, 1)
    admin.leave()
