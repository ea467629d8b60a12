"""The newest sample of the whole system for Prometheus. Pure."""

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric

from protocol.messages.monitor import Metrics


def sample_figures(sample: Metrics) -> Iterator[Metric]:
    """What only the one who watches knows: processes, queues, the waiting room, Redis."""
    up = GaugeMetricFamily("lobbyd_up", "1 for a process that is READY.", labels=["server", "type"])
    cpu = GaugeMetricFamily("lobbyd_cpu_percent", "Use of one core.", labels=["server", "type"])
    for server in sample.servers:
        names = [server.server_id, server.server_type]
        up.add_metric(names, float(server.status_code == "READY"))
        cpu.add_metric(names, server.cpu_usage)
    yield from (up, cpu)
    length = GaugeMetricFamily("lobbyd_queue_length", "Entries of a queue.", labels=["queue"])
    oldest = GaugeMetricFamily("lobbyd_queue_oldest_seconds", "Age of the oldest entry.", labels=["queue"])
    dead = GaugeMetricFamily("lobbyd_dead_letters", "Dead letters of a queue.", labels=["queue"])
    for queue in sample.queues:
        length.add_metric([queue.queue_id], queue.length)
        oldest.add_metric([queue.queue_id], queue.oldest_age_sec)
        dead.add_metric([queue.queue_id], queue.dead_letters)
    yield from (length, oldest, dead)
    admission = sample.admission
    yield GaugeMetricFamily("lobbyd_waiting", "Players in line.", admission.waiting)
    yield GaugeMetricFamily("lobbyd_ready", "Players whose turn it is.", admission.ready)
    yield GaugeMetricFamily("lobbyd_admitted_per_minute", "The rate in force.", admission.rate_per_minute)
    yield GaugeMetricFamily(
        "lobbyd_estimate_error_mean_seconds",
        "By how much players are let in earlier or later than they were first told, of late.",
        admission.estimate_error_sec,
    )
    yield GaugeMetricFamily("lobbyd_redis_memory_bytes", "Memory that Redis uses.", sample.redis_memory_bytes)
