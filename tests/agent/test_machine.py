"""`sysinfo` and `sample`: right on this machine, graceful on one that says nothing."""

import json
from pathlib import Path

import pytest

from colonist_agent.builtin import basic, sample, sysinfo
from colonist_agent.builtin.machine import Machine, MissingError
from colonist_agent.builtin.sample import Sensor
from colonist_agent.outcome import FailError, elements
from tests.agent.conftest import Stage
from tests.support.clock import virtual

PI = {
    "proc/cpuinfo": "processor\t: 0\nprocessor\t: 1\nModel\t\t: Raspberry Pi 4\n",
    "proc/loadavg": "0.25 0.50 1.00 1/200 4242\n",
    "proc/meminfo": "MemTotal: 1000 kB\nMemAvailable: 250 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n",
    "proc/uptime": "86400.5 1000\n",
    "proc/stat": "cpu  10 0 10 70 10 0 0 0 0 0\ncpu0 1 2 3\n",
    "proc/net/dev": "head\nhead\n  lo: 9 0 0 0 0 0 0 0 9 0\neth0: 100 1 0 0 0 0 0 0 200 1\n",
    "proc/diskstats": "179 0 mmcblk0 1 0 4 0 1 0 6 0 0 0 0\n179 1 mmcblk0p1 1 0 9 0 1 0 9 0\n",
    "sys/block/mmcblk0/size": "",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "48312\n",
    "sys/class/hwmon/hwmon0/name": "broken\n",
    "sys/class/hwmon/hwmon0/temp1_input": "",
}


@pytest.fixture
def pi(tmp_path: Path) -> Machine:
    for name, text in PI.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Machine(tmp_path)


def test_readings_are_what_the_kernel_says(pi: Machine) -> None:
    found = sysinfo.collect(pi)
    assert (found["cpus"], found["cpu_model"]) == (2, "Raspberry Pi 4")
    assert found["load"] == (0.25, 0.5, 1.0)
    assert found["memory"] == {
        "total": 1_024_000,
        "available": 256_000,
        "swap_total": 0,
        "swap_free": 0,
    }
    assert found["uptime_s"] == 86400.5
    assert found["temperatures"] == {"cpu-thermal": 48.312}
    assert (pi.network(), pi.disk_io()) == ((100, 200), (2048, 3072))
    assert (pi.cpu_time().busy, pi.cpu_time().total) == (20, 100)


def test_machine_that_says_nothing_is_described_without(tmp_path: Path) -> None:
    found = sysinfo.collect(Machine(tmp_path))
    missing = found["missing"]
    assert isinstance(missing, dict)
    assert {"cpus", "load", "memory", "uptime_s", "temperatures"} <= missing.keys()
    assert missing["load"] == "/proc/loadavg: No such file or directory"
    assert found["host"]


def test_nonsense_of_the_kernel_is_a_missing_reading(pi: Machine, tmp_path: Path) -> None:
    for name in ("proc/loadavg", "proc/uptime", "proc/stat"):
        (tmp_path / name).write_text("nonsense")
    for read in (pi.load, pi.uptime_s):
        with pytest.raises(MissingError):
            read()


def test_this_machine_can_be_read() -> None:
    found = sysinfo.collect(Machine())
    [text] = elements(found)
    assert isinstance(text, str)
    told = json.loads(text)
    assert told["cpus"] >= 1
    assert told["memory"]["total"] > 0
    assert told["uptime_s"] > 0
    assert told["disks"][0]["total"] > 0


@virtual
async def test_sample_takes_a_reading_at_every_interval() -> None:
    readings = iter([5.0, 1.0, 3.0, 7.0])
    seen: list[float] = []
    known = {"s": Sensor("C", lambda: next(readings))}
    told = await sample.collect(known, "s", 3, 1, on_progress=seen.append)
    assert told == {
        "sensor": "s",
        "unit": "C",
        "times": [0, 1, 2, 3],
        "values": [5, 1, 3, 7],
        "mean": 4,
        "min": 1,
        "max": 7,
        "count": 4,
        "missed": 0,
    }
    assert seen == [0.25, 0.5, 0.75, 1]


@virtual
async def test_growing_count_becomes_a_rate() -> None:
    counts = iter([1000.0, 1100.0, 1300.0])
    known = {"net": Sensor("B/s", lambda: next(counts), is_rate=True, warm_up=True)}
    told = await sample.collect(known, "net", 2, 2, on_progress=lambda _: None)
    assert (told["times"], told["values"]) == ([2, 4], [50, 100])


@virtual
async def test_readings_that_fail_are_left_out_and_counted() -> None:
    readings = iter([1.0, None, 3.0])

    def read() -> float:
        value = next(readings)
        if value is None:
            raise MissingError("asleep")
        return value

    told = await sample.collect({"s": Sensor("", read)}, "s", 2, 1, on_progress=lambda _: None)
    assert (told["values"], told["missed"]) == ([1, 3], 1)


@virtual
async def test_cpu_load_is_what_was_busy_in_between(pi: Machine, tmp_path: Path) -> None:
    read = sample.sensors(pi)["cpu"].read
    assert read() == pytest.approx(20)
    (tmp_path / "proc/stat").write_text("cpu  60 0 10 120 10 0 0 0 0 0\n")
    assert read() == pytest.approx(50)


@pytest.mark.parametrize("name", ["load", "memory", "temperature", "net_sent", "disk_read", "cpu"])
@virtual
async def test_sensor_that_is_not_there_fails_with_the_reason(tmp_path: Path, name: str) -> None:
    known = sample.sensors(Machine(tmp_path))
    with pytest.raises(FailError, match=f"the sensor '{name}' cannot be read here: "):
        await sample.collect(known, name, 0, 1, on_progress=lambda _: None)


@pytest.mark.parametrize(
    ("name", "duration_s", "interval_s", "reason"),
    [
        ("sonar", 1, 1, "no sensor 'sonar'; there are: cpu, load"),
        ("load", 1, 0.001, "at least 0.05"),
        ("load", 10**6, 1, "at most 86400"),
        ("load", float("nan"), 1, "at most 86400"),
        ("load", 80_000, 1, "more than 20000"),
    ],
)
@virtual
async def test_sample_that_makes_no_sense_is_refused(
    name: str, duration_s: float, interval_s: float, reason: str
) -> None:
    with pytest.raises(FailError, match=reason):
        await sample.collect(
            sample.sensors(Machine()), name, duration_s, interval_s, on_progress=lambda _: None
        )


@virtual
async def test_echo_and_sleep_through_an_agent() -> None:
    stage = Stage()
    for each in basic.functions():
        stage.agent.registry.add(each)
    async with stage.running() as server:
        assert (await server.until_final(await server.add("echo", 1, "a"))).output() == [1, "a"]
        assert (await server.until_final(await server.add("sleep", 2.5))).output() == [2.5]
        assert (await server.until_final(await server.add("sleep", 0))).output() == [0.0]
