"""Lifecycles: C workers, each an executor that submits, takes whatever comes, and closes it."""

from __future__ import annotations

from itertools import cycle

from benchmarks.colony import Executor, stage
from benchmarks.connection import connect
from benchmarks.meter import Meter
from benchmarks.place import Place, Server
from benchmarks.rows import Row, latencies
from benchmarks.workers import Lifecycle, Tally, window

WORKERS = (16, 64)
SUBMITS = 20_000
POLL_S = 10
WARMUP_S = 1.0


async def measure(place: Place) -> list[Row]:
    """One run for each number of workers, on a fresh server each."""
    rows: list[Row] = []
    for count in WORKERS:
        async with place.server() as server:
            workers = await stage(server, count)
            rows.append(await run(place, server, workers, f"lifecycle/{count}"))
    return rows


async def run(place: Place, server: Server, workers: list[Executor], name: str) -> Row:
    """The load itself, against any server that answers."""
    tally, meter = Tally(), Meter(server)
    pools = [worker.submits(SUBMITS // len(workers)) for worker in workers]
    connections = await connect(server.port, len(workers))
    for worker, connection, pool in zip(workers, connections, pools, strict=True):
        Lifecycle.plain(connection, worker.key, worker.poll(POLL_S), cycle(pool), tally).start()
    used = await window(tally, meter, WARMUP_S, place.span_s)
    for connection in connections:
        connection.close()
    metrics = {"rate_s": tally.count / used.wall_s, **latencies("", tally.taken)}
    metrics["failures"] = tally.failures.total()
    return Row(name=name, metrics={**metrics, **used.metrics(tally.count)}, notes=tally.notes())
