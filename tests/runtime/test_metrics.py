"""Measurements of the process itself."""

import asyncio
import time

import pytest
from prometheus_client import REGISTRY
from prometheus_client.core import GaugeMetricFamily

from runtime.exporting import Exporter
from runtime.metrics import LoopLag, NetworkStatus, network_status, resources
from runtime.settings import MetricsSettings


async def test_a_blocked_loop_shows_as_lag() -> None:
    lag = LoopLag()
    assert lag.max_ms == 0
    task = asyncio.create_task(lag.run())
    await asyncio.sleep(0)
    time.sleep(0.4)
    while lag.max_ms == 0:
        await asyncio.sleep(0.01)
    task.cancel()
    assert lag.max_ms >= 200  # 400 ms blocked, of which the timer was to sleep 100


def test_resources_are_those_of_this_process() -> None:
    resources()
    until = time.process_time() + 0.05
    while time.process_time() < until:
        pass
    used = resources()
    assert used.cpu_percent > 0
    assert used.memory_bytes > 1_000_000
    assert 0 < used.memory_percent < 100


@pytest.mark.parametrize(
    ("lag_ms", "sends", "failures", "expected"),
    [
        (0, 0, 0, NetworkStatus.GOOD),
        (249, 1000, 9, NetworkStatus.GOOD),
        (250, 0, 0, NetworkStatus.DEGRADED),
        (999, 0, 0, NetworkStatus.DEGRADED),
        (1000, 0, 0, NetworkStatus.BAD),
        (0, 100, 1, NetworkStatus.DEGRADED),
        (0, 1, 1, NetworkStatus.DEGRADED),
        (0, 9, 9, NetworkStatus.DEGRADED),
        (0, 100, 10, NetworkStatus.BAD),
        (0, 101, 10, NetworkStatus.DEGRADED),
        (0, 0, 10, NetworkStatus.BAD),
    ],
)
def test_the_network_status_follows_lag_and_failures(
    lag_ms: float, sends: int, failures: int, expected: NetworkStatus
) -> None:
    assert network_status(lag_ms, sends=sends, send_failures=failures) is expected


async def test_an_exporter_that_cannot_open_leaves_nothing_behind() -> None:
    nobodys_address = "192.0.2.1"  # RFC 5737
    exporter = Exporter(MetricsSettings(host=nobodys_address, port=9100))
    exporter.add(lambda: [GaugeMetricFamily("lobbyd_left_behind", "", 1)])

    with pytest.raises(OSError, match="address"):
        await exporter.open()

    assert REGISTRY.get_sample_value("lobbyd_left_behind") is None
