"""How busy server, generator and everyone else were while something was measured."""

from __future__ import annotations

import gc
import math
import time

from benchmarks.machine import Busy, busy, cpu_seconds
from benchmarks.place import Server
from benchmarks.rows import Row

SHORTEST_S = 0.05  # the kernel counts what others use in steps of 10 ms a core
DISTURBED_CORES = 0.15  # more than this taken by others: the figure is flagged and tried again


class Meter:
    """Measures between `start` and `stop`; the collector of the generator rests meanwhile."""

    __slots__ = ("_busy", "_generator", "_pid", "_profiler", "_server", "_wall")

    def __init__(self, server: Server) -> None:
        self._pid = server.pid
        self._profiler = server.profiler
        self._wall = 0.0
        self._server = 0.0
        self._generator = 0.0
        self._busy = Busy(0.0, 0.0)

    def start(self) -> None:
        """Begin."""
        if self._profiler is not None:
            self._profiler.start()
        gc.collect()
        gc.freeze()
        gc.disable()
        self._busy = busy()
        self._server = cpu_seconds(self._pid)
        self._generator = time.process_time()
        self._wall = time.perf_counter()

    def stop(self) -> Used:
        """End, and what was used."""
        wall = time.perf_counter() - self._wall
        generator = time.process_time() - self._generator
        server = cpu_seconds(self._pid) - self._server
        now = busy()
        gc.enable()
        gc.unfreeze()
        if self._profiler is not None:
            self._profiler.stop()
        others = now.work_s - self._busy.work_s - server - generator
        return Used(wall, server, generator, max(0.0, others), now.steal_s - self._busy.steal_s)


class Used:
    """Seconds of wall time, and of CPU by whom."""

    __slots__ = ("generator_s", "others_s", "server_s", "steal_s", "wall_s")

    def __init__(
        self, wall_s: float, server_s: float, generator_s: float, others_s: float, steal_s: float
    ) -> None:
        self.wall_s = wall_s
        self.server_s = server_s
        self.generator_s = generator_s
        self.others_s = others_s
        self.steal_s = steal_s

    def metrics(self, operations: int = 0) -> dict[str, float]:
        """Cores that each kept busy on average, and CPU an operation."""
        wall = max(self.wall_s, 1e-9)
        found = {
            "wall_s": self.wall_s,
            "server_cores": self.server_s / wall,
            "generator_cores": self.generator_s / wall,
            "others_cores": self.others_s / wall,
            "steal_cores": self.steal_s / wall,
        }
        if operations:
            found["server_us_each"] = self.server_s / operations * 1e6
            found["generator_us_each"] = self.generator_s / operations * 1e6
        return found


def disturbance(row: Row) -> float:
    """Cores that others took; 0 where the time was too short for the kernel's clock to tell."""
    others = row.metrics.get("others_cores", 0.0)
    seconds = row.metrics.get("wall_s", math.inf) * others
    return others if seconds > SHORTEST_S else 0.0


def is_quiet(span_s: float = 1.0) -> bool:
    """Whether the rest of the machine leaves the cores alone just now."""
    before, mine = busy(), time.process_time()
    time.sleep(span_s)
    others = busy().work_s - before.work_s - (time.process_time() - mine)
    return others / span_s < DISTURBED_CORES


def wait_for_quiet(patience_s: float) -> bool:
    """Wait for a quiet second; False when patience ended first."""
    until = time.monotonic() + patience_s
    while not is_quiet():
        if time.monotonic() > until:
            return False
    return True
