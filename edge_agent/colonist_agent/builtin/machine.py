"""What /proc, /sys and statvfs say of this machine. What is not there is named, not guessed.

All paths start at a root that tests may replace. A reading that a machine does not have raises
`MissingError`; nothing here raises anything else because of what the machine lacks.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

T = TypeVar("T")

_KIBIBYTE: Final = 1024
_SECTOR_BYTES: Final = 512
_MILLI: Final = 1000
_NETWORK_RECEIVED: Final = 0
_NETWORK_SENT: Final = 8
_DISK_READ: Final = 5
_DISK_WRITTEN: Final = 9
_PSEUDO: Final = ("loop", "ram", "zram", "dm-", "md")


class MissingError(Exception):
    """The machine has no such thing, or does not let us see it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuTime:
    """Clock ticks since boot."""

    busy: int
    total: int


class Machine:
    """Readings below a root directory, `/` for the real machine."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def cpu_count(self) -> int:
        """How many CPUs this process may use."""
        return len(os.sched_getaffinity(0)) if self._root == Path("/") else self._listed_cpus()

    def cpu_model(self) -> str:
        """The model as the kernel names it."""
        names = ("model name", "Model", "Hardware", "cpu model", "uarch")
        fields = dict(self._pairs("proc/cpuinfo"))
        for name in names:
            if fields.get(name):
                return fields[name]
        raise MissingError("the kernel names no CPU model")

    def load(self) -> tuple[float, float, float]:
        """Load averages over 1, 5 and 15 minutes."""
        words = self._text("proc/loadavg").split()
        return _parsed(lambda: (float(words[0]), float(words[1]), float(words[2])))

    def memory(self) -> dict[str, int]:
        """Bytes: total, available, swap_total, swap_free."""
        names = {
            "MemTotal": "total",
            "MemAvailable": "available",
            "SwapTotal": "swap_total",
            "SwapFree": "swap_free",
        }
        pairs = self._pairs("proc/meminfo")
        found = _parsed(
            lambda: {
                names[key]: int(value.split()[0]) * _KIBIBYTE
                for key, value in pairs
                if key in names
            }
        )
        if "total" not in found:
            raise MissingError("the kernel says nothing of the memory")
        return found

    def uptime_s(self) -> float:
        """Seconds since boot."""
        text = self._text("proc/uptime")
        return _parsed(lambda: float(text.split()[0]))

    def cpu_time(self) -> CpuTime:
        """Ticks of all CPUs together; idle and waiting for I/O is not busy."""
        line = self._text("proc/stat").partition("\n")[0].split()
        ticks = _parsed(lambda: [int(word) for word in line[1:9]])
        return CpuTime(busy=sum(ticks) - sum(ticks[3:5]), total=sum(ticks))

    def temperatures(self) -> dict[str, float]:
        """Degrees Celsius by sensor; empty when there are none."""
        found: dict[str, float] = {}
        for zone in sorted(self._root.glob("sys/class/thermal/thermal_zone*")):
            self._add_temperature(found, zone / "type", zone / "temp")
        for sensor in sorted(self._root.glob("sys/class/hwmon/hwmon*/temp*_input")):
            label = sensor.with_name(sensor.name.replace("_input", "_label"))
            name = label if label.exists() else sensor.parent / "name"
            self._add_temperature(found, name, sensor)
        return found

    def network(self) -> tuple[int, int]:
        """Bytes received and sent by all interfaces but the loop-back."""
        rows: list[list[str]] = []
        for line in self._text("proc/net/dev").splitlines()[2:]:
            name, _, rest = line.partition(":")
            if name.strip() != "lo":
                rows.append(rest.split())
        return _parsed(
            lambda: (
                sum(int(row[_NETWORK_RECEIVED]) for row in rows),
                sum(int(row[_NETWORK_SENT]) for row in rows),
            )
        )

    def disk_io(self) -> tuple[int, int]:
        """Bytes read and written by all whole disks."""
        disks = {path.name for path in self._root.glob("sys/block/*")}
        lines = [line.split() for line in self._text("proc/diskstats").splitlines()]
        rows = [row for row in lines if row[2] in disks and not row[2].startswith(_PSEUDO)]
        if not rows:
            raise MissingError("there are no disks to be seen")
        return _parsed(
            lambda: (
                sum(int(row[_DISK_READ]) for row in rows) * _SECTOR_BYTES,
                sum(int(row[_DISK_WRITTEN]) for row in rows) * _SECTOR_BYTES,
            )
        )

    def disks(self) -> list[dict[str, str | int]]:
        """Mounted block devices, each once: mount point, bytes in all and free for us."""
        found: dict[str, dict[str, str | int]] = {}
        for line in self._text("proc/self/mounts").splitlines():
            device, mount = line.split()[:2]
            if device.startswith("/dev/") and device not in found:
                usage = _usage(mount.replace("\\040", " "))
                if usage is not None:
                    found[device] = {"device": device, **usage}
        if not found:
            usage = _usage("/")
            if usage is None:
                raise MissingError("no file system can be measured")
            found["/"] = usage
        return list(found.values())

    def _listed_cpus(self) -> int:
        return sum(key == "processor" for key, _ in self._pairs("proc/cpuinfo"))

    def _text(self, path: str) -> str:
        try:
            return (self._root / path).read_text(errors="replace")
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else "cannot be read"
            raise MissingError(f"/{path}: {reason}") from None

    def _pairs(self, path: str) -> list[tuple[str, str]]:
        lines = (line.partition(":") for line in self._text(path).splitlines())
        return [(key.strip(), value.strip()) for key, colon, value in lines if colon]

    def _add_temperature(self, found: dict[str, float], name: Path, value: Path) -> None:
        try:
            label = name.read_text(errors="replace").strip()
            degrees = int(value.read_text()) / _MILLI
        except (OSError, ValueError):  # sensors come and go, and some only answer at times
            return
        unique = label if label not in found else f"{label} {value.parent.name}"
        found[unique] = degrees


def _usage(mount: str) -> dict[str, str | int] | None:
    try:
        usage = os.statvfs(mount)
    except OSError:
        return None
    return {
        "mount": mount,
        "total": usage.f_blocks * usage.f_frsize,
        "free": usage.f_bavail * usage.f_frsize,
    }


def _parsed(parse: Callable[[], T]) -> T:
    try:
        return parse()
    except (ValueError, IndexError):
        raise MissingError("the kernel's answer has an unknown form") from None
