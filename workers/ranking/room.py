"""What the ranking worker's handlers work with, and how its process is put together."""

from dataclasses import dataclass

from protocol.envelope import queue_create
from protocol.queues import QueueType
from runtime.config import ConfigError
from runtime.daemon import Step
from runtime.settings import Config, RankingSettings
from storage import keys
from storage.boards import Boards
from storage.database import Database
from storage.friends import Friends
from storage.games import Games
from storage.matches import MatchBoard
from storage.nicknames import Nicknames
from storage.past_boards import PastBoards
from storage.periods import Calendar
from storage.removals import Removals
from storage.scores import Scores, Submissions
from storage.whereabouts import Whereabouts
from workers.gate import Gate, open_gate
from workers.hearing import bus_intake
from workers.process import Intake, Kind, WorkerProcess, database_step, request_intake
from workers.ranking.freezing import FREEZING_LIMIT_S, Freezing
from workers.ranking.keeping import Keeping
from workers.ranking.pages import Pages
from workers.ranking.results import Results
from workers.ranking.spreading import Spreading
from workers.requests import Handlers, Requests
from workers.telling import Telling

CONCURRENCY = 1000
SCORES_HELD = 2000
"""Accepted scores that one worker takes at most: one batch gathers while the other is kept."""

RESULTS_HELD = 100

SCORE_LIFE_S = 2_592_000.0
"""An accepted score that no worker has taken for a month becomes a dead letter."""


@dataclass(frozen=True)
class RankingRoom:
    """The stores and rules of a ranking worker."""

    settings: RankingSettings
    calendar: Calendar
    submissions: Submissions
    scores: Scores
    boards: Boards
    past: PastBoards
    friends: Friends
    nicknames: Nicknames
    pages: Pages
    games: Games
    matches: MatchBoard
    gate: Gate


handlers: Handlers[RankingRoom] = Handlers("ranking")


def calendar_of(settings: RankingSettings) -> Calendar:
    """The calendar of the configured zone. Raises ConfigError."""
    try:
        return Calendar(settings.time_zone)
    except ValueError as error:
        raise ConfigError(f"ranking.time_zone: {error}") from None


def assemble(process: WorkerProcess) -> Kind:
    """The parts of a ranking worker process. Raises ConfigError."""
    # Registers the handlers, which need this module.
    from workers.ranking import befriending, reading, submitting  # noqa: F401, PLC0415

    url = process.config.database.url
    if not url:
        raise ConfigError("database.url: a worker started alone needs a database; `lobbyctl up` embeds one")
    database = Database(url)
    slow_database = Database(url, pool_size=1, time_limit_s=FREEZING_LIMIT_S)
    room = _room(process, database)
    telling = Telling(Whereabouts(process.wire), process.outbox)
    keeping = Keeping(room.scores, Removals(database), room.boards, room.friends, room.calendar, telling)
    spreading = Spreading(room.boards, room.friends, room.pages, room.calendar, telling)
    freezing = Freezing(PastBoards(slow_database), room.calendar)

    async def register_handlers() -> None:
        handlers.check()

    async def start_keeping() -> None:
        process.daemon.watch(keeping.run(), "keeping")

    async def start_spreading() -> None:
        process.daemon.watch(spreading.run(), "spreading")
        process.daemon.watch(spreading.run_overtaken(), "overtaken")
        process.daemon.watch(freezing.run(), "freezing")

    return Kind(
        intakes=_intakes(process, room, keeping),
        before=[
            database_step(url, database, slow_database),
            Step("handler registration", register_handlers),
            Step("keeping", start_keeping),
        ],
        after=[Step("spreading", start_spreading)],
    )


def _room(process: WorkerProcess, database: Database) -> RankingRoom:
    settings, wire = process.config.ranking, process.wire
    boards, nicknames = Boards(wire, settings.keep_past_s), Nicknames(database, wire)
    return RankingRoom(
        settings=settings,
        calendar=calendar_of(settings),
        submissions=Submissions(wire),
        scores=Scores(database),
        boards=boards,
        past=PastBoards(database),
        friends=Friends(database, wire, settings.max_friends),
        nicknames=nicknames,
        pages=Pages(boards, nicknames),
        games=Games(database),
        matches=MatchBoard(wire),
        gate=open_gate(database, wire, process.secrets),
    )


def _intakes(process: WorkerProcess, room: RankingRoom, keeping: Keeping) -> list[Intake]:
    requests = Requests(handlers, room, process.outbox, process.seals, room.gate.let_in)
    return [
        request_intake(process.config, requests, CONCURRENCY),
        _scores_intake(process.config, keeping),
        bus_intake("ranking", Results(room).hear, RESULTS_HELD),
    ]


def _scores_intake(config: Config, keeping: Keeping) -> Intake:
    """The queue of accepted scores."""
    queue = queue_create(
        handlers.owner,
        keys.SUBMITTED_SCORES,
        QueueType.JOB,
        max_size=config.ranking.submit_max_size,
        expire_s=SCORE_LIFE_S,
    )
    return Intake({keys.SUBMITTED_SCORES: (queue, 1)}, QueueType.JOB, keeping.work, SCORES_HELD)
