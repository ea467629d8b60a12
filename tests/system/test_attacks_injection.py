"""Texts from outside become part of no Redis key but as a user id, whatever they hold."""

import itertools
import re
from collections.abc import Mapping

import pytest

from tests.system.cluster import Cluster
from tests.system.guest import PASSWORD, Guest
from tests.system.wire import Wire

pytestmark = pytest.mark.servers


HOSTILE = [
    ":", "::", "{x}", "}{", "*", "?", "[a]", "\n", "\r\n", "\x00", "|", "~", "%s", "'", '"', "\\", "../..",
    "\r\nFLUSHALL\r\n", "user:ada:ticket", "' OR 1=1 --", "${jndi:ldap://x}", "\u202eada", "\x9b2J",
    "a" * 250,
]  # fmt: skip

KEYS = re.compile(
    r"""
    (user|session|refresh_tokens|places):[a-z0-9_.-]{3,32}
    | user:[a-z0-9_.-]{3,32}:(ticket|raised)
    | iam:user:[a-z0-9_.-]{3,32}:groups
    | (ticket|sse:clients):tid_[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{22}
    | request:[0-9a-f-]+
    | limit:[a-z-]+:([a-z0-9_.-]{3,32}|[0-9a-f]{32}|[a-z0-9_.-]{3,32}:[0-9a-f]{32})
    | (usernames|emails|server_ids|queue_ids|status_queue|event_bus)
    | (queue_meta|queue_stats):[A-Za-z0-9_:-]+
    | [a-z]+_queue:[a-z_]+ | [A-Za-z0-9-]+_Q | SERVER_ID:[A-Za-z0-9-]+:(status|lease)
    | queue:[a-z:]+ | iam:(audit|policies|policy|groups):[A-Za-z0-9_:-]+
    """,
    re.VERBOSE,
)
"""What every key looks like. Names from outside are in none but as a user id."""


class TestInjection:
    async def test_hostile_texts_become_part_of_no_key(self, house: Cluster, name: str) -> None:
        wire = await Wire.greeted(house["SOCK001"].endpoint)
        numbers = itertools.count(2)

        async def ask(request: str, data: Mapping[str, object], **more: object) -> int:
            reply = await wire.ask(request, data, next(numbers), **more)
            return int(reply["status"])

        await ask(
            "auth.register", {"username": name, "password": PASSWORD, "email": f"{name}@x", "nickname": name}
        )
        for number, text in enumerate(HOSTILE):
            account = {
                "username": f"{name}-{number}", "password": f"{text[:40]}{PASSWORD}",
                "email": f"{text[:200]}{number}@{name}", "nickname": text[:32],
            }  # fmt: skip
            await ask("auth.register", account, key=text[:64])
            assert await ask("auth.register", {**account, "username": f"{name}{text}"}) == 400
            for username in (text, f"{name}{text}", f"{text}{name}"):
                assert await ask("auth.login", {"username": username, "password": PASSWORD}) == 400
            login = {"username": name, "password": PASSWORD, "clientFingerprint": text[:256]}
            assert await ask("auth.login", login, key=text[:64]) == 200
            for request in ("queue.stream", "queue.cancel", "auth.finalize"):
                ids = {"tid": text[:128], "clientId": text[:64]}
                assert await ask(request, ids, key=text[:64]) in {404, 400}
            for request in ("auth.refresh", "auth.logout"):
                assert await ask(request, {"refreshToken": text}, key=text[:64]) == 401
            assert await ask("auth.resume", {"accessToken": text}) == 401
        wire.leave()
        strange = [key for key in house.redis.scan_iter(count=1000) if not KEYS.fullmatch(key)]
        assert strange == []

    async def test_a_username_is_nobody_elses_key(self, guest: Guest, house: Cluster, name: str) -> None:
        """Names that look like what keys are made of stand for themselves."""
        names = ["ticket", "groups", "address.", "..-", "___", "0" * 32, f"{name[:20]}.ticket"]
        for each in names:
            unique = f"{each}{name}"[:32]
            await guest.register(unique)
            assert house.redis.type(f"user:{unique}") == "hash"
            assert (await guest.sign_in(unique)).user_id == unique
