"""Drain: a queue filled in advance, then 16 workers take and close. The rate must not depend on B.

A small backlog is filled and drained many times over, so that each rate rests on enough processes.
`rate_s` leaves out the first and the last 16 closes of each draining, when not all workers are
busy: at 100 they would make the small backlog look slow and so the ratio good (`whole_rate_s` has
them). At a large backlog the first tenth is shown apart (`head_rate_s`): the rate while the queue
is still long. The ratio takes the lower of the two.
"""

from __future__ import annotations

import asyncio
import time

from benchmarks.colony import Executor, stage
from benchmarks.connection import Connection, connect, send_all
from benchmarks.meter import Meter
from benchmarks.place import Place, Server
from benchmarks.rows import Row
from benchmarks.workers import Drain, Tally

BACKLOGS = (100, 1_000, 10_000, 50_000)
LEAST_PROCESSES = 5_000
LEAST_HEAD = 1_000
WORKERS = 16
FILLERS = 64
POLL_S = 1
WARMUP_ROUNDS = 5


async def measure(place: Place) -> list[Row]:
    """One run of each backlog on a fresh server each, and the ratio of the largest to the first."""
    rows = [await _backlog(place, size) for size in BACKLOGS]
    slowest = min(rows[-1].metrics["rate_s"], rows[-1].metrics["head_rate_s"])
    ratio = slowest / rows[0].metrics["rate_s"]
    others = max(row.metrics["others_cores"] for row in rows)
    metrics = {"ratio": ratio, "others_cores": others}
    return [*rows, Row(name=f"drain/{BACKLOGS[-1]}:{BACKLOGS[0]}", metrics=metrics)]


async def _backlog(place: Place, size: int) -> Row:
    async with place.server() as server:
        workers = await stage(server, WORKERS)
        connections = await connect(server.port, WORKERS)
        fill = workers[0].submits(size)
        small = fill[: min(size, BACKLOGS[0])]
        for _ in range(WARMUP_ROUNDS):
            await _round(server, workers, connections, small)
        rounds = [
            await _round(server, workers, connections, fill)
            for _ in range(max(1, LEAST_PROCESSES // size))
        ]
    return Row(name=f"drain/{size}", metrics=_metrics(rounds), notes=_notes(rounds))


def _notes(rounds: list[_Drained]) -> tuple[str, ...]:
    return tuple(note for each in rounds for note in each.tally.notes())[:3]


def _metrics(rounds: list[_Drained]) -> dict[str, float]:
    total = sum(each.size for each in rounds)
    seconds = sum(each.whole_s for each in rounds)
    metrics = {
        "rate_s": sum(each.steady_count for each in rounds) / sum(each.steady_s for each in rounds),
        "head_rate_s": sum(each.head_count for each in rounds)
        / sum(each.head_s for each in rounds),
        "whole_rate_s": total / seconds,
        "fill_rate_s": total / sum(each.fill_s for each in rounds),
        "failures": float(sum(each.tally.failures.total() for each in rounds)),
        "wall_s": seconds,
    }
    for name in ("server_cores", "loop_cores", "generator_cores", "others_cores"):
        metrics[name] = sum(each.used[name] * each.whole_s for each in rounds) / seconds
    metrics["server_us_each"] = metrics["server_cores"] * seconds / total * 1e6
    return metrics


class _Drained:
    """One filling and draining: the moments of its closes."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.tally = Tally()
        self.fill_s = 0.0
        self.used: dict[str, float] = {}
        self.is_empty = asyncio.Event()
        self._closed: list[float] = []
        self._start = 0.0

    def begin(self) -> None:
        """The queue is full, the workers start."""
        self._start = time.perf_counter()

    def one(self) -> None:
        """One more is closed."""
        self._closed.append(time.perf_counter())
        if len(self._closed) == self.size:
            self.is_empty.set()

    @property
    def whole_s(self) -> float:
        """From the first request to the last close."""
        return self._closed[-1] - self._start

    @property
    def steady_count(self) -> int:
        """Closes while all workers were busy."""
        return self.size - 2 * WORKERS

    @property
    def steady_s(self) -> float:
        """The time that these took."""
        return self._closed[self.size - WORKERS - 1] - self._closed[WORKERS - 1]

    @property
    def head_count(self) -> int:
        """Closes while the queue was still long."""
        return max(self.size // 10, min(self.size, LEAST_HEAD)) - WORKERS

    @property
    def head_s(self) -> float:
        """The time that these took."""
        return self._closed[self.head_count + WORKERS - 1] - self._closed[WORKERS - 1]


async def _round(
    server: Server, workers: list[Executor], connections: list[Connection], fill: list[bytes]
) -> _Drained:
    found = _Drained(len(fill))
    start = time.perf_counter()
    await send_all(server.port, fill, FILLERS)
    found.fill_s = time.perf_counter() - start
    tickets, meter = iter(range(len(fill))), Meter(server)
    drains = [
        Drain(
            connection,
            worker.key,
            worker.poll(POLL_S),
            tickets=tickets,
            tally=found.tally,
            on_close=found.one,
        )
        for worker, connection in zip(workers, connections, strict=True)
    ]
    meter.start()
    found.begin()
    for drain in drains:
        drain.start()
    await found.is_empty.wait()
    found.used = meter.stop().metrics()
    return found
