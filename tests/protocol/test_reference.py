"""docs/protocol.md is what the declarations say, its links lead somewhere and its program runs."""

import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest

from protocol.connection import RawRequest, ServerConnection, reply_frame
from protocol.errors import ERROR_KINDS, GoodbyeCode
from protocol.messages import EVENTS, REQUESTS
from protocol.messages.connection import HelloReply, Pong
from scripts import example, reference


def test_the_page_is_current() -> None:
    assert reference.main(["--check"]) == 0, "run `python -m scripts.reference`"


def test_a_page_that_is_not_current_is_found_and_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "PAGE", tmp_path / "protocol.md")
    assert reference.main(["--check"]) == 1
    assert reference.main([]) == 0
    assert reference.main(["--check"]) == 0
    with reference.PAGE.open("a") as page:
        page.write("One more word.\n")
    assert reference.main(["--check"]) == 1


def test_a_mark_that_nothing_stands_for_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template = tmp_path / "template.md"
    template.write_text("{{nothing}}")
    monkeypatch.setattr(reference, "TEMPLATE", template)
    with pytest.raises(KeyError):
        reference.page()


def test_everything_that_is_derived_is_on_the_page() -> None:
    template = reference.TEMPLATE.read_text("utf-8")
    assert set(re.findall(r"\{\{(\w+)\}\}", template)) == set(reference.derived())


def test_every_request_event_and_code_is_on_the_page() -> None:
    page = reference.page()
    for name in [*REQUESTS, *EVENTS]:
        assert page.count(f"### `{name}`\n") == 1
    for code in [*ERROR_KINDS, *(code.code for code in GoodbyeCode)]:
        assert f"| `{code}` |" in page


def test_links_within_the_page_lead_somewhere() -> None:
    page = reference.page()
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page, flags=re.DOTALL), re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert len(anchors) == len(headings)
    assert set(re.findall(r"\]\(#([^)]+)\)", page)) <= anchors


def test_the_explained_bytes_are_a_frame() -> None:
    explained = re.findall(r"^((?:[0-9a-f]{2} )+) ", example.hello_bytes(), re.MULTILINE)
    (request,) = ServerConnection(8192).receive(bytes.fromhex("".join(explained)))
    assert isinstance(request, RawRequest)
    assert (request.type, request.id) == ("hello", 1)


def serve(listener: socket.socket) -> None:
    """A node as small as can be: answers hello and ping."""
    accepted, _ = listener.accept()
    hello = HelloReply(
        server_id="SOCK001", protocol=1, max_frame_bytes=1024, keepalive_sec=15.0, server_time=0
    )
    connection = ServerConnection(8192)
    with accepted:
        while data := accepted.recv(4096):
            for request in connection.receive(data):
                assert isinstance(request, RawRequest)
                declared = msgspec.convert(request.data, REQUESTS[request.type].data)
                answer = hello if request.type == "hello" else Pong(server_time=0)
                assert declared
                accepted.sendall(reply_frame(request.id, 200, answer))


def test_the_program_on_the_page_runs() -> None:
    (program,) = re.findall(r"```python\n(.+?)```", reference.page(), re.DOTALL)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        node = threading.Thread(target=serve, args=(listener,), daemon=True)
        node.start()
        port = str(listener.getsockname()[1])
        ran = subprocess.run(
            [sys.executable, "-c", program.replace("7400", port)],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        node.join(10)
    assert ran.stderr == ""
    first, second = ran.stdout.splitlines()
    assert "'id': 1" in first
    assert "'serverId': 'SOCK001'" in first
    assert "'id': 2" in second


def test_every_frame_of_the_session_is_as_declared() -> None:
    asked: dict[int, str] = {}
    for arrow, line in re.findall(r"^([→←]) (\{.+\})$", reference.page(), re.MULTILINE):
        fields = msgspec.json.decode(line)
        name = fields["type"]
        if arrow == "→":
            asked[fields["id"]] = name
            msgspec.convert(fields["data"], REQUESTS[name].data)
        elif name != "reply":
            msgspec.convert(fields["data"], EVENTS[name].data)
        elif fields["status"] < 400:
            declared = REQUESTS[asked[fields["id"]]]
            assert fields["status"] == declared.status
            msgspec.convert(fields["data"], declared.reply)
        else:
            kind = ERROR_KINDS[fields["error"]["code"]]
            assert fields["status"] == kind.status
            assert kind in REQUESTS[asked[fields["id"]]].errors
    assert len(asked) == 6
