"""The generator's own capacity: the same loads against a server that answers with canned bytes."""

from __future__ import annotations

import base64
import json

from benchmarks.cases import lifecycle, submit
from benchmarks.colony import Executor
from benchmarks.place import Place
from benchmarks.rows import Row
from benchmarks.wire import Key, spec

CLIENTS = (16, 64)


async def measure(place: Place) -> list[Row]:
    """One run of each load."""
    rows: list[Row] = []
    for count in CLIENTS:
        clients = [Executor(Key(), f"e-{number}", "bench") for number in range(count)]
        async with place.responder(canned_process()) as server:
            rows.append(await submit.run(place, server, clients, f"headroom/submit/{count}"))
            rows.append(await lifecycle.run(place, server, clients, f"headroom/lifecycle/{count}"))
    return rows


def canned_process() -> bytes:
    """A reply of the size that an assign has."""
    process = {
        "processid": "5e" * 32,
        "initiatorid": "1a" * 32,
        "initiatorname": "e-1",
        "assignedexecutorid": "1a" * 32,
        "isassigned": True,
        "state": 1,
        "prioritytime": 1795332674299411042,
        "submissiontime": "2026-11-22T07:31:14.325689Z",
        "attributes": [],
        "spec": spec("bench", "worker", 1),
        "out": [],
        "errors": [],
    }
    payload = base64.b64encode(json.dumps(process).encode()).decode()
    reply = {"payloadtype": "assignprocessmsg", "payload": payload, "error": False}
    return json.dumps(reply, separators=(",", ":")).encode()
