"""How busy server, generator and everyone else were while something was measured."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.machine import Busy, LoopThread, busy, cpu_seconds, family, loop_thread
from benchmarks.place import Server
from benchmarks.rows import Row

SHORTEST_S = 0.5  # the kernel counts busy time in steps of 10 ms a core, and belatedly
DISTURBED_CORES = 0.15  # more than this taken by others: the figure is flagged and tried again


class Meter:
    """Measures between `start` and `stop`; the collector of the generator rests meanwhile."""

    __slots__ = (
        "_beside",
        "_busy",
        "_generator",
        "_loop",
        "_name",
        "_pid",
        "_profiler",
        "_server",
        "_wall",
    )

    def __init__(
        self, server: Server, name: str = "run", *, beside: Mapping[str, int] | None = None
    ) -> None:
        """`name` is for the file of a profile; `beside`: other processes that belong to it."""
        self._name = name
        self._beside = {each: (pid, 0.0) for each, pid in (beside or {}).items()}
        self._pid = server.pid
        self._profiler = server.profiler
        self._wall = 0.0
        self._server: dict[int, float] = {}
        self._generator = 0.0
        self._busy = Busy(0.0, 0.0)
        self._loop = LoopThread(0.0, 0.0)

    def start(self) -> None:
        """Begin."""
        if self._profiler is not None:
            self._profiler.start(self._name)
        gc.collect()
        gc.freeze()
        gc.disable()
        self._busy = busy()
        self._server = {pid: cpu_seconds(pid) for pid in family(self._pid)}
        self._loop = loop_thread(self._pid)
        for name, (pid, _) in self._beside.items():
            self._beside[name] = (pid, cpu_seconds(pid))
        self._generator = time.process_time()
        self._wall = time.perf_counter()

    def stop(self) -> Used:
        """End, and what was used."""
        wall_s = time.perf_counter() - self._wall
        generator_s = time.process_time() - self._generator
        server_s = sum(cpu_seconds(pid) - self._server.get(pid, 0.0) for pid in family(self._pid))
        loop = loop_thread(self._pid)
        beside = {name: cpu_seconds(pid) - was for name, (pid, was) in self._beside.items()}
        now = busy()
        gc.enable()
        gc.unfreeze()
        if self._profiler is not None:
            self._profiler.stop()
        known_s = server_s + generator_s + sum(beside.values())
        others_s = now.work_s - self._busy.work_s - known_s
        return Used(
            wall_s=wall_s,
            server_s=server_s,
            loop_s=loop.work_s - self._loop.work_s,
            queued_s=loop.queued_s - self._loop.queued_s,
            generator_s=generator_s,
            others_s=max(0.0, others_s),
            steal_s=now.steal_s - self._busy.steal_s,
            beside=beside,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """Seconds of wall time, and of CPU by whom.

    Of the server's, `loop_s` went to the event loop's thread; `queued_s` it waited for a core.
    """

    wall_s: float
    server_s: float
    loop_s: float
    queued_s: float
    generator_s: float
    others_s: float
    steal_s: float
    beside: Mapping[str, float]

    def metrics(self, operations: int = 0) -> dict[str, float]:
        """Cores that each kept busy on average, and CPU an operation."""
        wall = max(self.wall_s, 1e-9)
        found = {
            "wall_s": self.wall_s,
            "server_cores": self.server_s / wall,
            "loop_cores": self.loop_s / wall,
            "loop_queued_cores": self.queued_s / wall,
            "generator_cores": self.generator_s / wall,
            "others_cores": self.others_s / wall,
            "steal_cores": self.steal_s / wall,
        }
        if operations:
            found["server_us_each"] = self.server_s / operations * 1e6
            found["loop_us_each"] = self.loop_s / operations * 1e6
            found["generator_us_each"] = self.generator_s / operations * 1e6
            for name, seconds in self.beside.items():
                found[f"{name}_us_each"] = seconds / operations * 1e6
        return found


def disturbance(row: Row) -> float:
    """Cores that others took; 0 where the time was too short for the kernel's clock to tell."""
    if row.metrics.get("wall_s", math.inf) < SHORTEST_S:
        return 0.0
    return row.metrics.get("others_cores", 0.0)


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
