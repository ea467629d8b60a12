"""Operators hear how the system fares, and once of what is wrong with it."""

import json
import sqlite3
import threading
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from protocol.envelope import queue_create
from protocol.messages.monitor import Alert, AlertLevel, AlertState, Metrics, MonitorSubscribe
from protocol.queues import QueueType
from storage import keys
from storage.admission import AdmissionSettings
from storage.connections import connect
from storage.queues import QueueServer
from tests.system.cluster import Cluster, eventually
from tests.system.conftest import run_house
from tests.system.guest import Guest

pytestmark = pytest.mark.servers


class Webhook:
    """A server that remembers what is posted to it; of each thing it takes only the third post."""

    def __init__(self) -> None:
        heard = self.heard = []  # type: list[dict[str, object]]
        posts: Counter[bytes] = Counter()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                posts[body] += 1
                if posts[body] == 1:
                    self.wfile.write(b"no HTTP at all\r\n\r\n")
                    return
                if posts[body] == 3:
                    heard.append(json.loads(body))
                self.send_response(204 if posts[body] == 3 else 500)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/alerts"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture(scope="module")
def webhook() -> Iterator[Webhook]:
    webhook = Webhook()
    yield webhook
    webhook.close()


@pytest.fixture(scope="module")
def desk(servers_folder: Path, webhook: Webhook) -> Iterator[Cluster]:
    """A cluster that is watched closely."""
    settings = {
        "status.heartbeat_s": 0.5,
        "monitoring.every_s": 0.3,
        "monitoring.priorities_every_s": 0.3,
        "monitoring.clear_after_s": 0.5,
        "monitoring.webhook": webhook.url,
    }
    for cluster in run_house(servers_folder / uuid.uuid4().hex, settings):
        cluster.start()
        cluster.start_worker("operations", 1)
        cluster.start_worker("operations", 2)
        yield cluster


def make_admin(cluster: Cluster, name: str) -> None:
    """Give an account the role of an operator."""
    path = str(cluster.settings["database.url"]).partition("///")[2]
    with sqlite3.connect(path, timeout=10) as database:
        database.execute("UPDATE users SET role = 'ADMIN' WHERE user_id = ?", (name,))
    database.close()
    cluster.redis.delete(keys.user(name))


@pytest.fixture
async def operator(desk: Cluster) -> AsyncIterator[Guest]:
    """An operator's program that listens."""
    guest = await Guest.at(desk["SOCK001"].endpoint)
    name = f"operator-{uuid.uuid4().hex[:8]}"
    await guest.register(name)
    make_admin(desk, name)
    await guest.sign_in(name)
    await guest.ask(MonitorSubscribe())
    yield guest
    guest.leave()


async def heard_of(operator: Guest, subject: str, state: AlertState) -> Alert:
    """Wait for an alert about a subject in a state."""
    count = 1
    while True:
        alert = await operator.hear(Alert, count)
        if (alert.subject, alert.state) == (subject, state):
            return alert
        count += 1


async def test_players_may_not_listen(desk: Cluster) -> None:
    guest = await Guest.at(desk["SOCK001"].endpoint)
    await guest.refused(MonitorSubscribe(), "NOT_AUTHENTICATED")
    name = f"player-{uuid.uuid4().hex[:8]}"
    await guest.sign_up(name)
    await guest.refused(MonitorSubscribe(), "FORBIDDEN")
    lines = desk.redis.lrange(keys.AUDIT_LOGS, 0, -1)
    said = f"|{name}|request:send|request:monitor:subscribe|DENIED|-"
    assert any(str(line).endswith(said) for line in lines)
    guest.leave()


async def test_samples_come_again_and_again_and_are_kept(desk: Cluster, operator: Guest) -> None:
    sample = await operator.hear(Metrics, 3)
    servers = {server.server_id: server for server in sample.servers}
    assert {"SOCK001", "login-1", "status-1", "operations-1", "operations-2"} <= servers.keys()
    assert servers["SOCK001"].connections >= 1
    assert "login_queue:normal" in {queue.queue_id for queue in sample.queues}
    assert sample.redis_memory_bytes > 0
    kept = desk.redis.hgetall(keys.MONITORING_METRICS)
    assert {"at", "admission", "redis", "server:SOCK001", "queue:login_queue:high"} <= set(kept)
    assert len({sample.at for sample in operator.all(Metrics)}) == len(operator.all(Metrics))


