"""What the demo has done: real work on real input, and for each piece what must come out.

Pure but for looking at this machine: which files there are, and what their digests must be.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from colonist_cli.demo import pictures
from colonist_protocol import codec
from colonist_protocol.function_spec import Conditions, FunctionSpec
from colonist_protocol.process import Process, State

LEASE_S: Final = 20
SHORT_LEASE_S: Final = 2

_FILES: Final = ("bash", "python3", "env", "ls", "tar", "grep", "openssl", "perl", "find", "git")

Check = Callable[[Process], str]
"""What is wrong with how a process ended; "" when it is as it should be."""

Picture = Callable[[Process], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One process of the demo."""

    title: str
    spec: FunctionSpec
    check: Check
    picture: Picture = pictures.words
    fails: bool = False
    runs: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Where the demo plays: its colony, its type of executor, and the names of its agents."""

    colony: str
    type: str
    over_http: str
    over_mqtt: str

    def spec(
        self,
        function: str,
        *args: Any,
        only: str = "",
        lease_s: int = LEASE_S,
        **kwargs: Any,
    ) -> FunctionSpec:
        """A call, for either agent or for one of them."""
        return FunctionSpec(
            funcname=function,
            args=msgspec.Raw(codec.encode(list(args))),
            kwargs=msgspec.Raw(codec.encode(kwargs)),
            maxwaittime=-1,
            maxexectime=lease_s,
            maxretries=3,
            conditions=Conditions(
                colonyname=self.colony,
                executortype=self.type,
                executornames=[only] if only else None,
            ),
        )


def work(scene: Scene, files: Sequence[Path]) -> list[Job]:
    """The first act: both agents, each function, what fails, and what hangs the first time."""
    jobs = [
        job
        for name in (scene.over_http, scene.over_mqtt)
        for job in (_sysinfo(scene, name), _sample(scene, "cpu", name), _kernel(scene, name))
    ]
    jobs += [_sample(scene, sensor) for sensor in ("load", "memory", "disk_written")]
    jobs += [_checksum(scene, file) for file in files]
    jobs += [_disk(scene), _echo(scene), _echo(scene, only=scene.over_mqtt)]
    jobs += [_hangs_once(scene), _forbidden(scene), _unknown(scene)]
    return jobs


def survivor(scene: Scene) -> Job:
    """The second act: whoever runs this is killed."""
    return Job(
        title="sample cpu, its agent dies",
        spec=scene.spec("sample", "cpu", duration_s=1.2, interval_s=0.1, lease_s=SHORT_LEASE_S),
        check=_succeeded,
        picture=pictures.series,
        runs=2,
    )


def burst(scene: Scene, count: int) -> list[FunctionSpec]:
    """The last act: much small work at once."""
    return [scene.spec("echo", number) for number in range(count)]


def real_files(extra: Sequence[Path], count: int) -> list[Path]:
    """Files of this machine that are worth a checksum: programs, and ours."""
    programs = [Path("/usr/bin") / name for name in _FILES]
    found = [path for path in (*extra, *programs) if path.is_file() and os.access(path, os.R_OK)]
    return found[:count]


def _sysinfo(scene: Scene, only: str) -> Job:
    def check(process: Process) -> str:
        host = _object(process).get("host")
        return "" if host == os.uname().nodename else f"host {host!r} is not this machine"

    return Job(
        title="sysinfo",
        spec=scene.spec("sysinfo", only=only),
        check=_both(_succeeded, check),
        picture=pictures.machine,
    )


def _sample(scene: Scene, sensor: str, only: str = "") -> Job:
    def check(process: Process) -> str:
        found = _object(process)
        values = found.get("values", [])
        return "" if found.get("sensor") == sensor and len(values) >= 2 else "too few values"  # noqa: PLR2004

    return Job(
        title=f"sample {sensor}",
        spec=scene.spec("sample", sensor, duration_s=1.5, interval_s=0.1, only=only),
        check=_both(_succeeded, check),
        picture=pictures.series,
    )


def _checksum(scene: Scene, file: Path) -> Job:
    def check(process: Process) -> str:
        expected = hashlib.sha256(file.read_bytes()).hexdigest()
        return "" if process.output()[0] == expected else f"the digest of {file} is wrong"

    return Job(
        title=f"checksum {file.name}",
        spec=scene.spec("checksum", str(file)),
        check=_both(_succeeded, check),
        picture=pictures.digest,
    )


def _kernel(scene: Scene, only: str) -> Job:
    def check(process: Process) -> str:
        return "" if os.uname().release in str(process.output()[0]) else "not this kernel"

    return Job(
        title="kernel (a command)",
        spec=scene.spec("kernel", only=only),
        check=_both(_succeeded, check),
    )


def _disk(scene: Scene) -> Job:
    return Job(
        title="disk / (a command)", spec=scene.spec("disk", "/"), check=_succeeded,
        picture=pictures.last_line,
    )  # fmt: skip


def _echo(scene: Scene, only: str = "") -> Job:
    sent: list[Any] = ["smörgås", 9007199254740993, -0.5]

    def check(process: Process) -> str:
        return "" if process.output() == sent else f"{process.output()} came back for {sent}"

    return Job(
        title="echo", spec=scene.spec("echo", *sent, only=only), check=_both(_succeeded, check)
    )


def _hangs_once(scene: Scene) -> Job:
    return Job(
        title="a sensor that hangs once",
        spec=scene.spec("hangs_once", lease_s=SHORT_LEASE_S),
        check=_succeeded,
        runs=2,
    )


def _forbidden(scene: Scene) -> Job:
    return Job(
        title="checksum /etc/passwd",
        spec=scene.spec("checksum", "/etc/passwd"),
        check=_failed_with("not below an allowed root"),
        fails=True,
    )


def _unknown(scene: Scene) -> Job:
    return Job(
        title="launch_rocket",
        spec=scene.spec("launch_rocket"),
        check=_failed_with("no function 'launch_rocket'"),
        fails=True,
    )


def _succeeded(process: Process) -> str:
    if process.state == State.SUCCESS:
        return ""
    return f"it did not succeed: {'; '.join(process.errors) or 'no reason given'}"


def _failed_with(reason: str) -> Check:
    def check(process: Process) -> str:
        if process.state == State.FAILED and reason in "; ".join(process.errors):
            return ""
        return f"it should have failed with {reason!r}: {process.errors}"

    return check


def _both(first: Check, second: Check) -> Check:
    return lambda process: first(process) or second(process)


def _object(process: Process) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(process.output()[0])
    return found
