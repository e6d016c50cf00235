"""Round trip: one executor long-polls, one client submits: how soon the executor has it.

`roundtrip/handover` ends when the executor has read the process, `roundtrip/circle` when its close
is acknowledged. Between two rounds nothing happens for a moment, so that the executor is parked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from benchmarks.colony import stage
from benchmarks.connection import OK, Connection, Reply, connect
from benchmarks.meter import Meter
from benchmarks.place import Place, Server
from benchmarks.rows import Row, latencies
from benchmarks.wire import Key, process_id

ROUNDS = 1_000
WARMUP_ROUNDS = 100
PAUSE_S = 0.003
POLL_S = 10


async def measure(place: Place) -> list[Row]:
    """One run on a fresh server."""
    async with place.server() as server:
        return await on(server)


async def on(server: Server, beside: Mapping[str, int] | None = None) -> list[Row]:
    """One run on a server that answers."""
    executor, client = await stage(server, 2)
    submits = client.submits(ROUNDS + WARMUP_ROUNDS)
    poll, meter = executor.poll(POLL_S), Meter(server, beside=beside)
    at_executor, at_client = await connect(server.port, 2)
    circle = Circle(at_executor, at_client, executor.key, poll)
    for request in submits[:WARMUP_ROUNDS]:
        await circle.round(request)
    meter.start()
    taken = [await circle.round(request) for request in submits[WARMUP_ROUNDS:]]
    used = meter.stop().metrics(ROUNDS)
    return [
        Row(name="roundtrip/handover", metrics={**latencies("", [t[0] for t in taken]), **used}),
        Row(name="roundtrip/circle", metrics={**latencies("", [t[1] for t in taken]), **used}),
    ]


class Circle:
    """Two connections: the executor's and the client's."""

    def __init__(
        self, at_executor: Connection, at_client: Connection, key: Key, poll: bytes
    ) -> None:
        self._at_executor = at_executor
        self._at_client = at_client
        self._key = key
        self._poll = poll

    async def round(self, submit: bytes) -> tuple[float, float]:
        """Seconds from sending the submit to having the process, and to its close."""
        got: asyncio.Future[tuple[float, Reply]] = asyncio.get_running_loop().create_future()
        self._at_executor.send(
            self._poll,
            lambda status, body: got.set_result((time.perf_counter(), Reply(status, body))),
        )
        await asyncio.sleep(PAUSE_S)
        start = time.perf_counter()
        submitted = asyncio.ensure_future(self._at_client.request(submit))
        handed, work = await got
        _check(work)
        _check(await self._at_executor.request(self._key.close(process_id(work.body))))
        closed = time.perf_counter()
        _check(await submitted)
        return handed - start, closed - start


def _check(reply: Reply) -> None:
    if reply.status != OK:
        raise RuntimeError(f"answered {reply.status}: {reply.body!r}")
