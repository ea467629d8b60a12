"""What the portal worker's handlers and kinds of tasks work with, and how its process is put together."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from msgspec import UNSET

from protocol.messages.portal import TaskUpdate
from runtime.config import ConfigError
from runtime.daemon import Step
from runtime.settings import Config
from storage.connections import connect_blocking
from storage.database import Database
from storage.events import open_bus
from storage.files import Files
from storage.notifications import Notifications
from storage.objects import Objects
from storage.queues import Outbox, QueueServer
from storage.tasks import TaskArchive, Tasks, TaskStatus, TaskWork
from storage.users import Users
from storage.whereabouts import Whereabouts
from workers.gate import Gate, open_gate
from workers.portal.archiving import Archiving
from workers.portal.cleaning import Cleaning
from workers.portal.engine import Engine
from workers.portal.kinds import Kinds
from workers.portal.line import BLOCK_S, Change
from workers.portal.turns import Turns
from workers.process import STEP_ATTEMPTS, Kind, WorkerProcess, database_step, request_intake
from workers.requests import Handlers, Requests
from workers.telling import Telling

CONCURRENCY = 200


@dataclass(frozen=True)
class PortalRoom:
    """The stores and rules of a portal worker."""

    config: Config
    database: Database
    tasks: Tasks
    archive: TaskArchive
    objects: Objects
    files: Files
    notifications: Notifications
    users: Users
    telling: Telling
    outbox: Outbox
    gate: Gate
    turns: Turns


handlers: Handlers[PortalRoom] = Handlers("portal")
kinds: Kinds[PortalRoom] = Kinds()


def assemble(process: WorkerProcess) -> Kind:
    """The parts of a portal worker process. Raises ConfigError."""
    # Registers the handlers and the kinds, which need this module.
    from workers.portal import (  # noqa: F401, PLC0415
        data_processing,
        file_upload,
        notification,
        reading,
        submitting,
        uploading,
    )

    room = _room(process)
    settings, queues = process.config.portal, process.config.queues
    work = TaskWork(
        process.wire,
        f"{process.process_id}:{process.boot_id}",
        room.tasks.create,
        keep_s=settings.result_ttl_s,
    )
    engine = Engine(
        kinds,
        room,
        work,
        partial(connect_blocking, process.config.redis.url, BLOCK_S),
        partial(tell, room.telling),
        lease_s=queues.lease_s,
        max_deliveries=queues.max_deliveries,
    )
    archiving = Archiving(room.archive, room.files, process.boot_id)
    cleaning = Cleaning(room.files, room.tasks, partial(tell, room.telling), settings.upload_ttl_s)

    async def register_handlers() -> None:
        handlers.check()

    async def prepare_bus() -> None:
        await open_bus(process.redis)

    async def create_task_queues() -> None:
        await asyncio.gather(*(room.tasks.create(kind.name) for kind in kinds))

    async def start_tasks() -> None:
        await engine.start(process.daemon.watch)
        process.daemon.watch(archiving.run(), "archive")
        process.daemon.watch(cleaning.run(), "cleaning")

    requests = Requests(handlers, room, process.outbox, process.seals, room.gate.let_in)
    return Kind(
        intakes=[request_intake(process.config, requests, CONCURRENCY)],
        before=[
            database_step(process.config.database.url, room.database),
            Step("event bus", prepare_bus, attempts=STEP_ATTEMPTS),
            Step("task queues", create_task_queues, attempts=STEP_ATTEMPTS),
            Step("handler registration", register_handlers),
        ],
        after=[Step("tasks", start_tasks, engine.stop)],
    )


def _room(process: WorkerProcess) -> PortalRoom:
    """The stores and rules, by the settings. Raises ConfigError."""
    config, settings = process.config, process.config.portal
    if not config.database.url:
        raise ConfigError("database.url: a worker started alone needs a database; `lobbyctl up` embeds one")
    if not settings.storage_url:
        raise ConfigError("portal.storage_url: a worker started alone needs a place for files")
    try:
        objects = Objects(settings.storage_url)
    except ValueError as error:
        raise ConfigError(f"portal.storage_url: {error}") from None
    database = Database(config.database.url)
    tasks = Tasks(
        process.wire,
        QueueServer(process.redis),
        keep_s=settings.result_ttl_s,
        most_open=settings.max_open_tasks,
        most_waiting=settings.max_waiting_tasks,
    )
    return PortalRoom(
        config=config,
        database=database,
        tasks=tasks,
        archive=TaskArchive(database, process.wire, tasks),
        objects=objects,
        files=Files(database, objects, settings.quota_bytes),
        notifications=Notifications(database),
        users=Users(database, process.wire, process.secrets),
        telling=Telling(Whereabouts(process.wire), process.outbox),
        outbox=process.outbox,
        gate=open_gate(database, process.wire, process.secrets),
        turns=Turns(tasks),
    )


def tell(telling: Telling, changes: Sequence[Change]) -> None:
    """Tell users how their tasks are."""
    telling.tell_each([(change.user_id, update_of(change)) for change in changes])


def update_of(change: Change) -> TaskUpdate:
    """The event that tells a change."""
    is_complete = change.status is TaskStatus.COMPLETED
    return TaskUpdate(
        task_id=change.task_id,
        status=change.status.value,
        progress=change.progress,
        result=change.result if is_complete else UNSET,
        error=UNSET if change.error is None else change.error,
    )
