"""A thousand connections at once: each submits one process and must be answered.

`connections/storm`: all connect at the same moment and submit as soon as they are connected.
`connections/burst`: all are connected already and submit at the same moment.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from benchmarks.colony import stage
from benchmarks.connection import LOST, OK, Reply, connect
from benchmarks.meter import Meter
from benchmarks.place import Place, Server
from benchmarks.rows import Row, latencies
from benchmarks.workers import Tally

CONNECTIONS = 1_000
TIMEOUT_S = 60.0

Scene = Callable[[Server, list[bytes], list[float]], Awaitable[list[Reply]]]


async def measure(place: Place) -> list[Row]:
    """One run of both, on a fresh server each."""
    return [
        await _run(place, "connections/storm", _storm),
        await _run(place, "connections/burst", _burst),
    ]


async def _run(place: Place, name: str, scene: Scene) -> Row:
    async with place.server() as server:
        (client,) = await stage(server, 1)
        submits = client.submits(CONNECTIONS)
        tally, meter, taken = Tally(), Meter(server), list[float]()
        meter.start()
        replies = await scene(server, submits, taken)
        used = meter.stop()
    for reply in replies:
        if reply.status != OK:
            tally.fail(*reply)
    metrics = {
        "answered": float(sum(reply.status == OK for reply in replies)),
        "all_ms": max(taken, default=TIMEOUT_S) * 1000,
        **latencies("", taken),
        "failures": float(tally.failures.total()),
        **used.metrics(len(replies)),
    }
    return Row(name=name, metrics=metrics, notes=tally.notes())


async def _storm(server: Server, submits: list[bytes], taken: list[float]) -> list[Reply]:
    start = time.perf_counter()

    async def one(request: bytes) -> Reply:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                (connection,) = await connect(server.port)
                reply = await connection.request(request)
        except (OSError, TimeoutError) as error:
            return Reply(LOST, repr(error).encode())
        taken.append(time.perf_counter() - start)
        connection.close()
        return reply

    return await asyncio.gather(*map(one, submits))


async def _burst(server: Server, submits: list[bytes], taken: list[float]) -> list[Reply]:
    connections = await connect(server.port, len(submits))
    await asyncio.sleep(0.2)
    start = time.perf_counter()
    replies: list[Reply] = [Reply(LOST, b"no answer in time")] * len(submits)
    left, done = len(submits), asyncio.Event()

    def answer(at: int) -> Callable[[int, bytes], None]:
        def on_reply(status: int, body: bytes) -> None:
            nonlocal left
            taken.append(time.perf_counter() - start)
            replies[at] = Reply(status, body)
            left -= 1
            if left == 0:
                done.set()

        return on_reply

    for at, (connection, request) in enumerate(zip(connections, submits, strict=True)):
        connection.send(request, answer(at))
    with suppress(TimeoutError):
        async with asyncio.timeout(TIMEOUT_S):
            await done.wait()
    for connection in connections:
        connection.close()
    return replies
