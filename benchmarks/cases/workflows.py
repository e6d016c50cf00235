"""Workflows: wide ones against plain lifecycles, a chain hop by hop, and very large ones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from itertools import count

from benchmarks.cases import lifecycle
from benchmarks.colony import KIND, Executor, stage
from benchmarks.connection import Connection, connect
from benchmarks.meter import Meter
from benchmarks.place import Place, Server
from benchmarks.rows import Row, latencies
from benchmarks.wire import HEALTH, Json, process_id, reply, spec
from benchmarks.workers import Drain, Tally

WORKERS = 16
WIDE = 1_000
CHAIN = 100
LARGE = 10_000
OPEN = 1_000
POLL_S = 60


async def measure(place: Place) -> list[Row]:
    """All shapes; the plain rate is measured just before the wide ones, on a server as fresh."""
    async with place.server() as server:
        plain = await lifecycle.run(place, server, await stage(server, WORKERS), "plain")
    async with place.server() as server:
        wide = await _wide(place, server)
    wide.metrics["plain_rate_s"] = plain.metrics["rate_s"]
    wide.metrics["ratio"] = wide.metrics["rate_s"] / plain.metrics["rate_s"]
    async with place.server() as server:
        chain = await _chain(place, server)
    rows = [wide, chain]
    for size in (WIDE, LARGE):
        async with place.server() as server:
            rows.append(await _large(server, size))
    smaller, larger = rows[-2:]
    larger.metrics["each_against_1000"] = (
        larger.metrics["run_ms_each"] / smaller.metrics["run_ms_each"]
    )
    async with place.server() as server:
        rows.append(await _open(server))
    return rows


async def _wide(place: Place, server: Server) -> Row:
    """One workflow after another: a root, then so many nodes for all workers at once."""
    workers = await stage(server, WORKERS)
    connections = await connect(server.port, WORKERS)
    tally, meter = Tally(), Meter(server)
    tally.is_counting = True
    done, serials = 0, count()
    requests = [
        _submit(workers[0], _fan_out(workers[0], WIDE, next(serials)))
        for _ in range(max(2, round(place.span_s / 0.4)))
    ]
    began = time.perf_counter()
    meter.start()
    for request in requests:
        done += await _run(workers, connections, request, WIDE + 1, tally)
        if time.perf_counter() - began > place.span_s:
            break
    used = meter.stop()
    metrics = {"rate_s": done / used.wall_s, "failures": tally.failures.total()}
    metrics |= used.metrics(done)
    return Row(name=f"workflows/wide-{WIDE}", metrics=metrics, notes=tally.notes())


async def _run(
    workers: Sequence[Executor],
    connections: Sequence[Connection],
    request: bytes,
    size: int,
    tally: Tally,
) -> int:
    """Submit one workflow and let all workers take and close until it is done."""
    answer = await connections[0].request(request)
    if answer.status != 200:
        raise RuntimeError(f"a workflow was refused: {answer.body[:500]!r}")
    await _drained(workers, connections, size, tally)
    return size


async def _chain(place: Place, server: Server) -> Row:
    """One worker: from one node's assignment to the next one's, close included."""
    (worker,) = await stage(server, 1)
    (connection,) = await connect(server.port, 1)
    poll = worker.poll(POLL_S)
    hops: list[float] = []
    until = time.perf_counter() + place.span_s
    serials = count()
    while not hops or time.perf_counter() < until:
        await connection.request(_submit(worker, _in_a_row(worker, CHAIN, next(serials))))
        assigned = await connection.request(poll)
        for _ in range(CHAIN - 1):
            began = time.perf_counter()
            await connection.request(worker.key.close(process_id(assigned.body)))
            assigned = await connection.request(poll)
            hops.append(time.perf_counter() - began)
        await connection.request(worker.key.close(process_id(assigned.body)))
    return Row(name=f"workflows/chain-{CHAIN}", metrics={"hops": len(hops), **latencies("", hops)})


async def _large(server: Server, size: int) -> Row:
    """Submit, run and read one workflow in layers; what a node costs must not grow with it."""
    workers = await stage(server, WORKERS)
    connections = await connect(server.port, WORKERS)
    tally = Tally()
    request = _submit(workers[0], _layers(workers[0], size))
    over = asyncio.Event()
    probe = asyncio.create_task(_probe(connections[1], over))
    began = time.perf_counter()
    answer = await connections[0].request(request)
    submitted = time.perf_counter()
    over.set()
    longest = await probe
    if answer.status != 200:
        raise RuntimeError(f"a workflow was refused: {answer.body[:500]!r}")
    id = reply(answer.body)["processgraphid"]
    await _drained(workers, connections, size, tally)
    run = time.perf_counter()
    shown = await connections[0].request(
        workers[0].key.call("getprocessgraphmsg", processgraphid=id)
    )
    metrics = {
        "submit_s": submitted - began,
        "others_max_ms": longest * 1000,
        "submit_ms_each": (submitted - began) / size * 1000,
        "run_ms_each": (run - submitted) / size * 1000,
        "get_s": time.perf_counter() - run,
        "edges": len(reply(shown.body)["edges"]),
        "failures": tally.failures.total(),
    }
    return Row(name=f"workflows/large-{size}", metrics=metrics, notes=tally.notes())


async def _probe(connection: Connection, over: asyncio.Event) -> float:
    """What somebody else waits for an answer meanwhile, at most; in seconds."""
    longest = 0.0
    while not over.is_set():
        began = time.perf_counter()
        await connection.request(HEALTH)
        longest = max(longest, time.perf_counter() - began)
    return longest


async def _open(server: Server) -> Row:
    """So many workflows open at once, each half done; then all are finished."""
    workers = await stage(server, WORKERS)
    connections = await connect(server.port, WORKERS)
    tally = Tally()
    requests = [_submit(workers[0], _in_a_row(workers[0], 10, n)) for n in range(OPEN)]
    began = time.perf_counter()
    for request in requests:
        answer = await connections[0].request(request)
        if answer.status != 200:
            raise RuntimeError(f"a workflow was refused: {answer.body[:500]!r}")
    submitted = time.perf_counter()
    await _drained(workers, connections, 10 * OPEN, tally)
    run_s = time.perf_counter() - submitted
    metrics = {
        "submit_rate_s": OPEN / (submitted - began),
        "run_ms_each": run_s / (10 * OPEN) * 1000,
        "failures": tally.failures.total(),
    }
    return Row(name=f"workflows/open-{OPEN}", metrics=metrics, notes=tally.notes())


async def _drained(
    workers: Sequence[Executor], connections: Sequence[Connection], size: int, tally: Tally
) -> None:
    tickets = iter(range(size))
    over = asyncio.Event()
    closed = 0

    def on_close() -> None:
        nonlocal closed
        closed += 1
        if closed == size:
            over.set()

    for worker, connection in zip(workers, connections, strict=True):
        Drain(
            connection,
            worker.key,
            worker.poll(POLL_S),
            tickets=tickets,
            tally=tally,
            on_close=on_close,
        ).start()
    await over.wait()


def _submit(worker: Executor, nodes: list[Json]) -> bytes:
    return worker.key.call(
        "submitworkflowspecmsg", spec={"colonyname": worker.colony, "functionspecs": nodes}
    )


def _node(worker: Executor, name: str, parents: list[str], serial: int) -> Json:
    node = spec(worker.colony, KIND, serial)
    node["nodename"] = name
    node["conditions"]["dependencies"] = parents
    return node


def _fan_out(worker: Executor, size: int, serial: int) -> list[Json]:
    first = _node(worker, "root", [], serial)
    return [first, *(_node(worker, f"n{number}", ["root"], number) for number in range(size))]


def _in_a_row(worker: Executor, size: int, serial: int) -> list[Json]:
    return [
        _node(worker, f"n{number}", [f"n{number - 1}"] if number else [], serial)
        for number in range(size)
    ]


def _layers(worker: Executor, size: int, width: int = 100) -> list[Json]:
    """Layers of so many nodes; each waits for two of the layer above."""
    nodes: list[Json] = []
    for number in range(size):
        above = number // width * width - width
        parents = [f"n{above + (number + step) % width}" for step in (0, 1)] if above >= 0 else []
        nodes.append(_node(worker, f"n{number}", parents, number))
    return nodes
