"""`sample`: a sensor, read again and again for a while.

The result is one JSON text: `sensor`, `unit`, `times` (seconds since the start), `values`, and
`mean`, `min`, `max`, `count`; readings that failed are left out and counted in `missed`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from colonist_agent.builtin.machine import CpuTime, Machine, MissingError
from colonist_agent.context import Context
from colonist_agent.function import PythonFunction
from colonist_agent.outcome import FailError

MIN_INTERVAL_S: Final = 0.05
MAX_DURATION_S: Final = 86_400.0
MAX_VALUES: Final = 20_000

_PERCENT: Final = 100.0


@dataclass(frozen=True, slots=True)
class Sensor:
    """A unit and a way to read. A rate turns a growing count into what is added each second.

    What compares two readings has to `warm_up`: its first reading is no value.
    """

    unit: str
    read: Callable[[], float]
    is_rate: bool = False
    warm_up: bool = False


def sensors(machine: Machine) -> dict[str, Sensor]:
    """What can be sampled, whether or not this machine has it."""
    return {
        "cpu": Sensor("%", _cpu_reader(machine), warm_up=True),
        "load": Sensor("", lambda: machine.load()[0]),
        "memory": Sensor("%", lambda: _memory_used(machine)),
        "temperature": Sensor("C", lambda: _hottest(machine)),
        "net_received": Sensor("B/s", lambda: machine.network()[0], is_rate=True, warm_up=True),
        "net_sent": Sensor("B/s", lambda: machine.network()[1], is_rate=True, warm_up=True),
        "disk_read": Sensor("B/s", lambda: machine.disk_io()[0], is_rate=True, warm_up=True),
        "disk_written": Sensor("B/s", lambda: machine.disk_io()[1], is_rate=True, warm_up=True),
    }


def function(machine: Machine) -> PythonFunction:
    """The function `sample` of a machine."""

    async def sample(
        context: Context, sensor: str, duration_s: float = 10.0, interval_s: float = 1.0
    ) -> dict[str, object]:
        """Read a sensor for a while: cpu, load, memory, temperature, net_*, disk_*."""
        return await collect(
            sensors(machine), sensor, duration_s, interval_s, on_progress=context.progress
        )

    return PythonFunction("sample", sample)


async def collect(
    known: dict[str, Sensor],
    name: str,
    duration_s: float,
    interval_s: float,
    *,
    on_progress: Callable[[float], None],
) -> dict[str, object]:
    """Read a sensor every `interval_s` for `duration_s`. Raises `FailError`."""
    if name not in known:
        raise FailError(f"no sensor {name[:64]!r}; there are: {', '.join(known)}")
    if not (interval_s >= MIN_INTERVAL_S and 0 <= duration_s <= MAX_DURATION_S):
        raise FailError(
            f"interval_s is at least {MIN_INTERVAL_S}, duration_s at most {MAX_DURATION_S:g}"
        )
    count = int(duration_s / interval_s) + 1
    if count > MAX_VALUES:
        raise FailError(f"{count} values are more than {MAX_VALUES}")
    series = await _series(known[name], count, interval_s, on_progress)
    if not series.values:
        raise FailError(f"the sensor {name!r} cannot be read here: {series.reason}")
    return {"sensor": name, "unit": known[name].unit, **series.summary()}


class _Series:
    def __init__(self) -> None:
        self.times: list[float] = []
        self.values: list[float] = []
        self.missed = 0
        self.reason = "too few readings"

    def add(self, time_s: float, value: float) -> None:
        self.times.append(round(time_s, 3))
        self.values.append(round(value, 6))

    def summary(self) -> dict[str, object]:
        return {
            "times": self.times,
            "values": self.values,
            "mean": round(sum(self.values) / len(self.values), 6),
            "min": min(self.values),
            "max": max(self.values),
            "count": len(self.values),
            "missed": self.missed,
        }


async def _series(
    sensor: Sensor, count: int, interval_s: float, on_progress: Callable[[float], None]
) -> _Series:
    loop = asyncio.get_running_loop()
    series = _Series()
    started_s = loop.time()
    last: tuple[float, float] | None = None
    steps = count + sensor.warm_up
    for step in range(steps):
        # From the start, not from the last reading: the distances do not add up.
        await asyncio.sleep(started_s + step * interval_s - loop.time())
        now_s = loop.time() - started_s
        try:
            reading = sensor.read()
        except MissingError as error:
            series.missed += 1
            series.reason = str(error)
            continue
        if last is not None or not sensor.warm_up:
            series.add(now_s, _value(sensor, now_s, reading, last))
        last = (now_s, reading)
        on_progress((step + 1) / steps)
    return series


def _value(sensor: Sensor, now_s: float, reading: float, last: tuple[float, float] | None) -> float:
    if not sensor.is_rate or last is None:
        return reading
    return (reading - last[1]) / max(now_s - last[0], 1e-6)


def _cpu_reader(machine: Machine) -> Callable[[], float]:
    last = CpuTime(busy=0, total=0)

    def read() -> float:
        nonlocal last
        before, last = last, machine.cpu_time()
        total = last.total - before.total
        return _PERCENT * (last.busy - before.busy) / total if total > 0 else 0.0

    return read


def _memory_used(machine: Machine) -> float:
    memory = machine.memory()
    if "available" not in memory:
        raise MissingError("the kernel does not say how much memory is available")
    return _PERCENT * (1 - memory["available"] / memory["total"])


def _hottest(machine: Machine) -> float:
    found = machine.temperatures()
    if not found:
        raise MissingError("this machine has no temperature sensor that can be read")
    return max(found.values())
