"""The rules of the wire, against a real node: each offence costs the offender, and nobody else."""

from typing import Any

import msgspec
import pytest

from protocol.frames import HEADER, frame
from tests.system.cluster import Cluster, Process
from tests.system.guest import PASSWORD, Guest
from tests.system.wire import HELLO, Wire, envelope

pytestmark = pytest.mark.servers

MIB = 1024 * 1024


@pytest.fixture
def node(house: Cluster) -> Process:
    return house["SOCK001"]


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


NO_FRAME = {
    "length 0": b"\0\0\0\0",
    "length 2^32-1": b"\xff\xff\xff\xff",
    "length 8193": HEADER.pack(8193),
    "garbage": b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n",
    "no map": frame(msgspec.msgpack.encode([1, 2, 3])),
    "no msgpack": frame(b"\xc1" * 10),
    "more after the map": frame(msgspec.msgpack.encode({"a": 1}) + b"\x01"),
    "nested headers": frame(b"\x81\xa1a" + b"\x91" * 8000),
    "an array of 4 billion": frame(b"\x81\xa1a\xdd\xff\xff\xff\xff"),
    "text of 4 billion": frame(b"\x81\xa1a\xdb\xff\xff\xff\xff"),
    "too deep": envelope("ping", 1, {"x": nested(17)}),
    "too long": envelope("ping", 1, {"x": list(range(1025))}),
    "keys that are no text": frame(msgspec.msgpack.encode({1: 2})),
    "an extension": envelope("ping", 1, {"x": msgspec.msgpack.Ext(5, b"data")}),
    "no UTF-8": frame(b"\x81\xa4type\xa2\xff\xfe"),
    "no id": frame(msgspec.msgpack.encode({"type": "ping", "data": {}})),
    "a negative id": envelope("ping", -1, {}),
    "an id that is text": envelope("ping", "1", {}),
    "an id of 2^64-1": envelope("ping", 2**64 - 1, {}),
}


class TestWhatIsNoProtocol:
    @pytest.mark.parametrize("offence", NO_FRAME.values(), ids=NO_FRAME.keys())
    async def test_gets_goodbye(self, node: Process, neighbour: Guest, offence: bytes) -> None:
        wire = await Wire.greeted(node.endpoint)

        wire.send(offence)

        goodbye = await wire.goodbye()
        assert (goodbye["code"], goodbye["reconnect"]) == ("PROTOCOL_ERROR", False)
        assert goodbye["message"]

    async def test_a_request_before_hello(self, node: Process, neighbour: Guest) -> None:
        wire = await Wire.to(node.endpoint)

        wire.send(envelope("ping", 1, {}))

        goodbye = await wire.goodbye()
        assert goodbye["code"] == "PROTOCOL_ERROR"
        assert "hello" in goodbye["message"]

    async def test_what_came_whole_before_an_offence_was_answered(self, node: Process) -> None:
        wire = await Wire.greeted(node.endpoint)
        await wire.ask("ping", {})

        wire.send(b"\0\0\0\0")

        assert [message["type"] for message in await wire.closed()] == ["GOODBYE"]


class TestVersions:
    async def test_another_version(self, node: Process) -> None:
        wire = await Wire.to(node.endpoint)

        reply = await wire.ask("hello", {"protocol": 2, "client": "from the future"})

        assert (reply["status"], reply["error"]["code"]) == (426, "UNSUPPORTED_VERSION")
        goodbye = await wire.goodbye()
        assert (goodbye["code"], goodbye["reconnect"]) == ("UNSUPPORTED_VERSION", False)

    async def test_hello(self, node: Process) -> None:
        wire = await Wire.to(node.endpoint)

        reply = await wire.ask("hello", HELLO)

        server_time = reply["data"].pop("serverTime")
        assert server_time > 1_700_000_000_000
        assert reply == {
            "type": "reply",
            "id": 1,
            "status": 200,
            "data": {"serverId": "SOCK001", "protocol": 1, "maxFrameBytes": MIB, "keepaliveSec": 15},
        }
        wire.leave()

    async def test_a_hello_with_a_wrong_field_can_be_said_again(self, node: Process) -> None:
        wire = await Wire.to(node.endpoint)
        refused = await wire.ask("hello", {"protocol": 1})
        assert (refused["status"], refused["error"]["code"]) == (400, "INVALID_REQUEST")

        assert (await wire.ask("hello", HELLO))["status"] == 200

        wire.leave()

    async def test_unknown_fields_are_ignored(self, node: Process) -> None:
        wire = await Wire.to(node.endpoint)

        hello = await wire.ask("hello", {**HELLO, "colour": "red"}, trace=[1, 2], locale="ko")
        pong = await wire.ask("ping", {"payload": {"deep": [1]}}, 2)

        assert (hello["status"], pong["status"]) == (200, 200)
        wire.leave()


