"""The real command, started through its script as a user would.

done = run("call", "echo", "1", home=home)
with running("up", "--port", "0", home=home, until="Ctrl-C stops it") as program: ...
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

BIN = Path(sys.executable).parent
SCRIPT = BIN / "colonist"
ROOT = Path(__file__).parents[2]
WAIT_S = 30.0


def environment(home: Path, **more: str) -> dict[str, str]:
    """A clean environment: the state folder, the script on the path, and what measures coverage."""
    kept = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE")}
    path = f"{BIN}:/usr/bin:/bin"
    base = {
        "PATH": path,
        "HOME": str(home),
        "COLONIST_HOME": str(home / "state"),
        "LANG": "C.UTF-8",
    }
    return {**kept, **base, **more}


def run(
    *arguments: str, home: Path, input: str = "", timeout_s: float = WAIT_S, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run to the end."""
    return subprocess.run(
        [str(SCRIPT), *arguments],
        env=environment(home, **more),
        cwd=home,
        input=input,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


@dataclass
class Running:
    """A program that runs; `lines` are what it has printed, on both streams."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def until(self, word: str) -> None:
        """Wait for a word of its output; fails with all of it."""
        with self._changed:
            found = self._changed.wait_for(
                lambda: word in self.text or self.process.poll() is not None, WAIT_S
            )
        assert found and word in self.text, f"no {word!r} in:\n{self.text}"  # noqa: PT018

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        """Send a signal and wait; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(WAIT_S)

    def read(self, stream: IO[str]) -> None:
        for line in stream:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()


@contextlib.contextmanager
def running(*arguments: str, home: Path, until: str, **more: str) -> Iterator[Running]:
    """Run `colonist ...` for the length of the block; returns once it has printed `until`."""
    with started([str(SCRIPT), *arguments], home, until=until, **more) as made:
        yield made


@contextlib.contextmanager
def started(command: list[str], home: Path, *, until: str, **more: str) -> Iterator[Running]:
    """Any command, likewise; it and all its children are killed at the end."""
    process = subprocess.Popen(
        command,
        env=environment(home, **more),
        cwd=home if command[0] == str(SCRIPT) else ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    made = Running(process)
    reader = threading.Thread(target=made.read, args=(process.stdout,), daemon=True)
    reader.start()
    try:
        made.until(until)
        yield made
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM if process.poll() is None else signal.SIGKILL)
        try:
            process.wait(10)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        reader.join(10)
        process.stdout.close()


def is_open(url: str) -> bool:
    """Whether somebody listens there."""
    host, _, port = url.rpartition("//")[2].rpartition(":")
    with socket.socket() as probe:
        probe.settimeout(5)
        return probe.connect_ex((host, int(port))) == 0


def children(group: int) -> list[int]:
    """The processes of a group that still live."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) == group and fields[0] != "Z":
                found.append(int(entry.name))
    return found
