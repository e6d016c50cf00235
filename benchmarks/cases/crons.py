"""Crons: how late a thousand of one moment run, and what a thousand cost that wait.

`crons/1000` adds crons of one process each that are all due at the same seconds. A run counts as
late until a client sees its workflow: one that reads the colony's counts every few ms from that
second on, so `late_p99_ms` is when 990 of a thousand were durable and there for everybody, seen
from outside and late by a look at most. A look costs the server what a small request does, however
many workflows there are. `crons/idle` is the CPU that crons cost which are due next year.
"""

from __future__ import annotations

import asyncio
import json
import time

from benchmarks.colony import Executor, stage
from benchmarks.connection import Connection, connect, send_all
from benchmarks.meter import Meter
from benchmarks.place import Place, Server
from benchmarks.rows import Row, latencies
from benchmarks.wire import reply, spec

CRONS = 1000
EVERY_S = 5
ROUNDS = 4
IDLE_S = 20.0
LOOK_S = 0.003
SETTLE_S = 1.0
GIVE_UP_S = 3.0


async def measure(place: Place) -> list[Row]:
    """One run each, on a fresh server."""
    async with place.server() as server:
        (member,) = await stage(server, 1)
        busy = await _rounds(server, member)
    async with place.server() as server:
        (member,) = await stage(server, 1)
        idle = await _idle(server, member)
    return [busy, idle]


async def _rounds(server: Server, member: Executor) -> Row:
    await _add(server, member, f"0/{EVERY_S} * * * * *")
    (connection,) = await connect(server.port, 1)
    late: list[float] = []
    meter = Meter(server)
    meter.start()
    for _ in range(ROUNDS):
        planned = await _before_next()
        late += await _watch(connection, member, planned)
    used = meter.stop()
    connection.close()
    metrics = {**latencies("late_", late), "of": float(len(late)), **used.metrics(len(late))}
    return Row(name=f"crons/{CRONS}", metrics=metrics)


async def _watch(connection: Connection, member: Executor, planned: int) -> list[float]:
    """Seconds from the planned one until each of the workflows was there."""
    request = member.key.call("getcolonystatsmsg", colonyname=member.colony)
    before = await _workflows(connection, request)
    await asyncio.sleep(planned - time.time())
    late: list[float] = []
    while len(late) < CRONS and time.time() < planned + GIVE_UP_S:
        found = await _workflows(connection, request) - before
        late += [time.time() - planned] * (found - len(late))
        await asyncio.sleep(LOOK_S)
    return late + [GIVE_UP_S] * (CRONS - len(late))


async def _idle(server: Server, member: Executor) -> Row:
    await _add(server, member, "0 0 0 1 1 *")
    await asyncio.sleep(SETTLE_S)
    meter = Meter(server)
    meter.start()
    await asyncio.sleep(IDLE_S)
    used = meter.stop()
    return Row(name="crons/idle", metrics={"idle_cpu_s": used.server_s, **used.metrics()})


async def _add(server: Server, member: Executor, expression: str) -> None:
    node = {**spec(member.colony, member.kind, 0), "nodename": "a"}
    text = json.dumps({"colonyname": member.colony, "functionspecs": [node]})
    requests = (
        member.key.call(
            "addcronmsg",
            cron={
                "colonyname": member.colony,
                "name": f"k-{number}",
                "cronexpression": expression,
                "interval": -1,
                "workflowspec": text,
            },
        )
        for number in range(CRONS)
    )
    await send_all(server.port, requests)


async def _before_next() -> int:
    """A moment before the next planned second, which it tells."""
    planned = (int(time.time() + SETTLE_S) // EVERY_S + 1) * EVERY_S
    await asyncio.sleep(planned - 0.3 - time.time())
    return planned


async def _workflows(connection: Connection, request: bytes) -> int:
    return int(reply((await connection.request(request)).body)["waitingworkflows"])
