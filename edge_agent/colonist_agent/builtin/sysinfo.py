"""`sysinfo`: what this machine is and how it is.

The result is one JSON text: `cpus`, `cpu_model`, `load`, `memory` (bytes), `disks` (bytes),
`uptime_s`, `temperatures` (Celsius), and `missing`: what the machine does not say, and why not.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable

from colonist_agent.builtin.machine import Machine, MissingError
from colonist_agent.function import PythonFunction


def function(machine: Machine) -> PythonFunction:
    """The function `sysinfo` of a machine."""

    def sysinfo() -> dict[str, object]:
        """What this machine is and how it is: CPUs, load, memory, disks, uptime, temperatures."""
        return collect(machine)

    return PythonFunction("sysinfo", sysinfo)


def collect(machine: Machine) -> dict[str, object]:
    """All readings that there are, and the reasons for those that there are not."""
    readings: dict[str, Callable[[], object]] = {
        "cpus": machine.cpu_count,
        "cpu_model": machine.cpu_model,
        "load": machine.load,
        "memory": machine.memory,
        "disks": machine.disks,
        "uptime_s": machine.uptime_s,
        "temperatures": machine.temperatures,
    }
    kernel = os.uname()
    found: dict[str, object] = {
        "host": kernel.nodename,
        "system": kernel.sysname,
        "kernel": kernel.release,
        "architecture": kernel.machine,
        "python": platform.python_version(),
    }
    missing: dict[str, str] = {}
    for name, read in readings.items():
        try:
            found[name] = read()
        except MissingError as error:
            missing[name] = str(error)
    if found.get("temperatures") == {}:
        missing["temperatures"] = "this machine has no sensors that can be read"
    return {**found, "missing": missing}
