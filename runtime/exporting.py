"""Figures for Prometheus: every process can serve its own, where clients never see them."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from threading import Thread
from wsgiref.simple_server import WSGIServer

from prometheus_client import REGISTRY, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from runtime.metrics import LoopLag
from runtime.settings import MetricsSettings
from runtime.traffic import BOUNDS_MS, Traffic

Served = tuple[WSGIServer, Thread]

PORTS = 100
"""Processes of one machine that share a setting: each takes the first port that is free."""


class Collected(Collector):
    """Figures that are made when they are asked for."""

    def __init__(self, make: Callable[[], Iterable[Metric]]) -> None:
        self._make = make

    def collect(self) -> Iterable[Metric]:
        """The figures now."""
        return self._make()


class Exporter:
    """Serves the process's figures at `/metrics`, where the settings ask for it."""

    def __init__(self, settings: MetricsSettings) -> None:
        self._settings = settings
        self._server: Served | None = None
        self._collectors: list[Collector] = []
        self.port = 0

    def add(self, make: Callable[[], Iterable[Metric]]) -> None:
        """Serve these figures too."""
        self._collectors.append(Collected(make))

    async def open(self) -> None:
        """Serve. Raises OSError when there is no free port."""
        if not self._settings.port:
            return
        self._server, self.port = self._serve()
        for collector in self._collectors:
            REGISTRY.register(collector)

    def _serve(self) -> tuple[Served, int]:
        first = self._settings.port
        for port in range(first, first + PORTS - 1):
            with contextlib.suppress(OSError):
                return start_http_server(port, self._settings.host), port
        return start_http_server(first + PORTS - 1, self._settings.host), first + PORTS - 1

    async def close(self) -> None:
        """Serve no more."""
        if self._server is None:
            return
        server, thread = self._server
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        thread.join()
        for collector in self._collectors:
            REGISTRY.unregister(collector)


def process_figures(traffic: Traffic, loop_lag: LoopLag) -> Iterator[Metric]:
    """What every process measures of itself."""
    yield GaugeMetricFamily(
        "lobbyd_loop_lag_seconds", "Greatest lateness of the loop in the last 5 s.", loop_lag.max_ms / 1000
    )
    yield CounterMetricFamily("lobbyd_requests", "Requests answered.", traffic.requests)
    yield CounterMetricFamily(
        "lobbyd_request_errors", "Requests answered with a status of 500 or more.", traffic.errors
    )
    bounds = [*(str(bound / 1000) for bound in BOUNDS_MS), "+Inf"]
    buckets = list(zip(bounds, map(float, accumulate(traffic.buckets)), strict=True))
    latency = HistogramMetricFamily("lobbyd_request_seconds", "From a request to its answer.")
    latency.add_metric([], buckets, traffic.seconds)
    yield latency
