"""Submits: 16 clients, each with its own connection and key, as fast as they are answered."""

from __future__ import annotations

from itertools import cycle

from benchmarks.colony import Executor, stage
from benchmarks.connection import connect
from benchmarks.meter import Meter
from benchmarks.place import Place, Server
from benchmarks.rows import Row, latencies
from benchmarks.workers import Submitter, Tally, window

CLIENTS = 16
POOL = 2_000
WARMUP_S = 1.0


async def measure(place: Place) -> list[Row]:
    """One run on a fresh server."""
    async with place.server() as server:
        clients = await stage(server, CLIENTS)
        return [await run(place, server, clients, f"submit/{CLIENTS}")]


async def run(place: Place, server: Server, clients: list[Executor], name: str) -> Row:
    """The load itself, against any server that answers."""
    tally, meter = Tally(), Meter(server)
    pools = [client.submits(POOL) for client in clients]
    connections = await connect(server.port, len(clients))
    for connection, pool in zip(connections, pools, strict=True):
        Submitter(connection, cycle(pool), tally).start()
    used = await window(tally, meter, WARMUP_S, place.span_s)
    for connection in connections:
        connection.close()
    metrics = {"rate_s": tally.count / used.wall_s, **latencies("", tally.taken)}
    metrics["failures"] = tally.failures.total()
    return Row(name=name, metrics={**metrics, **used.metrics(tally.count)}, notes=tally.notes())
