"""Cold start: from starting the process to its first answer.

`coldstart/health` and `coldstart/signed` on a machine that has no store yet;
`coldstart/backlog` on a store left by an earlier server, 10 000 processes waiting in it.
"""

from __future__ import annotations

import asyncio
import shutil

from benchmarks.colony import stage
from benchmarks.connection import send_all
from benchmarks.meter import Meter
from benchmarks.place import Place
from benchmarks.rows import Row
from benchmarks.wire import HEALTH, Key

BACKLOG = 10_000
FILLERS = 64


async def measure(place: Place) -> list[Row]:
    """One run: three starts from nothing or from a backlog."""
    owner = Key()
    signed = owner.call("getcoloniesmsg")
    return [
        await asyncio.to_thread(_fresh, place, "coldstart/health", owner, HEALTH),
        await asyncio.to_thread(_fresh, place, "coldstart/signed", owner, signed),
        await _backlog(place, owner),
    ]


def _fresh(place: Place, name: str, owner: Key, request: bytes) -> Row:
    folder = place.folder()
    server = place.start(folder, owner)
    meter = Meter(server)
    meter.start()
    try:
        seconds = server.first_answer(request)
        used = meter.stop()
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    return Row(name=name, metrics={"first_answer_s": seconds, **used.metrics()})


async def _backlog(place: Place, owner: Key) -> Row:
    folder = place.folder()
    server = place.start(folder, owner)
    try:
        await asyncio.to_thread(server.first_answer, HEALTH)
        (client,) = await stage(server, 1)
        await send_all(server.port, client.submits(BACKLOG), FILLERS)
        await asyncio.to_thread(server.stop)
        server = place.start(folder, owner)
        meter = Meter(server)
        meter.start()
        request = client.key.call("getprocessesmsg", colonyname="bench", count=1, state=0)
        seconds = await asyncio.to_thread(server.first_answer, request)
        used = meter.stop()
    finally:
        await asyncio.to_thread(server.stop)
        shutil.rmtree(folder, ignore_errors=True)
    return Row(name="coldstart/backlog", metrics={"first_answer_s": seconds, **used.metrics()})
