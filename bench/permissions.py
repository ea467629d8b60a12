"""Permission checks: how many a second from what was decided before and anew, beside a bare evaluation.

A bare evaluation is one condition of the CEL library on facts that are there. A cached check is one round
trip to the embedded Valkey, which also writes it down. An uncached one is about something that was not asked
about before: the look-ups, the policies and their conditions, and two round trips more. Checks are made
64 at once in one process, as a worker makes them; all three take turns. Then cached ones of one player
over the wire, through one node and one worker. The costliest condition there can be, on the largest
context, shows what a condition can cost at most.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from statistics import median

from bench import harness
from bench.harness import Result, at_least, at_most, rounded
from bench.system import HOST, running_system, start_valkey, temporary_processes
from client import Player
from protocol.messages.iam import MAX_CONTEXT_CHARACTERS, CheckPermission
from storage.connections import connect_wire
from storage.database import Database
from storage.groups import Groups
from storage.keys import AUDIT_PENDING, user
from storage.migrations import migrate
from storage.permissions import Permissions
from storage.policies import Facts, Policies, Policy, PolicyWatch, Question, Rule
from storage.policies.conditions import MAX_CHARACTERS, Circumstances, condition
from storage.wire import Wire

AT_ONCE = 64
TEXT = 'user.role == "VIP" || "VIP_Users" in user.groups'
ANNA = Facts("anna", "VIP", ["VIP"], ["VIP_Users"], ["queue_priority"])
BENCH_POLICY = Policy(
    policy_id="bench", policy_name="Bench", rules=(Rule(action="bench:*", resource="*", condition=TEXT),)
)
PASSWORD = "correct horse battery"
EVALUATIONS = 2_000
"""Between two looks at the clock."""

TIME_LIMIT_S = 180.0

SETTINGS = {"login.admit_rate": 10_000_000, "auth.bcrypt_cost": 4}


def bare_per_second(seconds: float) -> float:
    """Evaluations of one condition in a second."""
    circumstances, text = Circumstances(ANNA, "bench:join", "bench:x", {}), condition(TEXT)
    done, start_s = 0, time.perf_counter()
    while (spent_s := time.perf_counter() - start_s) < seconds:
        for _ in range(EVALUATIONS):
            text.holds(circumstances)
        done += EVALUATIONS
    return done / spent_s


def costliest_ms() -> float:
    """What the costliest condition takes on the largest context."""
    look = "context.s.contains(context.t)"
    most = (MAX_CHARACTERS + 4) // (len(look) + 4)
    text = condition(" || ".join([look] * most))
    half = MAX_CONTEXT_CHARACTERS // 2
    context = {"s": "a" * (half - 2), "t": "a" * (half // 2) + "b"}
    took_s = []
    for _ in range(100):
        start_s = time.perf_counter()
        text.holds(Circumstances(ANNA, "bench:join", "bench:x", context))
        took_s.append(time.perf_counter() - start_s)
    return max(took_s) * 1000


async def per_second(ask: Callable[[], Awaitable[object]], seconds: float) -> float:
    """How often something can be asked in a second, AT_ONCE at a time."""
    done, until_s = 0, time.perf_counter() + seconds

    async def repeat() -> None:
        nonlocal done
        while time.perf_counter() < until_s:
            await ask()
            done += 1

    start_s = time.perf_counter()
    await asyncio.gather(*(repeat() for _ in range(AT_ONCE)))
    return done / (time.perf_counter() - start_s)


@contextlib.asynccontextmanager
async def permissions() -> AsyncIterator[tuple[Permissions, Wire]]:
    """What a worker decides with, on stores of its own, and the connection that it does so over."""
    with temporary_processes() as (directory, processes):
        wire = connect_wire(await start_valkey(directory, processes))
        database = Database(await _migrated(directory))
        policies = Policies(database, wire)
        await policies.put(BENCH_POLICY)
        await wire.execute_command("HSET", user("anna"), "role", "VIP", "status", "ACTIVE")

        async def role_of(_: str) -> str:
            return "VIP"

        yield Permissions(wire, PolicyWatch(policies), Groups(database, wire), role_of), wire
        await wire.aclose()
        await database.close()


async def _migrated(directory: Path) -> str:
    url = f"sqlite+aiosqlite:///{directory}/lobbyd.db"
    await migrate(url)
    return url


async def in_a_worker(rounds: int, seconds: float) -> dict[str, float]:
    """The three kinds in turns: the median of the rounds."""
    numbers = itertools.count()
    found: dict[str, list[float]] = {"bare": [], "cached": [], "uncached": []}
    async with permissions() as (deciding, wire):

        async def again() -> object:
            return await deciding.check("anna", Question("bench:join", "bench:x", {}))

        async def anew() -> object:
            return await deciding.check("anna", Question("bench:join", f"bench:{next(numbers)}", {}))

        await again()
        for _ in range(rounds):
            found["bare"].append(bare_per_second(seconds))
            for name, ask in (("cached", again), ("uncached", anew)):
                found[name].append(await per_second(ask, seconds))
                await wire.execute_command("DEL", AUDIT_PENDING)  # a login worker would have moved it to SQL
    return {name: median(values) for name, values in found.items()}


async def over_the_wire(seconds: float) -> float:
    """Cached checks a second that players get answered through one node and one worker."""
    async with running_system(SETTINGS) as system:
        database = Database(system.database_url)
        wire = connect_wire(system.redis_url)
        await Policies(database, wire).put(BENCH_POLICY)
        asked = CheckPermission(action="bench:join", resource="bench:x")
        try:
            async with Player([(HOST, system.ports[0])]) as player:
                await player.register("bench-player", PASSWORD, "bench@example.com", "bench")
                await player.sign_in("bench-player", PASSWORD)
                return await per_second(partial(player.request, asked), seconds)
        finally:
            await wire.aclose()
            await database.close()


async def measure(rounds: int, seconds: float) -> Result:
    """Run the benchmark: `rounds` of `seconds` for each kind."""
    machine = harness.machine()
    worker = await in_a_worker(rounds, seconds)
    figures = {
        "bare_evaluations_per_s": rounded(worker["bare"]),
        "cached_checks_per_s": rounded(worker["cached"]),
        "uncached_checks_per_s": rounded(worker["uncached"]),
        "cached_to_bare_ratio": rounded(worker["cached"] / worker["bare"]),
        "uncached_to_bare_ratio": rounded(worker["uncached"] / worker["bare"]),
        "cached_checks_over_the_wire_per_s": rounded(await over_the_wire(seconds)),
        "costliest_condition_ms": rounded(costliest_ms()),
    }
    goals = [
        at_least("cached to uncached checks", worker["cached"] / worker["uncached"], 1.5),
        at_most("ms of the costliest condition", figures["costliest_condition_ms"], 10),
    ]
    return Result("permissions", figures, goals, machine)


if __name__ == "__main__":
    parser = harness.arguments("permissions", "Permission checks beside a bare evaluation.")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each kind (default: 5)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a round (default: 2)")
    given = parser.parse_args()
    harness.main(lambda: measure(given.rounds, given.seconds), as_json=given.json, time_limit_s=TIME_LIMIT_S)
