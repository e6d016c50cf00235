"""The machine under the figures, and who else was busy on it meanwhile."""

from __future__ import annotations

import os
import platform
import resource
import sqlite3
import subprocess
import sys
import time
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.rows import percentile

_LIBRARIES = ("aiohttp", "uvloop", "msgspec", "coincurve")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_FSYNC_TRIES = 300
_NOFILE_WANTED = 65_536


def describe(directory: Path) -> dict[str, Any]:
    """What a reader must know to compare figures; `directory` is where the stores will lie."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "libraries": {name: _version(name) for name in _LIBRARIES},
        "file_system": file_system(directory),
        **fsync_latency(directory),
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "commit": _commit(),
        "load_average": os.getloadavg(),
    }


def raise_open_files() -> int:
    """Lift the soft limit of open files; a server started afterwards inherits it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _NOFILE_WANTED if hard == resource.RLIM_INFINITY else min(hard, _NOFILE_WANTED)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(soft, wanted)


def file_system(directory: Path) -> str:
    """The kind of file system that holds the directory, such as `ext4`."""
    path = directory.resolve()
    best, kind = Path("/"), "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        mount = Path(line.split()[1])
        if path.is_relative_to(mount) and len(mount.parts) >= len(best.parts):
            best, kind = mount, line.split()[2]
    return kind


def fsync_latency(directory: Path) -> dict[str, float]:
    """How long this disk takes to sync 4 KB appended to a file, in milliseconds."""
    path = directory / "fsync-probe"
    taken: list[float] = []
    with path.open("wb", buffering=0) as file:
        for _ in range(_FSYNC_TRIES):
            file.write(bytes(4096))
            start = time.perf_counter()
            os.fsync(file.fileno())
            taken.append((time.perf_counter() - start) * 1000)
    path.unlink()
    return {
        "fsync_p50_ms": round(percentile(taken, 50), 3),
        "fsync_p99_ms": round(percentile(taken, 99), 3),
    }


def cpu_seconds(pid: int) -> float:
    """CPU that a process has used, user and system, all threads: what /proc/PID/stat counts, in ns.

    The kernel gives every process a clock of its own; its number is made of the pid.
    """
    return time.clock_gettime((~pid << 3) | 2)


def family(pid: int) -> list[int]:
    """A process and all that it has started and that still run."""
    found = [pid]
    for one in found:  # grows while it is walked
        for path in Path(f"/proc/{one}/task").glob("*/children"):
            with suppress(FileNotFoundError):  # the thread has ended
                found += map(int, path.read_text().split())
    return found


class LoopThread(NamedTuple):
    """The first thread of a process: CPU seconds it had, and seconds it waited for a core."""

    work_s: float
    queued_s: float


def loop_thread(pid: int) -> LoopThread:
    """Read the scheduler's account of the event loop's thread; nothing where there is none."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/schedstat").read_text()
    except FileNotFoundError:
        return LoopThread(0.0, 0.0)
    work_ns, queued_ns, _slices = map(int, text.split())
    return LoopThread(work_ns / 1e9, queued_ns / 1e9)


def resident_kb(pids: list[int]) -> int:
    """Resident memory, counted exactly (the figure in /proc/PID/status is an estimate)."""
    lines = [
        line
        for pid in pids
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        if line.startswith("Rss:")
    ]
    return sum(int(line.split()[1]) for line in lines)


class Busy(NamedTuple):
    """CPU seconds of the whole machine so far: at work, and taken by the hypervisor."""

    work_s: float
    steal_s: float


def busy() -> Busy:
    """Read the machine's own count."""
    fields = [int(text) for text in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields
    return Busy((user + nice + system + irq + softirq) / _TICKS_PER_S, steal / _TICKS_PER_S)


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "absent"


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent
    )
    return done.stdout.strip() or "unknown"


def is_supported() -> bool:
    """Whether this machine has what the measuring needs."""
    return sys.platform == "linux"
