"""What strangers take from members: lifecycles alone, and while bad requests pour in.

One server, one run: windows with and without the flood take turns, so that what else disturbs the
machine disturbs both. The flood is a process of its own, and comes from the members' address.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import cycle
from pathlib import Path

from benchmarks.colony import stage
from benchmarks.connection import connect
from benchmarks.flood import FACES
from benchmarks.meter import Meter, Used
from benchmarks.place import Place, Server
from benchmarks.rows import Row, percentile
from benchmarks.workers import Lifecycle, Tally

WORKERS = 16
SUBMITS = 20_000
POLL_S = 10
WARMUP_S = 1.0
SETTLE_S = 0.3
FLOOD_SETTLE_S = 2.0
"""Until what a server forgives at first is used up."""
TURNS = 4
RATE_S = 100_000 / 60


async def measure(place: Place) -> list[Row]:
    """Each face of the flood, on a fresh server."""
    return [await _run(place, face) for face in FACES]


async def _run(place: Place, face: str) -> Row:
    async with place.server() as server, _flood(server, face) as flood:
        workers = await stage(server, WORKERS)
        tally, meter = Tally(), Meter(server, f"flood-{face}", beside={"flood": flood.pid})
        pools = [worker.submits(SUBMITS // WORKERS) for worker in workers]
        connections = await connect(server.port, WORKERS)
        for worker, connection, pool in zip(workers, connections, pools, strict=True):
            Lifecycle.plain(connection, worker.key, worker.poll(POLL_S), cycle(pool), tally).start()
        await asyncio.sleep(WARMUP_S)
        alone, flooded = _Windows(), _Windows()
        for _ in range(TURNS):
            await _window(place, tally, meter, alone)
            await flood.go(RATE_S)
            await asyncio.sleep(FLOOD_SETTLE_S)
            await _window(place, tally, meter, flooded)
            flooded.answers += await flood.stop()
        tally.is_over = True
        await asyncio.sleep(SETTLE_S)
        for connection in connections:
            connection.close()
    return _row(face, alone, flooded, tally)


class _Windows:
    """Windows of one kind, added up."""

    def __init__(self) -> None:
        self.count = 0
        self.taken: list[float] = []
        self.used: list[Used] = []
        self.answers: Counter[str] = Counter()

    @property
    def rate_s(self) -> float:
        return self.count / sum(used.wall_s for used in self.used)

    def cores(self, name: str) -> float:
        return sum(used.metrics()[name] for used in self.used) / len(self.used)


async def _window(place: Place, tally: Tally, meter: Meter, into: _Windows) -> None:
    await asyncio.sleep(SETTLE_S)
    tally.count, tally.taken = 0, []
    meter.start()
    tally.is_counting = True
    await asyncio.sleep(2 * place.span_s / TURNS)
    tally.is_counting = False
    into.used.append(meter.stop())
    into.count += tally.count
    into.taken += tally.taken


def _row(face: str, alone: _Windows, flooded: _Windows, tally: Tally) -> Row:
    span_s = sum(used.wall_s + SETTLE_S + FLOOD_SETTLE_S for used in flooded.used)
    sent = flooded.answers.pop("sent")
    metrics = {
        "ratio": flooded.rate_s / alone.rate_s,
        "bad_s": sent / span_s,
        "alone_s": alone.rate_s,
        "flooded_s": flooded.rate_s,
        "alone_p99_ms": percentile(alone.taken, 99) * 1000,
        "flooded_p99_ms": percentile(flooded.taken, 99) * 1000,
        "failures": float(tally.failures.total()),
        "alone_loop_us_each": alone.cores("loop_cores") / alone.rate_s * 1e6,
        "flooded_loop_us_each": flooded.cores("loop_cores") / flooded.rate_s * 1e6,
        "wall_s": sum(used.wall_s for used in flooded.used),
        "flood_cores": sum(used.beside["flood"] / used.wall_s for used in flooded.used) / TURNS,
        "others_cores": max(alone.cores("others_cores"), flooded.cores("others_cores")),
        **{name: flooded.cores(name) for name in _CORES},
    }
    notes = [f"{count} x {status}" for status, count in flooded.answers.most_common()]
    return Row(name=f"flood/{face}", metrics=metrics, notes=(*tally.notes(), ", ".join(notes)))


_CORES = ("server_cores", "loop_cores", "loop_queued_cores", "generator_cores")


class _Flood:
    """The process of the strangers."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    async def go(self, rate_s: float) -> None:
        """Begin."""
        await self._tell(f"go {rate_s}\n")

    async def stop(self) -> Counter[str]:
        """End, and what was answered."""
        await self._tell("stop\n")
        return Counter(json.loads(await self.line()))

    async def line(self) -> bytes:
        """What it says."""
        assert self._process.stdout is not None
        return await asyncio.wait_for(self._process.stdout.readline(), 30)

    async def _tell(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())
        await self._process.stdin.drain()


@asynccontextmanager
async def _flood(server: Server, face: str) -> AsyncGenerator[_Flood, None]:
    command = [sys.executable, "-m", "benchmarks.flood", str(server.port), face]
    root = Path(__file__).parent.parent.parent
    process = await asyncio.create_subprocess_exec(
        *command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        flood = _Flood(process)
        await flood.line()
        yield flood
    finally:
        process.kill()
        await process.wait()
