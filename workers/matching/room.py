"""What the matching worker's handlers work with, and how its process is put together."""

from dataclasses import dataclass

from runtime.config import ConfigError
from runtime.daemon import Step
from runtime.settings import MatchingSettings, RankingSettings
from storage.database import Database
from storage.games import Games
from storage.matches import DIFFICULTIES, MatchBoard, Matches
from storage.whereabouts import Whereabouts
from workers.gate import Gate, open_gate
from workers.hearing import bus_intake
from workers.matching.book import Book
from workers.matching.crowd import Crowd, widening
from workers.matching.matchmaker import Matchmaker
from workers.matching.messenger import Messenger
from workers.matching.pairing import Widening
from workers.matching.skills import Skills
from workers.process import Kind, WorkerProcess, database_step, request_intake
from workers.requests import Handlers, Requests

CONCURRENCY = 2000
LOGINS_HELD = 200


@dataclass(frozen=True)
class MatchingRoom:
    """The stores and rules of a matching worker."""

    matches: Matches
    board: MatchBoard
    matchmaker: Matchmaker
    book: Book
    skills: Skills
    gate: Gate
    ranking: RankingSettings


handlers: Handlers[MatchingRoom] = Handlers("game")
"""The worker is called for what it does, its requests and their queues for what they are about."""


def widenings(settings: MatchingSettings) -> dict[str, Widening]:
    """How the search of each difficulty widens. Raises ConfigError."""
    found = {}
    for difficulty in DIFFICULTIES:
        text: str = getattr(settings, difficulty)
        try:
            found[difficulty] = widening(text)
        except ValueError as error:
            raise ConfigError(f"matching.{difficulty}: {error}, got {text!r}") from None
    return found


def assemble(process: WorkerProcess) -> Kind:
    """The parts of a matching worker process. Raises ConfigError."""
    # Registers the handlers, which need this module.
    from workers.matching import finishing, joining, matching  # noqa: F401, PLC0415

    config, wire, outbox = process.config, process.wire, process.outbox
    if not config.database.url:
        raise ConfigError("database.url: a worker started alone needs a database; `lobbyctl up` embeds one")
    database = Database(config.database.url)
    games, board = Games(database), MatchBoard(wire)
    matches = Matches(wire, config.matching.session_ttl_s)
    by_skill = frozenset(config.matching.by_skill)
    skills = Skills(games, by_skill)
    whereabouts = Whereabouts(wire)
    book = Book(games, matches, board, outbox, skills, whereabouts, leads=lambda: matchmaker.sweeps)
    crowd = Crowd(widenings(config.matching), by_skill)
    messenger = Messenger(outbox, matches, book.write)
    matchmaker = Matchmaker(matches, board, crowd, messenger, process.boot_id)
    gate = open_gate(database, wire, process.secrets)
    room = MatchingRoom(matches, board, matchmaker, book, skills, gate, config.ranking)
    hear = joining.Joining(room, messenger, whereabouts).hear

    async def register_handlers() -> None:
        handlers.check()

    async def start_matching() -> None:
        process.daemon.watch(matchmaker.run(), "matchmaker")
        process.daemon.watch(book.run(), "book")
        process.daemon.watch(book.look_after(), "look after")

    return Kind(
        [
            request_intake(config, Requests(handlers, room, outbox, process.seals, gate.let_in), CONCURRENCY),
            bus_intake("matching", hear, LOGINS_HELD),
        ],
        before=[
            database_step(config.database.url, database),
            Step("handler registration", register_handlers),
            # Before reading begins and after it ends: what is read is answered by the matchmaker.
            Step("matchmaker", start_matching, matchmaker.stop),
        ],
    )
