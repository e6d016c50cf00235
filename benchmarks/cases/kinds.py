"""What each kind of request costs: one kind at a time, 16 connections, all signed in advance.

`kinds/empty-poll` finds no work and does not wait; `kinds/get` reads closed processes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from benchmarks.colony import Executor, stage
from benchmarks.connection import Connection, connect
from benchmarks.meter import Meter
from benchmarks.place import Place, Server
from benchmarks.rows import Row, latencies
from benchmarks.wire import process_id
from benchmarks.workers import Tally

WORKERS = 16
COUNT = 16_000
EACH = COUNT // WORKERS
WARMUP = 20


async def measure(place: Place) -> list[Row]:
    """One run of all kinds, each on what the one before has left."""
    async with place.server() as server:
        workers = await stage(server, WORKERS)
        connections = await connect(server.port, WORKERS)
        load = Load(server, connections)
        await load.send("warm-up", [worker.submits(WARMUP) for worker in workers])
        await load.send("warm-up", [[worker.poll(1)] * WARMUP for worker in workers])
        submits = [worker.submits(EACH) for worker in workers]
        rows = [await load.send("submit", submits)]
        rows.append(await load.send("assign", [[worker.poll(1)] * EACH for worker in workers]))
        taken = load.bodies
        rows.append(await load.send("close", _each(workers, taken, "close")))
        rows.append(await load.send("get", _each(workers, taken, "get")))
        polls = [[worker.poll(-1)] * EACH for worker in workers]
        rows.append(await load.send("empty-poll", polls, expected=404))
    return rows


def _each(workers: list[Executor], taken: list[list[bytes]], kind: str) -> list[list[bytes]]:
    made: list[list[bytes]] = []
    for worker, bodies in zip(workers, taken, strict=True):
        ids = [process_id(body) for body in bodies]
        key = worker.key
        if kind == "close":
            made.append([key.close(process) for process in ids])
        else:
            made.append([key.call("getprocessmsg", processid=process.decode()) for process in ids])
    return made


class Load:
    """Sends lists of requests, one list a connection; keeps the bodies of the answers."""

    def __init__(self, server: Server, connections: list[Connection]) -> None:
        self.bodies: list[list[bytes]] = []
        self._server = server
        self._connections = connections

    async def send(self, kind: str, requests: list[list[bytes]], expected: int = 200) -> Row:
        """All of them; the row says what one cost."""
        tally, meter = Tally(), Meter(self._server, kind)
        tally.is_counting = True
        self.bodies = [[] for _ in requests]
        senders = [
            _Sender(connection, iter(mine), tally=tally, expected=expected, bodies=bodies)
            for connection, mine, bodies in zip(
                self._connections, requests, self.bodies, strict=True
            )
        ]
        meter.start()
        for sender in senders:
            sender.start()
        await asyncio.gather(*(sender.is_done.wait() for sender in senders))
        used = meter.stop()
        metrics = {"rate_s": tally.count / used.wall_s, **latencies("", tally.taken)}
        metrics["failures"] = float(tally.failures.total())
        metrics.update(used.metrics(max(tally.count, 1)))
        return Row(name=f"kinds/{kind}", metrics=metrics, notes=tally.notes())


class _Sender:
    """Sends one list over one connection."""

    def __init__(
        self,
        connection: Connection,
        requests: Iterator[bytes],
        *,
        tally: Tally,
        expected: int,
        bodies: list[bytes],
    ) -> None:
        self.is_done = asyncio.Event()
        self._connection = connection
        self._requests = requests
        self._tally = tally
        self._expected = expected
        self._bodies = bodies
        self._sent = 0.0

    def start(self) -> None:
        """Send the next."""
        request = next(self._requests, None)
        if request is None:
            self.is_done.set()
            return
        self._sent = time.perf_counter()
        self._connection.send(request, self._answered)

    def _answered(self, status: int, body: bytes) -> None:
        if status == self._expected:
            self._tally.done(time.perf_counter() - self._sent)
            self._bodies.append(body)
        else:
            self._tally.fail(status, body)
        self.start()
