"""Every process serves its figures for Prometheus where that is asked for, and nowhere else."""

import asyncio
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.servers import free_port
from tests.system.cluster import Cluster, Process, until
from tests.system.conftest import run_house
from tests.system.guest import Guest
from workers.__main__ import KINDS

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def measured(servers_folder: Path) -> Iterator[Cluster]:
    """A cluster whose processes serve their figures."""
    settings = {"metrics.port": free_port(), "status.heartbeat_s": 0.5, "monitoring.every_s": 0.3}
    for cluster in run_house(servers_folder / uuid.uuid4().hex, settings):
        cluster.start()
        for kind in KINDS.keys() - {"status", "login"}:
            cluster.start_worker(kind)
        yield cluster


def figures(cluster: Cluster, process: Process) -> dict[tuple[str, ...], float]:
    """What a process serves: values by name and labels."""
    port = cluster.status(process)["metricsPort"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return {
            (sample.name, *sample.labels.values()): sample.value
            for family in families
            for sample in family.samples
        }


async def test_what_is_served_is_counted(measured: Cluster) -> None:
    node, worker = measured["SOCK001"], measured["login-1"]
    before = figures(measured, node), figures(measured, worker)
    guest = await Guest.at(node.endpoint)
    await guest.sign_up(f"player-{uuid.uuid4().hex[:8]}")
    after = await asyncio.to_thread(figures, measured, node), figures(measured, worker)
    for was, now in zip(before, after, strict=True):
        for name in (("lobbyd_requests_total",), ("lobbyd_request_seconds_count",)):
            assert now[name] - was[name] == 4  # register, login, stream, finalize
        assert now["lobbyd_request_seconds_bucket", "+Inf"] == now["lobbyd_requests_total",]
        assert now["lobbyd_request_errors_total",] == was["lobbyd_request_errors_total",]
        assert now["lobbyd_loop_lag_seconds",] >= 0
        assert now["process_resident_memory_bytes",] > 1_000_000
    assert after[0]["lobbyd_connections",] == 1
    guest.leave()


def test_who_watches_serves_what_the_whole_system_does(measured: Cluster) -> None:
    operations = measured["operations-1"]
    until(lambda: ("lobbyd_waiting",) in figures(measured, operations), "a sample is taken")
    found = figures(measured, operations)
    assert found["lobbyd_up", "SOCK001", "SOCKET"] == 1
    assert found["lobbyd_up", "login-1", "LOGIN"] == 1
    assert found["lobbyd_queue_length", "login_queue:high"] >= 0
    assert found["lobbyd_admitted_per_minute",] == 60_000
    assert found["lobbyd_redis_memory_bytes",] > 0


def test_each_process_has_a_port_of_its_own_on_an_address_of_its_own(measured: Cluster) -> None:
    ports = {measured.status(process)["metricsPort"] for process in measured.processes.values()}
    assert len(ports) == len(measured.processes)
    for process in measured.processes.values():
        assert figures(measured, process)["lobbyd_loop_lag_seconds",] >= 0
        listening = [
            each.laddr for each in psutil.Process(process.pid).net_connections() if each.status == "LISTEN"
        ]
        assert all(address.ip == "127.0.0.1" for address in listening)


def test_by_default_nothing_is_served(house: Cluster) -> None:
    for process in house.processes.values():
        listening = [
            each.laddr.port
            for each in psutil.Process(process.pid).net_connections()
            if each.status == "LISTEN"
        ]
        assert listening == ([] if process.port is None else [process.port])
        assert house.status(process)["metricsPort"] == "0"
