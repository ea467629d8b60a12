"""What the operations worker's handlers work with, and how its process is put together."""

from dataclasses import dataclass

from protocol.connection import event_frame
from protocol.envelope import Delivery, Join
from protocol.messages import Nothing
from protocol.messages.monitor import MonitorSubscribe
from runtime.config import ConfigError
from runtime.daemon import Step
from storage.admission import AdmissionSettings
from storage.database import Database
from storage.monitoring import Monitoring
from storage.priorities import Priorities
from storage.scaling import Scaling
from storage.whereabouts import Whereabouts
from workers.gate import open_gate
from workers.operations.watch import TOPIC, Watch
from workers.process import Kind, WorkerProcess, database_step, request_intake
from workers.requests import Answer, Call, Handlers, Requests
from workers.telling import Telling

CONCURRENCY = 100


@dataclass(frozen=True)
class OperationsRoom:
    """What handlers need."""

    watch: Watch


handlers: Handlers[OperationsRoom] = Handlers("operations")


@handlers.handles(MonitorSubscribe)
async def subscribe(room: OperationsRoom, call: Call[MonitorSubscribe]) -> Answer:
    """Have samples and alerts come to the connection; those alerts that are open come at once."""
    origin = call.envelope.origin
    also = tuple(
        (origin, Delivery(origin.connection_id, event_frame(alert)))
        for alert in await room.watch.open_alerts()
    )
    return Answer(Nothing(), Join(TOPIC), also)


def assemble(process: WorkerProcess) -> Kind:
    """The parts of an operations worker. Raises ConfigError."""
    if not process.config.database.url:
        raise ConfigError("database.url: a worker started alone needs a database; `lobbyctl up` embeds one")
    scaling = process.config.scaling
    if scaling.least > scaling.most:
        raise ConfigError(
            f"scaling.least: {scaling.least} workers at least are more than the {scaling.most} at most"
        )
    database = Database(process.config.database.url)
    gate = open_gate(database, process.wire, process.secrets)
    telling = Telling(Whereabouts(process.wire), process.outbox)
    watch = Watch(
        Monitoring(process.redis),
        AdmissionSettings(process.wire),
        Priorities(process.wire),
        Scaling(process.wire),
        telling,
        process.config,
        process.boot_id,
    )

    process.exporter.add(watch.figures)

    async def register_handlers() -> None:
        handlers.check()

    async def start_watch() -> None:
        process.daemon.watch(watch.run(), "watch")

    requests = Requests(handlers, OperationsRoom(watch), process.outbox, process.seals, gate.let_in)
    return Kind(
        [request_intake(process.config, requests, CONCURRENCY)],
        before=[
            database_step(process.config.database.url, database),
            Step("handler registration", register_handlers),
        ],
        after=[Step("watch", start_watch)],
    )
