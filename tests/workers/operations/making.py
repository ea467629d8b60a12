"""Samples in which all is well, but for what a test says."""

from protocol.messages.monitor import AdmissionSample, Metrics, QueueSample, ServerSample


def server(server_id: str = "SOCK001", **said: object) -> ServerSample:
    """A process that is well."""
    well = {
        "server_type": "SOCKET", "status_code": "READY", "cpu_usage": 20.0, "memory_usage": 1.0,
        "network_status": "GOOD", "connections": 10, "requests": 1000, "errors": 0, "latency_p99_ms": 20.0,
        "heartbeat_age_sec": 3.0,
    }  # fmt: skip
    return ServerSample(server_id=server_id, **{**well, **said})  # type: ignore[arg-type]


def queue(queue_id: str = "login_queue:high", **said: object) -> QueueSample:
    """A queue that is well."""
    well = {"length": 10, "pending": 5, "max_size": 1000, "oldest_age_sec": 0.1, "dead_letters": 0}
    return QueueSample(queue_id=queue_id, **{**well, **said})  # type: ignore[arg-type]


def admission(**said: object) -> AdmissionSample:
    """A waiting room that is well."""
    well = {"waiting": 0, "ready": 0, "rate_per_minute": 600, "average_wait_sec": 0}
    return AdmissionSample(**{**well, **said})  # type: ignore[arg-type]


def sample(
    *parts: ServerSample | QueueSample | AdmissionSample, redis_memory_bytes: int = 1_000_000
) -> Metrics:
    """A sample of these processes, queues and this waiting room."""
    rooms = [part for part in parts if isinstance(part, AdmissionSample)]
    return Metrics(
        at=1_000_000,
        servers=[part for part in parts if isinstance(part, ServerSample)],
        queues=[part for part in parts if isinstance(part, QueueSample)],
        admission=rooms[0] if rooms else admission(),
        redis_memory_bytes=redis_memory_bytes,
    )
