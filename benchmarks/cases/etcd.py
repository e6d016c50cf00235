"""The server on etcd, which runs beside it on the same cores.

One node: lifecycles, round trips. Two nodes against one in the same run, with the CPU of each part
and how many assigns met an assign of the other node. The restart of a node on 100 000 processes
that wait: how soon it is ready, and what each takes in memory beyond its spec.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
from itertools import cycle
from pathlib import Path

from benchmarks.cases import lifecycle, roundtrip
from benchmarks.cluster import EtcdPlace, figures, on_etcd
from benchmarks.colony import Executor, stage
from benchmarks.connection import Connection, connect, send_all
from benchmarks.machine import family, resident_kb
from benchmarks.meter import Meter
from benchmarks.place import Place, Server
from benchmarks.rows import Row, latencies
from benchmarks.wire import HEALTH, Key
from benchmarks.workers import Lifecycle, Tally, window

WORKERS = 32
PAIRS = 3
WAITING = int(os.environ.get("BENCHMARK_WAITING", "100000"))
FILLERS = 64
SUBMITS_AT_ONCE = 10_000


async def measure(place: Place) -> list[Row]:
    """One run, each on an etcd with nothing in it."""
    rows: list[Row] = []
    async with on_etcd(place) as etcd:
        for count in lifecycle.WORKERS:
            async with etcd.nodes(1) as (server,):
                workers = await stage(server, count)
                rows.append(await _load(etcd, [server], workers, f"etcd/lifecycle-{count}"))
        rows += await _roundtrip(etcd)
    async with on_etcd(place) as etcd:
        rows.append(await _two_nodes(etcd))
    async with on_etcd(place) as etcd:
        rows.append(await _restart(etcd))
    return rows


async def _load(etcd: EtcdPlace, servers: list[Server], workers: list[Executor], name: str) -> Row:
    """Workers spread over nodes; each submits, takes whatever comes, closes it."""
    tally = Tally()
    beside = {"etcd": etcd.pid, **{f"node{n}": each.pid for n, each in enumerate(servers[1:], 2)}}
    meter = Meter(servers[0], beside=beside)
    connections: list[Connection] = []
    for number, worker in enumerate(workers):
        (connection,) = await connect(servers[number % len(servers)].port, 1)
        connections.append(connection)
        submits = cycle(worker.submits(lifecycle.SUBMITS // len(workers)))
        poll = worker.poll(lifecycle.POLL_S)
        Lifecycle.plain(connection, worker.key, poll, submits, tally).start()
    await asyncio.sleep(lifecycle.WARMUP_S)
    before = await _counted(servers)
    used = await window(tally, meter, 0.0, etcd.span_s)
    after = await _counted(servers)
    for connection in connections:
        connection.close()
    metrics = {"rate_s": tally.count / used.wall_s, **latencies("", tally.taken)}
    conflicts, grants = (now - then for now, then in zip(after, before, strict=True))
    metrics["conflicts_percent"] = 100 * conflicts / max(conflicts + grants, 1)
    metrics["failures"] = tally.failures.total()
    return Row(name=name, metrics={**metrics, **used.metrics(tally.count)}, notes=tally.notes())


async def _counted(servers: list[Server]) -> tuple[float, float]:
    """Assigns that met another node's, and those that were granted, at all nodes."""
    found = [await asyncio.to_thread(figures, server) for server in servers]
    conflicts = sum(each["colonist_assign_conflicts_total"] for each in found)
    return conflicts, sum(each["colonist_grants_total"] for each in found)


async def _roundtrip(etcd: EtcdPlace) -> list[Row]:
    async with etcd.nodes(1) as (server,):
        handover, circle = await roundtrip.on(server, {"etcd": etcd.pid})
    return [
        Row(name="etcd/handover", metrics=handover.metrics, notes=handover.notes),
        Row(name="etcd/circle", metrics=circle.metrics, notes=circle.notes),
    ]


async def _two_nodes(etcd: EtcdPlace) -> Row:
    """One node alone, then two, in turn; the ratio of their medians."""
    alone: list[float] = []
    together: list[Row] = []
    for _ in range(PAIRS):
        async with etcd.nodes(1) as servers:
            workers = await stage(servers[0], WORKERS)
            alone.append((await _load(etcd, servers, workers, "one")).metrics["rate_s"])
        async with etcd.nodes(2) as servers:
            workers = await stage(servers[0], WORKERS)
            together.append(await _load(etcd, servers, workers, "etcd/two-nodes"))
    median = sorted(together, key=lambda row: row.metrics["rate_s"])[PAIRS // 2]
    one = statistics.median(alone)
    metrics = {
        **median.metrics,
        "alone_rate_s": one,
        "ratio": median.metrics["rate_s"] / one,
    }
    return Row(name=median.name, metrics=metrics, notes=median.notes)


async def _restart(etcd: EtcdPlace) -> Row:
    """The same node started on nothing, and on many waiting processes."""
    folder, owner = etcd.folder(), Key()
    server = etcd.start(folder, owner)
    try:
        await asyncio.to_thread(server.first_answer, HEALTH)
        (client,) = await stage(server, 1)
        await asyncio.to_thread(server.stop)
        server, _ = await _started(etcd, folder, owner, client)
        empty_kb = resident_kb(family(server.pid))
        for _ in range(0, WAITING, SUBMITS_AT_ONCE):
            await send_all(server.port, client.submits(SUBMITS_AT_ONCE), FILLERS)
        await asyncio.to_thread(server.stop)
        server, seconds = await _started(etcd, folder, owner, client)
        full_kb = resident_kb(family(server.pid))
        answers = await send_all(server.port, [client.poll(5)])
    finally:
        await asyncio.to_thread(server.stop)
        shutil.rmtree(folder, ignore_errors=True)
    metrics = {
        "ready_s": seconds,
        "bytes_each": (full_kb - empty_kb) * 1024 / WAITING,
        "failures": sum(answer.status != 200 for answer in answers),
    }
    return Row(name=f"etcd/restart-{WAITING}", metrics=metrics)


async def _started(
    etcd: EtcdPlace, folder: Path, owner: Key, client: Executor
) -> tuple[Server, float]:
    server = etcd.start(folder, owner)
    request = client.key.call("getprocessesmsg", colonyname="bench", count=1, state=0)
    return server, await asyncio.to_thread(server.first_answer, request)
