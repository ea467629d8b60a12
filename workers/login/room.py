"""What the login worker's handlers work with, and how its process is put together."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from runtime.config import ConfigError
from runtime.daemon import Step
from runtime.settings import Config
from storage.admission import AdmissionSettings
from storage.attempts import Attempts
from storage.audit import Audit, WhenFull
from storage.database import Database
from storage.group_catalogue import GroupCatalogue
from storage.groups import Groups
from storage.keyring import KeyRing
from storage.logins import Logins
from storage.matches import MatchBoard
from storage.notifications import Notifications
from storage.permissions import Permissions
from storage.policies import Policies, PolicyWatch
from storage.queues import QueueServer
from storage.raises import Raises
from storage.sessions import Sessions
from storage.tasks import Tasks
from storage.tickets import Asker, Tickets
from storage.users import Users
from storage.wire import Wire
from workers.gate import Gate
from workers.hearing import bus_intake
from workers.login.admission import Admission
from workers.login.auditing import Auditing
from workers.login.caution import Caution, Origins
from workers.login.hashing import Hashing
from workers.login.identifiers import Identifiers
from workers.login.opening import Draw, opening_ms
from workers.login.overflow import Overflow
from workers.login.survey import Survey
from workers.login.tokens import Tokens
from workers.process import STEP_ATTEMPTS, Kind, WorkerProcess, database_step, request_intake
from workers.requests import Call, Handlers, Requests

CONCURRENCY = 1000
TASKS_HELD = 50

HOUR_S = 3600


@dataclass(frozen=True)
class LoginRoom:
    """The stores and rules of a login worker."""

    config: Config
    users: Users
    groups: Groups
    group_catalogue: GroupCatalogue
    policies: PolicyWatch
    permissions: Permissions
    audit: Audit
    tickets: Tickets
    sessions: Sessions
    board: MatchBoard
    tasks: Tasks
    notifications: Notifications
    identifiers: Identifiers
    tokens: Tokens
    hashing: Hashing
    admission: Admission
    overflow: Overflow
    origins: Origins
    caution: Caution
    registrations: Attempts
    refused_registrations: Attempts


handlers: Handlers[LoginRoom] = Handlers("login")


def asker(call: Call[Any]) -> Asker:
    """The connection that asks."""
    return Asker(call.envelope.origin, call.envelope.sent_ms)


def assemble(process: WorkerProcess) -> Kind:
    """The parts of a login worker process. Raises ConfigError."""
    # Registers the handlers, which need this module.
    from workers.login import permissions, raising, registration, signing_in, waiting  # noqa: F401, PLC0415

    config = process.config
    if not config.database.url:
        raise ConfigError("database.url: a worker started alone needs a database; `lobbyctl up` embeds one")
    database = Database(config.database.url)
    opens_at = opening_ms(config.login.opens_at)
    # A connection each, since they keep to a clock: behind requests, or each other, they would be late.
    admitting, walking = process.connect_wire(), process.connect_wire()
    settings, login = AdmissionSettings(walking), config.login
    admission = Admission(_tickets(process, admitting, opens_at), process.outbox, login.finalize_deadline_s)
    room = _room(process, database, admission, opens_at)
    configure = partial(
        settings.configure, login.admit_rate, login.pod_count, login.max_wait_factor, opens_at
    )
    walked = _tickets(process, walking, opens_at)
    survey = Survey(walked, process.outbox, admission, process.boot_id, settings, configure)
    auditing = Auditing(room.audit, database, process.boot_id, config.audit.keep_s)
    process.exporter.add(auditing.figures)
    key_ring = KeyRing(database, process.secrets)
    hear = raising.Raising(room, Raises(process.wire, login.ticket_ttl_s)).hear

    async def open_key_ring() -> None:
        await key_ring.open()
        process.daemon.watch(key_ring.run(), "key ring")

    async def read_policies() -> None:
        await room.policies.recent()  # before a crowd comes of whom each would ask for them

    async def register_handlers() -> None:
        handlers.check()

    async def start_admission() -> None:
        process.daemon.watch(room.admission.run(), "admission")
        process.daemon.watch(survey.run(), "survey")
        process.daemon.watch(auditing.run(), "auditing")

    async def stop_hashing() -> None:
        room.hashing.close()

    return Kind(
        [
            request_intake(config, _requests(process, room), CONCURRENCY),
            bus_intake("login", hear, TASKS_HELD),
        ],
        before=[
            database_step(config.database.url, database),
            Step("key ring", open_key_ring, attempts=STEP_ATTEMPTS),
            Step("admission settings", configure, stop_hashing, attempts=STEP_ATTEMPTS),
            Step("policies", read_policies, attempts=STEP_ATTEMPTS),
            Step("handler registration", register_handlers),
        ],
        after=[Step("admission", start_admission)],
    )


def _tickets(process: WorkerProcess, wire: Wire, opens_at: int) -> Tickets:
    login, draw = process.config.login, Draw(process.secrets, opens_at)
    return Tickets(wire, login.ticket_ttl_s, login.max_wait_factor, draw)


def _room(process: WorkerProcess, database: Database, admission: Admission, opens_at: int) -> LoginRoom:
    config, wire, secrets = process.config, process.wire, process.secrets
    login, limits = config.login, config.limits
    tickets = _tickets(process, wire, opens_at)
    users, groups = Users(database, wire, secrets), Groups(database, wire)
    policies, audit = PolicyWatch(Policies(database, wire)), Audit(wire)
    return LoginRoom(
        config=config,
        users=users,
        groups=groups,
        group_catalogue=GroupCatalogue(database, wire),
        policies=policies,
        permissions=Permissions(wire, policies, groups, users.role_of),
        audit=audit,
        tickets=tickets,
        sessions=Sessions(wire, config.auth.refresh_token_ttl_s, login.ticket_ttl_s),
        board=MatchBoard(wire),
        tasks=Tasks(wire, QueueServer(process.redis), keep_s=config.portal.result_ttl_s),
        notifications=Notifications(database),
        identifiers=Identifiers(secrets),
        tokens=Tokens(secrets, config.auth.access_token_ttl_s),
        hashing=Hashing(config.auth, limits.passwords_per_ip),
        admission=admission,
        overflow=Overflow(tickets, admission, login.max_queue_length),
        origins=Origins(secrets),
        caution=Caution(
            Logins(wire, limits.login_attempts_per_minute, limits.failed_logins_per_ip_per_minute),
            audit,
            Attempts(wire, "risk-told", 1, HOUR_S),
            limits,
        ),
        registrations=Attempts(wire, "registration", limits.registrations_per_ip_per_hour, HOUR_S),
        refused_registrations=Attempts(
            wire, "refused-registration", limits.refused_registrations_per_ip_per_hour, HOUR_S
        ),
    )


def _requests(process: WorkerProcess, room: LoginRoom) -> Requests[LoginRoom]:
    """The way of requests to the handlers, past the gate."""
    gate = Gate(Permissions(process.wire, room.policies, room.groups, room.users.role_of, WhenFull.COUNT))
    return Requests(handlers, room, process.outbox, process.seals, gate.let_in)
