"""What seals cost: lifecycles of sealed requests against plain ones, in turns, in one run."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import chain
from statistics import fmean

from benchmarks import sealing
from benchmarks.cases import lifecycle
from benchmarks.colony import Executor, stage
from benchmarks.connection import connect
from benchmarks.meter import Meter
from benchmarks.place import Place
from benchmarks.rows import Row, latencies
from benchmarks.sealing import Sealer
from benchmarks.wire import Key, spec
from benchmarks.workers import Lifecycle, Tally, window

WORKERS = (16, 64)
TURNS = ("plain", "sealed", "sealed", "plain")
SUBMITS_S = 6_000
"""Each submit is another: so many are signed for each second of the window."""
POLL_S = 10
MARGIN_S = 2.0


async def measure(place: Place) -> list[Row]:
    """Plain, sealed, sealed, plain; each on a fresh server."""
    rows: list[Row] = []
    for count in WORKERS:
        turns = [await _turn(place, count, kind) for kind in TURNS]
        rows += turns[:2]
        rates = [row.metrics["rate_s"] for row in turns]
        ratio = (rates[1] + rates[2]) / (rates[0] + rates[3])
        metrics = {"ratio": ratio, "sealed_s": fmean(rates[1:3]), "plain_s": fmean(rates[::3])}
        rows.append(Row(name=f"sealed/{count}", metrics=metrics))
    return rows


async def _turn(place: Place, count: int, kind: str) -> Row:
    async with place.server() as server:
        workers = await stage(server, count)
        name = f"sealed/{count}/{kind}"
        if kind == "plain":
            return await lifecycle.run(place, server, workers, name)
        sealer = Sealer(server)
        submits = int(SUBMITS_S * (place.span_s + MARGIN_S)) // count
        tally, meter = Tally(), Meter(server)
        connections = await connect(server.port, count)
        loads = [
            Lifecycle(
                connection,
                iter(_submits(sealer, worker, submits)),
                _polls(sealer, worker, submits),
                partial(_close, sealer, worker.key),
                tally,
            )
            for worker, connection in zip(workers, connections, strict=True)
        ]
        for load in loads:
            load.start()
        used = await window(tally, meter, lifecycle.WARMUP_S, place.span_s)
        for connection in connections:
            connection.close()
        metrics = {"rate_s": tally.count / used.wall_s, **latencies("", tally.taken)}
        metrics["failures"] = tally.failures.total()
        return Row(name=name, metrics={**metrics, **used.metrics(tally.count)}, notes=tally.notes())


def _polls(sealer: Sealer, worker: Executor, count: int) -> Iterator[bytes]:
    series = count // sealing.GRANTS + 1
    return chain.from_iterable(
        [sealer.standing(worker.key, worker.colony, POLL_S) for _ in range(series)]
    )


def _submits(sealer: Sealer, worker: Executor, count: int) -> list[bytes]:
    return [
        sealer.call(worker.key, "submitfuncspecmsg", spec=spec(worker.colony, worker.kind, serial))
        for serial in range(count)
    ]


def _close(sealer: Sealer, key: Key, reply: bytes) -> bytes:
    return sealer.close(key, sealing.granted(reply))
