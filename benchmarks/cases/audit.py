"""Audit: an audit file of 60 000 signed events is checked, by one process and by one a core."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from pathlib import Path

from benchmarks.machine import busy
from benchmarks.place import Place
from benchmarks.rows import Row
from colonist_cli.audit.crew import cores
from colonist_cli.audit.verify import verify
from tests.support.audit_files import Colony

PROCESSES = 20_000
PER_CHECKPOINT = 500


async def measure(place: Place) -> list[Row]:
    """The same file for all."""
    folder = place.folder()
    try:
        pin = await asyncio.to_thread(fill, folder / "audit.jsonl")
        ways = (("audit/verify", cores()), ("audit/verify-one", 1))
        return [
            await asyncio.to_thread(_verify, folder / "audit.jsonl", pin, name, jobs)
            for name, jobs in ways
        ]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def fill(path: Path) -> str:
    """Processes that were submitted, assigned and closed, all sealed; the server's id."""
    colony = Colony(1)
    for kind in ("user", "executor", "executor"):
        colony.add(kind)
    for number in range(PROCESSES):
        process = colony.submit()
        colony.assign(process)
        runner = next(member for member in colony.members if member.key.id == process.running)
        message = {"msgtype": "closesuccessfulmsg", "processid": process.chain, "out": ["x" * 50]}
        request = colony.request(runner.key, message, attempt=process.attempt)
        colony.event(process.chain, "succeeded", request, process.attempt)
        if number % PER_CHECKPOINT == 0:
            colony.checkpoint()
    colony.checkpoint()
    path.write_bytes(colony.export())
    return colony.server_id


def _verify(path: Path, pin: str, name: str, jobs: int) -> Row:
    before, own, start = busy().work_s, _own_s(), time.perf_counter()
    report = verify(path, pin, jobs=jobs)
    wall_s = time.perf_counter() - start
    own_s = _own_s() - own
    others_s = busy().work_s - before - own_s
    metrics = {
        "rate_s": report.events / wall_s,
        "mb_s": path.stat().st_size / wall_s / 1e6,
        "cpu_us_each": own_s / max(report.events, 1) * 1e6,
        "others_cores": max(0.0, others_s) / wall_s,
        "failures": float(not report.sound),
        "wall_s": wall_s,
    }
    return Row(name=name, metrics=metrics, notes=(report.fault,) if report.fault else ())


def _own_s() -> float:
    """CPU of this process and of those that it has waited for."""
    return sum(os.times()[:4])
