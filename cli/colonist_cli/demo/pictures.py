"""A result as one short line that a person can read at a glance. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from colonist_cli.tables import shortened
from colonist_protocol.process import Process

BARS: Final = "▁▂▃▄▅▆▇█"

_GIGA: Final = 1e9
_SERIES: Final = 16
_UNITS: Final = ("B", "kB", "MB", "GB", "TB")
_KILO: Final = 1000.0


def words(process: Process) -> str:
    """What it returned, as it is; the reasons of a failure."""
    if process.errors:
        return shortened("; ".join(process.errors), 80)
    return shortened(" ".join(str(value) for value in process.output()), 80)


def last_line(process: Process) -> str:
    """The last line of a command's output."""
    lines = str(process.output()[0]).strip().splitlines()
    return shortened(lines[-1] if lines else "", 80)


def machine(process: Process) -> str:
    """What `sysinfo` says."""
    found: dict[str, Any] = json.loads(process.output()[0])
    parts = [f"{found.get('cpus', '?')} CPUs"]
    if load := found.get("load"):
        parts.append(f"load {load[0]:.2f}")
    if memory := found.get("memory"):
        free = memory.get("available", 0) / _GIGA
        parts.append(f"{free:.0f} of {memory['total'] / _GIGA:.0f} GB free")
    if temperatures := found.get("temperatures"):
        parts.append(f"{max(temperatures.values()):.0f} °C")
    return ", ".join(parts)


def series(process: Process) -> str:
    """What `sample` says: the curve, its mean and its unit."""
    found: dict[str, Any] = json.loads(process.output()[0])
    unit = found["unit"]
    mean = amount(found["mean"]) + "/s" if unit == "B/s" else f"{found['mean']:.2f} {unit}".strip()
    limits = (0.0, 100.0) if unit == "%" else None
    return f"{spark(found['values'], limits)}  mean {mean}"


def digest(process: Process) -> str:
    """What `checksum` says."""
    text, size = process.output()
    return f"{text[:12]}…  {amount(size)}, verified"


def spark(values: Sequence[float], limits: tuple[float, float] | None = None) -> str:
    """A curve in one line, between the limits or else its own lowest and highest."""
    shown = values[-_SERIES:]
    low, high = limits or (min(shown), max(shown))
    if high == low:
        return BARS[len(BARS) // 2] * len(shown)
    scale = (len(BARS) - 1) / (high - low)
    return "".join(BARS[round((min(max(value, low), high) - low) * scale)] for value in shown)


def amount(count: float) -> str:
    """Bytes for people."""
    for unit in _UNITS:
        if count < _KILO or unit == _UNITS[-1]:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= _KILO
    raise AssertionError
