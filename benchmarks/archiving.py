"""Closed processes that the archiver moves in a second, from an SQLite store.

Each has a birth of 900 bytes, a result of 700 and an entry in the list, as most have. Two lines of
output as JSON: without pauses, and with those that the server makes.

    python benchmarks/archiving.py [--processes 20000] [--archive sqlite:PATH | postgresql://..]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path

from colonist_core.matching import Placement
from colonist_core.process import Closed, Event, Live, What
from colonist_protocol import codec
from colonist_protocol.function_spec import Conditions, FunctionSpec
from colonist_protocol.process import State, SubmitFunctionSpec
from colonist_server.archive.sql import SqlArchive
from colonist_server.loops.archiver import PAUSE_S
from colonist_server.repo import keys
from colonist_server.repo.archiving import BATCH, Archiving
from colonist_server.repo.load import load
from colonist_server.repo.nouns import Colony
from colonist_server.repo.records import Birth, ColonyRecord, Ended, encode
from colonist_server.repo.retirement import Oldest
from colonist_server.repo.view import View
from colonist_server.repo.writes import Writes
from colonist_server.store.interface import Guard, Op, Put
from colonist_server.store.sqlite import SqliteStore

TAG = b"\1\2\3\4"
SECOND_NS = 1_000_000_000


async def fill(writes: Writes, count: int) -> Colony:
    """Closed processes of one colony, a minute apart."""
    key = keys.colony(TAG)
    await writes.commit([Guard(key, 0)], [Put(key, encode(ColonyRecord("dev", "0" * 64)))])
    spec = FunctionSpec(funcname="f", conditions=Conditions(colonyname="dev", executortype="t"))
    payload = codec.encode(SubmitFunctionSpec(spec=spec)).ljust(700)
    for number in range(count):
        await writes.commit(*closed(number, payload))
    return writes.view.tags[TAG]


def closed(number: int, payload: bytes) -> tuple[list[Guard], list[Op]]:
    """One process as it stands in the store after its end."""
    at_ns = (1_700_000_000 + 60 * number) * SECOND_NS
    random = (number * 0x9E3779B97F4A7C15 % 2**64).to_bytes(20, "big")
    pid = keys.process_id(TAG, at_ns, random)
    events = tuple(
        Event(what, 1, at_ns // 1_000_000, bytes(32), bytes(32), bytes(65))
        for what in (What.ASSIGNED, What.SUCCEEDED)
    )
    live = Live(
        *(State.SUCCESS, at_ns, at_ns, Placement("t"), -1, 60, 3, "", "user", "f"),
        head=bytes(32),
        changed_ns=at_ns,
        executor="e" * 64,
        count=3,
        events=events,
    )
    listed = Ended("t", "", "user", "e" * 64, "f", at_ns, at_ns, at_ns)
    return [Guard(keys.closed(pid), 0)], [
        Put(keys.birth(pid), encode(Birth(payload, bytes(65), "u" * 64, "user", at_ns, at_ns))),
        Put(keys.closed(pid), encode(Closed(live, b"r" * 250))),
        Put(keys.ended(TAG, State.SUCCESS, at_ns, pid), encode(listed)),
    ]


async def drain(writes: Writes, archive: SqlArchive, colony: Colony, pause_s: float) -> float:
    """Move everything; processes a second."""
    mover, oldest = Archiving(writes, archive), Oldest(writes, colony)
    begun = time.perf_counter()
    batch = await oldest.take(BATCH, 2**64 - 1)
    while batch:
        after = await oldest.take(BATCH, 2**64 - 1)
        await mover.move(colony, [old.pid for old in batch], [old.pid for old in after])
        await asyncio.sleep(pause_s)
        batch = after
    return mover.moved / (time.perf_counter() - begun)


async def measure(address: str, processes: int, pause_s: float) -> None:
    """One line of output."""
    with tempfile.TemporaryDirectory() as folder:
        where = address or f"sqlite:{folder}/archive.db"
        async with (
            await SqliteStore.open(Path(folder) / "store.db") as store,
            await SqlArchive.open(where) as archive,
        ):
            await archive.delete_range(b"")
            writes = Writes(store, View(), archive)
            colony = await fill(writes, processes)
            await load(writes)
            cpu = time.process_time()
            rate = await drain(writes, archive, colony, pause_s)
            cell = {
                "archive": where.partition(":")[0],
                "pause_ms": pause_s * 1000,
                "processes_s": round(rate),
                "rows_s": round(rate * 3),
                "cpu_us": round((time.process_time() - cpu) / processes * 1e6),
            }
            print(json.dumps(cell))


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=20_000)
    parser.add_argument("--archive", default="")
    flags = parser.parse_args()
    for pause_s in (0.0, PAUSE_S):
        asyncio.run(measure(flags.archive, flags.processes, pause_s))


if __name__ == "__main__":
    main()
