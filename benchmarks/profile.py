"""Where the server's time goes: py-spy over the measured window, and its stacks added up."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

_RATE_HZ = 200
_STOP_TIMEOUT_S = 20.0
_SHOWN = 25


class Profiler:
    """Samples one process between `start` and `stop`; it slows what it watches a little."""

    __slots__ = ("_folder", "_pid", "_process", "_serial")

    def __init__(self, pid: int, folder: Path) -> None:
        self._pid = pid
        self._folder = folder
        self._serial = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, name: str) -> None:
        """Begin a sample file."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._serial += 1
        path = self._folder / f"{self._pid}-{self._serial}-{name}.folded"
        program = shutil.which("py-spy") or str(Path(sys.executable).with_name("py-spy"))
        flags = ["--threads", "--rate", str(_RATE_HZ), "--duration", "600"]
        command = [program, "record", "--pid", str(self._pid), *flags]
        command += ["--format", "raw", "--output", str(path)]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def stop(self) -> None:
        """End it; the file is written."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(_STOP_TIMEOUT_S)
            self._process = None


def report(path: Path) -> str:
    """The heaviest functions of one sample file: by their own time, and with what they call."""
    own: Counter[str] = Counter()
    whole: Counter[str] = Counter()
    total = 0
    for frames, count in _stacks(path):
        total += count
        own[frames[-1]] += count
        for frame in set(frames):
            whole[frame] += count
    lines = [f"{path.name}: {total} samples", "own time"]
    lines += [f"  {_percent(n, total)} {name}" for name, n in own.most_common(_SHOWN)]
    lines.append("with callees")
    lines += [f"  {_percent(n, total)} {name}" for name, n in whole.most_common(2 * _SHOWN)]
    return "\n".join(lines)


def _stacks(path: Path) -> Iterator[tuple[list[str], int]]:
    for line in path.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        frames = [_without_line(frame) for frame in stack.split(";")]
        yield frames, int(count)


def _without_line(frame: str) -> str:
    head, colon, tail = frame.rpartition(":")
    return f"{head})" if colon and tail.rstrip(")").isdigit() else frame


def _percent(count: int, total: int) -> str:
    return f"{100 * count / max(total, 1):5.1f} %"


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(report(Path(argument)))
