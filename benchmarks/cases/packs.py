"""Packs: 16 clients give arguments to generators, without firings and with one for each 100."""

from __future__ import annotations

import json
from itertools import cycle

from benchmarks.colony import Executor, stage
from benchmarks.connection import connect, send_all
from benchmarks.meter import Meter
from benchmarks.place import Place, Server
from benchmarks.rows import Row, latencies
from benchmarks.wire import reply, spec
from benchmarks.workers import Submitter, Tally, window

CLIENTS = 16
POOL = 2_000
TRIGGER = 100
NEVER = 10_000
"""A trigger that each of the generators stays below while it is measured."""
WARMUP_S = 1.0


async def measure(place: Place) -> list[Row]:
    """One run each, on a fresh server."""
    rows: list[Row] = []
    for name, trigger in (("packs/waiting", NEVER), ("packs/firing", TRIGGER)):
        async with place.server() as server:
            clients = await stage(server, CLIENTS)
            # One takes all packs while it fires; to fill none, they are spread.
            count = 1 if trigger == TRIGGER else CLIENTS
            ids = await add_generators(server, clients[0], count, trigger)
            rows.append(await run(place, server, clients, ids, name))
    return rows


async def add_generators(server: Server, member: Executor, count: int, trigger: int) -> list[str]:
    """So many generators of a workflow of one process; their ids."""
    node = {**spec(member.colony, member.kind, 0), "nodename": "a"}
    text = json.dumps({"colonyname": member.colony, "functionspecs": [node]})
    requests = [
        member.key.call(
            "addgeneratormsg",
            generator={
                "colonyname": member.colony,
                "name": f"g-{number}",
                "workflowspec": text,
                "trigger": trigger,
                "timeout": 0,
            },
        )
        for number in range(count)
    ]
    return [reply(answer.body)["generatorid"] for answer in await send_all(server.port, requests)]


async def run(
    place: Place, server: Server, clients: list[Executor], ids: list[str], name: str
) -> Row:
    """The load itself."""
    tally, meter = Tally(), Meter(server, name)
    connections = await connect(server.port, len(clients))
    for number, (connection, client) in enumerate(zip(connections, clients, strict=True)):
        id = ids[number % len(ids)]
        pool = [
            client.key.call("packgeneratormsg", generatorid=id, arg=f"sensor-17/{serial}")
            for serial in range(POOL)
        ]
        Submitter(connection, cycle(pool), tally).start()
    used = await window(tally, meter, WARMUP_S, place.span_s)
    for connection in connections:
        connection.close()
    metrics = {"rate_s": tally.count / used.wall_s, **latencies("", tally.taken)}
    metrics["failures"] = tally.failures.total()
    metrics["firings"] = float(await _fired(server, clients[0]))
    return Row(name=name, metrics={**metrics, **used.metrics(tally.count)}, notes=tally.notes())


async def _fired(server: Server, member: Executor) -> int:
    """How many workflows were started, one process each."""
    request = member.key.call("getcolonystatsmsg", colonyname=member.colony)
    (answer,) = await send_all(server.port, [request])
    return int(reply(answer.body)["waitingprocesses"])
