"""Commits per second of the SQLite store, and what one costs the event loop.

Each client commits in a closed loop: three guards (two keys absent, one shared and cold) and two
puts, 1.1 KB. A busy loop burns 90 us of CPU before each commit, as the rest of a request does.
Every line of output is one cell as JSON: medians over the runs; `loop_us` is CPU time of the loop's
thread per commit without the burnt part, latencies are from commit to answer.

    python benchmarks/store_commit.py [--seconds 2] [--runs 3] [--directory DIR] [--fsync-ms 2]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from colonist_server.store import file
from colonist_server.store.interface import Guard, Put
from colonist_server.store.sqlite import SqliteStore

BUSY_S = 90e-6
BIRTH = b"b" * 700
LIVE = b"l" * 400
COLD = b"c/colony"

with contextlib.suppress(ImportError):
    import uvloop

    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())


class Run(NamedTuple):
    """One run of one cell."""

    commits_s: float
    loop_us: float
    p50_ms: float
    p99_ms: float


def burn(seconds: float) -> None:
    """Keep the loop's thread on the CPU."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


async def client(
    store: SqliteStore, ids: Iterator[int], end: float, busy: bool, times: list[float]
) -> None:
    """Commit until the time is up."""
    while (begun := time.perf_counter()) < end:
        if busy:
            burn(BUSY_S)
            begun = time.perf_counter()
        tail = (next(ids) * 0x9E3779B97F4A7C15 % 2**64).to_bytes(8, "big") + bytes(24)
        birth, live = b"p/" + tail, b"s/" + tail
        guards = (Guard(birth, 0), Guard(live, 0), Guard(COLD, 1))
        assert await store.commit(guards, (Put(birth, BIRTH), Put(live, LIVE)))
        times.append(time.perf_counter() - begun)


async def run(
    path: Path, connect: Callable[[Path], sqlite3.Connection], clients: int, busy: bool, s: float
) -> Run:
    """Fill a new store for `s` seconds."""
    async with await SqliteStore.open(path, connect=connect) as store:
        assert await store.commit([Guard(COLD, 0)], [Put(COLD, b"c" * 200)]) == 1
        ids, times = count(), list[float]()
        begun, cpu = time.perf_counter(), time.thread_time()
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(client(store, ids, begun + s, busy, times))
        wall, cpu = time.perf_counter() - begun, time.thread_time() - cpu
    times.sort()
    done = len(times)
    own = cpu - done * BUSY_S * busy
    return Run(
        done / wall,
        own / done * 1e6,
        times[done // 2] * 1e3,
        times[done * 99 // 100] * 1e3,
    )


class SlowConnection(sqlite3.Connection):
    """Takes longer over every write, like a disk that syncs slowly."""

    delay_s = 0.0

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        """Run the statement, then wait if it was a write."""
        cursor = super().execute(sql, parameters)
        if sql.startswith("INSERT INTO op"):
            time.sleep(self.delay_s)
        return cursor


def connect_slowly(delay_s: float, path: Path) -> sqlite3.Connection:
    """A connection that adds a delay to every write."""
    connection = sqlite3.connect(
        path,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=file.CACHED_STATEMENTS,
        factory=SlowConnection,
    )
    connection.delay_s = delay_s
    return connection


def main() -> None:
    """Run all cells."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--fsync-ms", type=float, default=0.0)
    options = parser.parse_args()
    connect = file.connect
    if options.fsync_ms:
        connect = partial(connect_slowly, options.fsync_ms / 1e3)
    for busy in (False, True):
        for clients in options.clients:
            runs: list[Run] = []
            for _ in range(options.runs):
                with tempfile.TemporaryDirectory(dir=options.directory) as directory:
                    path = Path(directory) / "store.db"
                    runs.append(asyncio.run(run(path, connect, clients, busy, options.seconds)))
            medians = [round(statistics.median(column), 2) for column in zip(*runs, strict=True)]
            cell = {"bench": "store_commit", "clients": clients, "busy_us": 90 * busy}
            cell |= {"fsync_ms": options.fsync_ms, "runs": options.runs}
            print(json.dumps(cell | dict(zip(Run._fields, medians, strict=True))), flush=True)


if __name__ == "__main__":
    main()
