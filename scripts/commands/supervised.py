"""Workers of `lobbyctl up` that come and go: children of its supervisor."""

from collections.abc import Callable, Sequence

from scripts.commands.child import Child, Failed
from scripts.commands.programs import Programs
from scripts.commands.scaler import CannotAct
from scripts.commands.supervisor import Supervisor


class Supervised:
    """Starts and ends workers beside those that the supervisor keeps alive."""

    def __init__(self, supervisor: Supervisor, programs: Programs, ended: Callable[[], None]) -> None:
        """`ended` is called when a worker has ended."""
        self._supervisor = supervisor
        self._programs = programs
        self._ended = ended

    def named(self, worker_id: str) -> str:
        """A worker's own name."""
        return worker_id

    async def workers(self, kind: str) -> Sequence[str]:
        """The children that are of a kind, the first ones first."""
        return [child.process_id for child in self._children(kind)]

    async def start(self, worker_id: str) -> None:
        """Start a worker, and wait until it is ready. Raises CannotAct."""
        kind, _, number = worker_id.rpartition("-")
        beside = self._children(kind)
        if not beside:
            raise CannotAct(f"there is no {kind} worker here that it could stand beside")
        try:
            await self._supervisor.add(self._programs.worker(kind, int(number)), beside=beside[0])
        except Failed as error:
            raise CannotAct(" ".join([str(error), *error.words])) from None

    async def end(self, worker_id: str) -> None:
        """Have a worker end, and wait until it has."""
        for child in self._children(worker_id.rpartition("-")[0]):
            if child.process_id == worker_id:
                await self._supervisor.end(child)
                self._ended()

    def _children(self, kind: str) -> list[Child]:
        numbered = [
            (int(number), child)
            for child in self._supervisor.children
            for name, _, number in [child.process_id.rpartition("-")]
            if name == kind
        ]
        return [child for _, child in sorted(numbered, key=lambda each: each[0])]