async def test_a_killed_node_is_one_alert_that_closes_when_it_is_back(
    desk: Cluster, operator: Guest, webhook: Webhook
) -> None:
    node = desk.start_node(2)
    node.kill()
    opened = await heard_of(operator, "server:SOCK002", AlertState.OPEN)
    escalated = await heard_of(operator, "server:SOCK002", AlertState.ESCALATED)
    assert escalated.level is AlertLevel.CRITICAL
    late = await Guest.at(desk["SOCK001"].endpoint)
    name = f"operator-{uuid.uuid4().hex[:8]}"
    await late.register(name)
    make_admin(desk, name)
    await late.sign_in(name)
    await late.ask(MonitorSubscribe())
    assert (await late.hear(Alert)).id == opened.id
    desk.start_node(2)
    closed = await heard_of(operator, "server:SOCK002", AlertState.CLOSED)
    assert opened.id == escalated.id == closed.id
    about = [alert.state for alert in operator.all(Alert) if alert.subject == "server:SOCK002"]
    assert about == [AlertState.OPEN, AlertState.ESCALATED, AlertState.CLOSED]
    late.leave()

    def posted() -> list[str]:
        return sorted(str(body["state"]) for body in webhook.heard if body["id"] == opened.id)

    def logged() -> list[str]:
        lines = [line for number in (1, 2) for line in desk[f"operations-{number}"].log.splitlines()]
        said = [json.loads(line) for line in lines if '"event": "alert"' in line]
        return sorted(each["state"] for each in said if each["id"] == opened.id)

    once = ["CLOSED", "ESCALATED", "OPEN"]
    await eventually(lambda: len(posted()) >= len(once) <= len(logged()), "it is posted and logged")
    assert (posted(), logged()) == (once, once)


async def test_another_watches_on_when_the_watching_worker_dies(desk: Cluster, operator: Guest) -> None:
    boot = desk.redis.get(keys.MONITORING_LEAD)
    watching = next(
        desk[name]
        for name in ("operations-1", "operations-2")
        if desk.redis.hget(keys.server_status(name), "bootId") == boot
    )
    watching.kill()
    before = len(operator.all(Metrics))
    await operator.hear(Metrics, before + 3)
    assert desk.redis.get(keys.MONITORING_LEAD) != boot
    desk.start_worker("operations", int(watching.name[-1]))


async def test_the_door_closes_while_what_lies_behind_it_cannot_keep_up_and_opens_by_itself(
    desk: Cluster, operator: Guest
) -> None:
    rate = desk.redis.hget(keys.PORTAL_CONFIG, "totalRate")
    redis = connect(str(desk.settings["redis.url"]))
    games = QueueServer(redis)
    await games.create(
        queue_create("game", "game_queue:normal", QueueType.REQUEST, max_size=2, expire_s=3600)
    )
    await games.append("game_queue:normal", b"nobody takes this")
    await games.append("game_queue:normal", b"nor this")
    opened = await heard_of(operator, "door", AlertState.OPEN)
    assert opened.level is AlertLevel.CRITICAL
    assert "game_queue:normal is pressed to 200%" in opened.message
    assert desk.redis.hget(keys.PORTAL_CONFIG, "totalRate") == "0"

    await games.delete("game_queue:normal")
    await heard_of(operator, "door", AlertState.CLOSED)
    assert desk.redis.hget(keys.PORTAL_CONFIG, "totalRate") == rate
    await redis.aclose()


async def test_estimates_that_are_off_are_an_alert_while_somebody_waits(
    desk: Cluster, operator: Guest
) -> None:
    redis = connect(str(desk.settings["redis.url"]))
    admission = AdmissionSettings(redis)
    desk.redis.hset(keys.PORTAL_STATS, "estimateError", "61.5")
    await operator.hear(Metrics, len(operator.all(Metrics)) + 2)
    assert [each for each in operator.all(Alert) if each.subject == "estimates"] == []
    await admission.pause("kim")
    guest = await Guest.at(desk["SOCK001"].endpoint)
    name = f"player-{uuid.uuid4().hex[:8]}"
    await guest.register(name)
    await guest.log_in(name)
    opened = await heard_of(operator, "estimates", AlertState.OPEN)
    assert (opened.value, opened.limit) == (61.5, 15.0)
    assert "61.5 s earlier or later" in opened.message
    desk.redis.hset(keys.PORTAL_STATS, "estimateError", "0.5")
    assert (await heard_of(operator, "estimates", AlertState.CLOSED)).id == opened.id
    await admission.resume("kim")
    guest.leave()
    await redis.aclose()


async def test_a_queue_that_is_pressed_gets_more_of_its_consumers(desk: Cluster, operator: Guest) -> None:
    redis = connect(str(desk.settings["redis.url"]))
    server = QueueServer(redis)
    await server.create(
        queue_create("probe", "probe_queue:low", QueueType.REQUEST, max_size=2, expire_s=3600)
    )
    await server.append("probe_queue:low", b"nobody takes this")
    for _ in range(60):
        said = desk.redis.hgetall(keys.queue_priority("probe_queue:low"))
        if said and float(said["new_priority"]) > 1.4:
            break
        await operator.hear(Metrics, len(operator.all(Metrics)) + 1)
    assert "1 entries" in said["reason"]
    assert desk.redis.hget(keys.queue_priority("probe"), "new_priority") is not None
    await server.delete("probe_queue:low")
    await redis.aclose()
