"""Runs the benchmarks: `python -m benchmarks [names...] [--runs N] [--json FILE]`."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop

from benchmarks import machine, table
from benchmarks.cases import (
    audit,
    coldstart,
    connections,
    crons,
    drain,
    etcd,
    flood,
    headroom,
    kinds,
    lifecycle,
    packs,
    parked,
    roundtrip,
    sealed,
    submit,
    subscribers,
    wakeups,
    workflows,
)
from benchmarks.meter import DISTURBED_CORES, disturbance, wait_for_quiet
from benchmarks.musts import of_row
from benchmarks.place import DEFAULT_COMMAND, Place
from benchmarks.profile import report
from benchmarks.rows import Row, Summary, summarise

Case = Callable[[Place], Awaitable[list[Row]]]

CASES: dict[str, Case] = {
    "headroom": headroom.measure,
    "coldstart": coldstart.measure,
    "submit": submit.measure,
    "packs": packs.measure,
    "crons": crons.measure,
    "lifecycle": lifecycle.measure,
    "roundtrip": roundtrip.measure,
    "sealed": sealed.measure,
    "kinds": kinds.measure,
    "drain": drain.measure,
    "wakeups": wakeups.measure,
    "connections": connections.measure,
    "parked": parked.measure,
    "subscribers": subscribers.measure,
    "workflows": workflows.measure,
    "flood": flood.measure,
    "audit": audit.measure,
    "etcd": etcd.measure,
}

# Another checkout directory is on the same disk as this one; a temporary one may be in memory.
DIRECTORY = Path(__file__).parent.parent / ".cache" / "benchmarks"


def main() -> int:
    """0: all that was measured keeps its bounds. 1: something does not."""
    options = _options()
    if not machine.is_supported():
        print("the benchmarks read Linux's /proc: run them on Linux")
        return 2
    signal.signal(signal.SIGTERM, _stop)  # else a server would outlive whoever stops the benchmark
    machine.raise_open_files()
    options.dir.mkdir(parents=True, exist_ok=True)
    described = {**machine.describe(options.dir), "at": datetime.now(UTC).isoformat("T", "seconds")}
    _print_machine(described)
    place = Place(options.dir, options.command, options.span)
    place.profile_to = options.profile
    summaries: list[Summary] = []
    for name in options.names or CASES:
        found = _case(name, place, options)
        summaries += found
        print(table.render(found), flush=True)
        _append(options.json, described, found)
    print(f"\n{table.render(summaries)}")
    _print_profiles(options.profile)
    missed = table.failed(summaries)
    print(f"\nnot reached: {', '.join(missed)}" if missed else "\nall bounds kept")
    return 1 if missed else 0


def _stop(number: int, _frame: object) -> None:
    sys.exit(128 + number)


def _case(name: str, place: Place, options: argparse.Namespace) -> list[Summary]:
    runs: list[list[Row]] = []
    disturbed: list[bool] = []
    for number in range(options.runs):
        rows, is_disturbed = _quiet_run(name, place, options)
        runs.append(rows)
        disturbed.append(is_disturbed)
        print(f"{name}: run {number + 1} of {options.runs} done", file=sys.stderr, flush=True)
    return summarise(runs, disturbed)


def _quiet_run(name: str, place: Place, options: argparse.Namespace) -> tuple[list[Row], bool]:
    """The least disturbed of a few tries; most often the first."""
    best: tuple[float, list[Row]] | None = None
    for _ in range(1 + options.retries):
        wait_for_quiet(options.patience)
        rows = uvloop.run(_strict(CASES[name](place)))
        others = max(map(disturbance, rows))
        if best is None or others < best[0]:
            best = (others, rows)
        if others <= DISTURBED_CORES:
            break
        print(f"{name}: disturbed, others used {others:.2f} cores", file=sys.stderr, flush=True)
    assert best is not None
    return best[1], best[0] > DISTURBED_CORES


async def _strict(case: Awaitable[list[Row]]) -> list[Row]:
    """A fault in a callback of the generator is a fault of the run, not a line in a log."""
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    rows = await case
    if faults:
        raise RuntimeError(f"the generator failed: {faults[0]}") from faults[0].get("exception")
    return rows


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("names", nargs="*", help=f"of {', '.join(CASES)}; all when none is named")
    add("--runs", type=int, default=3, help="medians over so many runs")
    add("--retries", type=int, default=2, help="tries more for a run that others disturbed")
    add("--patience", type=float, default=60, help="seconds to wait for a quiet machine")
    add("--span", type=float, default=5, help="seconds that a rate is measured")
    add("--json", type=Path, help="append the results to this file, a JSON object a line")
    add(
        "--dir", type=Path, default=DIRECTORY, help="where the stores lie; on a disk, not in memory"
    )
    add("--command", default=DEFAULT_COMMAND, help="how the server is started")
    add("--profile", type=Path, help="sample the server with py-spy into this directory")
    options = parser.parse_args()
    for name in options.names:
        if name not in CASES:
            parser.error(f"no benchmark {name}: there are {', '.join(CASES)}")
    return options


def _print_machine(described: dict[str, Any]) -> None:
    for name, value in described.items():
        print(f"{name}: {value}")
    if described["file_system"] in ("tmpfs", "ramfs"):
        print("WARNING: the stores lie in memory; figures for durable commits mean nothing")
    print(flush=True)


def _append(path: Path | None, described: dict[str, Any], found: list[Summary]) -> None:
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        for summary in found:
            musts = [
                {"metric": must.metric, "must": must.text, "reference": must.reference,
                 "met": must.is_met(summary.metrics[must.metric].median)}
                for must in of_row(summary.name)
            ]  # fmt: skip
            line = {"benchmark": summary.name, "musts": musts, **asdict(summary)}
            del line["name"], line["extra"]
            line["load_average"] = os.getloadavg()
            file.write(json.dumps({**line, "machine": described}) + "\n")


def _print_profiles(folder: Path | None) -> None:
    for path in sorted(folder.glob("*.folded"), key=_written) if folder else ():
        print(f"\n{report(path)}")


def _written(path: Path) -> float:
    return path.stat().st_mtime


if __name__ == "__main__":
    start = time.monotonic()
    code = main()
    print(f"took {time.monotonic() - start:.0f} s", file=sys.stderr)
    sys.exit(code)
