"""Wake-ups: whether a new process reaches a fitting executor at once, whoever else waits.

`wakeups/colonies`: two colonies use the same executor type, ten executors parked in each; 20
submits, in turn to one colony and the other. `wakeups/names`: ten parked executors, 12 processes
that each name one of them. Each once one after another and once all at once. A wait is from
sending the submit to having the process; more than 50 ms is a lost wake-up.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from benchmarks.colony import Executor, stage
from benchmarks.connection import OK, Connection, connect
from benchmarks.meter import Meter
from benchmarks.place import Place, Server
from benchmarks.rows import Row, latencies
from benchmarks.wire import process_id
from benchmarks.workers import Parked, Tally

PARKED = 10
COLONY_SUBMITS = 20
NAME_SUBMITS = 12
LIMIT_S = 0.050
POLL_S = 10
SETTLE_S = 0.3
GIVE_UP_S = 3.0
PARK_AGAIN_S = 0.01


async def measure(place: Place) -> list[Row]:
    """One run of each scene and style, on a fresh server each."""
    rows: list[Row] = []
    for burst in (False, True):
        style = "at-once" if burst else "in-turn"
        async with place.server() as server:
            rows.append(await _two_colonies(server, f"wakeups/colonies/{style}", burst=burst))
        async with place.server() as server:
            rows.append(await _names(server, f"wakeups/names/{style}", burst=burst))
    return rows


async def _two_colonies(server: Server, name: str, *, burst: bool) -> Row:
    crews = [await stage(server, PARKED + 1, colony) for colony in ("north", "south")]
    submits = [
        crew[0].submit_for(serial) for serial in range(COLONY_SUBMITS // 2) for crew in crews
    ]
    return await _scene(server, [e for crew in crews for e in crew[1:]], submits, name, burst=burst)


async def _names(server: Server, name: str, *, burst: bool) -> Row:
    client, *executors = await stage(server, PARKED + 1)
    submits = [
        client.submit_for(serial, executors[serial * 7 % PARKED].name)
        for serial in range(NAME_SUBMITS)
    ]
    return await _scene(server, executors, submits, name, burst=burst)


async def _scene(
    server: Server, executors: list[Executor], submits: list[bytes], name: str, *, burst: bool
) -> Row:
    board = Board()
    crew = await connect(server.port, len(executors))
    for executor, connection in zip(executors, crew, strict=True):
        poll = executor.poll(POLL_S)
        Parked(connection, executor.key, poll, board.tally, board.take).park()
    clients = await connect(server.port, len(submits) if burst else 1)
    await asyncio.sleep(SETTLE_S)
    meter = Meter(server)
    meter.start()
    if burst:
        await asyncio.gather(*map(board.submit, clients, submits))
        await board.settle()
    else:
        for request in submits:
            await board.submit(clients[0], request)
            await board.settle()
    used = meter.stop()
    for connection in (*crew, *clients):
        connection.close()
    waits = board.waits()
    metrics = {
        "waits_over_50ms": float(sum(wait > LIMIT_S for wait in waits)),
        "of": float(len(waits)),
        **latencies("wait_", waits),
        "failures": float(board.tally.failures.total()),
        **used.metrics(),
    }
    return Row(name=name, metrics=metrics, notes=board.tally.notes())


class Board:
    """When each process was sent, and when an executor had it."""

    def __init__(self) -> None:
        self.tally = Tally()
        self._sent: dict[bytes, float] = {}
        self._got: dict[bytes, float] = {}
        self._arrived = asyncio.Event()

    def take(self, parked: Parked, process: bytes) -> None:
        """An executor has it: it closes it and parks again."""
        self._got[process] = time.perf_counter()
        self._arrived.set()
        parked.close_and_park(process)

    async def submit(self, connection: Connection, request: bytes) -> None:
        """Submit one."""
        at = time.perf_counter()
        reply = await connection.request(request)
        if reply.status == OK:
            self._sent[process_id(reply.body)] = at
        else:
            self.tally.fail(reply.status, reply.body)

    async def settle(self) -> None:
        """Until all that was sent has arrived; then a moment, so that its executor parks again."""
        with suppress(TimeoutError):
            async with asyncio.timeout(GIVE_UP_S):
                while not self._sent.keys() <= self._got.keys():
                    self._arrived.clear()
                    await self._arrived.wait()
        await asyncio.sleep(PARK_AGAIN_S)

    def waits(self) -> list[float]:
        """Seconds for each process; one that never came counts as given up."""
        return [self._got.get(process, at + GIVE_UP_S) - at for process, at in self._sent.items()]
