"""Parked executors: what a waiting executor costs, and how soon all of them have work.

For n = 10 ... 10 000: memory (resident, per executor, once all wait and again after the idle time;
the larger counts), CPU of the server in 20 s in which nothing happens but polls of 10 s ending and
beginning anew, then one submit per executor at once.
"""

from __future__ import annotations

import asyncio
import time

from benchmarks.colony import Executor, add_colony, add_executors
from benchmarks.connection import Connection, Reply, connect, send_all
from benchmarks.machine import family, resident_kb
from benchmarks.meter import Meter
from benchmarks.place import Place, Server
from benchmarks.rows import Row, latencies
from benchmarks.wire import process_id
from benchmarks.workers import Parked, Tally

COUNTS = (10, 100, 1_000, 10_000)
POLL_S = 10
IDLE_S = 20.0
SUBMITTERS = 16
WARMUP_EXECUTORS = 10
WARMUP_PROCESSES = 500
SETTLE_S = 1.0
HAND_OVER_TIMEOUT_S = 60.0
PARKING_BATCH = 100


async def measure(place: Place) -> list[Row]:
    """One run for each number, on a fresh server each."""
    return [await _parked(place, count) for count in COUNTS]


async def _parked(place: Place, count: int) -> Row:
    async with place.server() as server:
        owner = await add_colony(server, "bench")
        others = await add_executors(
            server, "bench", owner, WARMUP_EXECUTORS, prefix="w", kind="other"
        )
        await _warm_up(server, others)
        before_kb = resident_kb(family(server.pid))
        executors = await add_executors(server, "bench", owner, count)
        await asyncio.sleep(SETTLE_S)
        registered_kb = resident_kb(family(server.pid))
        crowd = Crowd(executors)
        await crowd.park(server)
        await asyncio.sleep(SETTLE_S)
        parked_kb = resident_kb(family(server.pid))
        meter = Meter(server)
        meter.start()
        await asyncio.sleep(IDLE_S)
        idle = meter.stop()
        idle_kb = resident_kb(family(server.pid))
        metrics = {
            "rss_kb_each": (max(parked_kb, idle_kb) - registered_kb) / count,
            "registered_kb_each": (registered_kb - before_kb) / count,
            "idle_cpu_s": idle.server_s,
            "idle_others_cores": idle.others_s / idle.wall_s,
            "polls": float(crowd.polls),
            **await _hand_over(server, crowd, others[0]),
        }
    metrics["failures"] += crowd.tally.failures.total()
    return Row(name=f"parked/{count}", metrics=metrics, notes=crowd.tally.notes())


async def _warm_up(server: Server, others: list[Executor]) -> None:
    """Let the server load and allocate what any traffic makes it load, long-polls included."""
    submitted = await send_all(server.port, others[0].submits(WARMUP_PROCESSES))
    poll = others[0].poll(1)
    taken = await send_all(server.port, [poll] * len(submitted))
    await send_all(server.port, [others[0].key.close(process_id(r.body)) for r in taken])
    connections = await connect(server.port, len(others))
    await asyncio.gather(*(c.request(e.poll(1)) for c, e in zip(connections, others, strict=True)))
    for connection in connections:
        connection.close()


class Crowd:
    """Many parked executors."""

    def __init__(self, executors: list[Executor]) -> None:
        self.tally = Tally()
        self.got: dict[bytes, float] = {}
        self.twice = 0
        self.connections: list[Connection] = []
        self.all_served = asyncio.Event()
        self._polls = [executor.poll(POLL_S) for executor in executors]
        self._executors = executors
        self._parked: list[Parked] = []

    async def park(self, server: Server) -> None:
        """Connect and long-poll, a batch at a time."""
        for start in range(0, len(self._executors), PARKING_BATCH):
            batch = slice(start, start + PARKING_BATCH)
            made = await connect(server.port, len(self._executors[batch]))
            self.connections += made
            for executor, connection, poll in zip(
                self._executors[batch], made, self._polls[batch], strict=True
            ):
                each = Parked(connection, executor.key, poll, self.tally, self._take)
                self._parked.append(each)
                each.park()

    @property
    def polls(self) -> int:
        """Requests for work so far."""
        return sum(each.polls for each in self._parked)

    def close(self) -> None:
        """Drop all connections."""
        for connection in self.connections:
            connection.close()

    def _take(self, parked: Parked, process: bytes) -> None:
        self.twice += process in self.got
        self.got[process] = time.perf_counter()
        if len(self.got) == len(self._executors):
            self.all_served.set()


async def _hand_over(server: Server, crowd: Crowd, client: Executor) -> dict[str, float]:
    count = len(crowd.connections)
    submits = client.submits(count, kind=crowd._executors[0].kind)  # noqa: SLF001
    sent: dict[bytes, float] = {}
    meter = Meter(server)
    meter.start()
    start = time.perf_counter()
    await _submit_all(server, submits, sent)
    try:
        async with asyncio.timeout(HAND_OVER_TIMEOUT_S):
            await crowd.all_served.wait()
    except TimeoutError:
        crowd.tally.fail(0, b"not everyone was handed work in time")
    used = meter.stop()
    waits = [at - sent[process] for process, at in crowd.got.items()]
    crowd.close()
    last = max(crowd.got.values(), default=start)
    return {
        "all_ms": (last - start) * 1000,
        "handover_rate_s": len(waits) / max(last - start, 1e-9),
        **latencies("wait_", waits),
        "failures": float(count - len(waits) + crowd.twice),
        **used.metrics(count),
    }


async def _submit_all(server: Server, submits: list[bytes], sent: dict[bytes, float]) -> None:
    queue = iter(submits)

    async def run(connection: Connection) -> None:
        for request in queue:
            at = time.perf_counter()
            reply: Reply = await connection.request(request)
            sent[process_id(reply.body)] = at

    connections = await connect(server.port, min(SUBMITTERS, len(submits)))
    await asyncio.gather(*map(run, connections))
    for connection in connections:
        connection.close()
