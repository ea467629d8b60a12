"""What each hop of a request takes of the processors: steadier than a rate where others use them too."""

from collections import defaultdict
from collections.abc import Mapping

import psutil

from bench.harness import rounded
from bench.system import System


class Hops:
    """CPU of a system's processes, one kind together, and of the load generator, since it was made."""

    def __init__(self, system: System) -> None:
        self._processes = {name: psutil.Process(pid) for name, pid in system.processes.pids.items()}
        self._processes["generator"] = psutil.Process()
        self._before_s = self._used_s()

    def each_us(self, what: str, count: int) -> Mapping[str, float]:
        """Microseconds a piece of `count` pieces of work, by figure: of those hops that took part."""
        figures = {}
        for hop, used_s in self._used_s().items():
            us = (used_s - self._before_s[hop]) / count * 1e6
            if us >= 1:
                figures[f"{what}_{hop}_cpu_us"] = rounded(us)
        return figures

    def _used_s(self) -> Mapping[str, float]:
        used_s: dict[str, float] = defaultdict(float)
        for name, process in self._processes.items():
            times = process.cpu_times()
            used_s[name.partition("-")[0].rstrip("0123456789").lower()] += times.user + times.system
        return used_s