INVALID: dict[str, tuple[Any, Any, dict[str, Any], str]] = {
    "data that is no map": ("ping", [1], {}, "`data`"),
    "no data": ("ping", None, {}, "`data`"),
    "a type that is no text": (7, {}, {}, "`type`"),
    "a type of 65 characters": ("x" * 65, {}, {}, "`type`"),
    "a key of 65 characters": ("ping", {}, {"key": "k" * 65}, "`key`"),
    "an empty key": ("ping", {}, {"key": ""}, "`key`"),
    "a key that is no text": ("ping", {}, {"key": 5}, "`key`"),
    "a missing field": ("queue.stream", {"tid": "t"}, {}, "`clientId`"),
    "a field of the wrong type": ("queue.stream", {"tid": 5, "clientId": "c"}, {}, "`tid`"),
    "a field that is too long": ("queue.stream", {"tid": "t" * 129, "clientId": "c"}, {}, "`tid`"),
    "a login without anything": ("auth.login", {}, {}, "`username`"),
    "a login without a password": ("auth.login", {"username": "abc"}, {}, "`password`"),
    "a login by both": ("auth.login", {"username": "abc", "refreshToken": "r"}, {}, "`refreshToken`"),
    "a username that cannot be": ("auth.login", {"username": "a b", "password": "p"}, {}, "`username`"),
    "a login with a password of 73 bytes": (
        "auth.login", {"username": "abc", "password": "x" * 73}, {}, "`password`",
    ),
}  # fmt: skip


class TestRefusedRequests:
    @pytest.mark.parametrize("case", INVALID.values(), ids=INVALID.keys())
    async def test_the_message_names_the_field(
        self, node: Process, case: tuple[Any, Any, dict[str, Any], str]
    ) -> None:
        name, data, more, named = case
        wire = await Wire.greeted(node.endpoint)

        reply = await wire.ask(name, data, 2, **more)

        assert (reply["status"], reply["error"]["code"]) == (400, "INVALID_REQUEST")
        assert named in reply["error"]["message"]
        assert (await wire.ask("ping", {}, 3))["status"] == 200
        wire.leave()

    @pytest.mark.parametrize(
        ("password", "is_taken"),
        [
            ("x" * 7, False),
            ("x" * 8, True),
            ("x" * 72, True),
            ("x" * 73, False),
            ("가" * 24, True),
            ("가" * 25, False),
            ("👾" * 18, True),
            ("👾" * 19, False),
        ],
    )
    async def test_passwords_have_8_to_72_bytes(self, node: Process, password: str, is_taken: bool) -> None:
        name = f"pw-{len(password)}-{len(password.encode())}"
        wire = await Wire.greeted(node.endpoint)
        data = {"username": name, "password": password, "email": f"{name}@example.com", "nickname": "가"}

        reply = await wire.ask("auth.register", data)

        if is_taken:
            assert reply["status"] == 201
            assert (await wire.ask("auth.login", {"username": name, "password": password}))["status"] == 200
        else:
            assert (reply["status"], reply["error"]["code"]) == (400, "INVALID_REQUEST")
            assert "`password`" in reply["error"]["message"]
        wire.leave()

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("username", "ab"),
            ("username", "a" * 33),
            ("username", "한글이름"),
            ("username", "abc\n"),
            ("email", "no address"),
            ("email", "a@b\nc"),
            ("nickname", ""),
            ("nickname", "n" * 33),
            ("nickname", "a\0b"),
        ],
    )
    async def test_registrations_with_a_wrong_field(self, node: Process, field: str, value: str) -> None:
        wire = await Wire.greeted(node.endpoint)
        data = {"username": "right", "password": PASSWORD, "email": "right@example.com", "nickname": "right"}

        reply = await wire.ask("auth.register", {**data, field: value})

        assert (reply["status"], reply["error"]["code"]) == (400, "INVALID_REQUEST")
        assert f"`{field}`" in reply["error"]["message"]
        wire.leave()

    async def test_an_unknown_type(self, node: Process) -> None:
        wire = await Wire.greeted(node.endpoint)

        reply = await wire.ask("door.open", {})

        assert (reply["status"], reply["error"]["code"]) == (400, "UNKNOWN_TYPE")
        assert "door.open" in reply["error"]["message"]
        wire.leave()

    async def test_an_id_in_flight(self, house: Cluster, node: Process) -> None:
        wire = await Wire.greeted(node.endpoint)
        login = {"username": "duplicate", "password": PASSWORD}
        house["login-1"].freeze()
        try:
            wire.send(envelope("auth.login", 5, login))
            second = await wire.ask("auth.login", login, 5)
        finally:
            house["login-1"].thaw()

        assert (second["status"], second["error"]["code"]) == (409, "DUPLICATE_ID")
        first = await wire.reply(5)
        assert first["error"]["code"] == "INVALID_CREDENTIALS"
        assert (await wire.ask("ping", {}, 5))["status"] == 200
        wire.leave()
