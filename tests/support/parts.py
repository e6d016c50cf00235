"""Real programs that tests talk to: where they are, their version, or why they are not here.

`scripts/fetch_part` brings them; this module only looks. A test that needs a part calls its
function, which gives the path or skips the test with the reason; `tests/conftest.py` reports every
part at the end.
"""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

CACHE = Path(__file__).parents[2] / ".cache" / "parts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A program that was found, or the reason why not."""

    name: str
    program: str
    path: Path | None
    version: str
    reason: str


# name: program, argument that makes it print its version
TABLE = {
    "mosquitto": ("mosquitto", "-h"),
    "etcd": ("etcd", "--version"),
    "micropython": ("micropython", "--version"),
}


def mosquitto() -> Path:
    """A runnable mosquitto; skips the test where there is none."""
    return need("mosquitto")


def need(name: str) -> Path:
    """A runnable part of the table; skips the test where there is none."""
    part = find(name)
    if part.path is None:
        pytest.skip(f"no {name}: {part.reason}")
    return part.path


def program(part: str, name: str) -> Path:
    """Another program of a part, such as mosquitto_pub."""
    need(part)
    path = _locate(part, name)
    if path is None:
        pytest.skip(f"no {name}, though {part} is here")
    return path


@cache
def find(name: str) -> Part:
    """Look for a part on this machine and in the cache."""
    executable, argument = TABLE[name]
    path = _locate(name, executable)
    if path is None:
        return Part(name=name, program=executable, path=None, version="", reason=_reason(name))
    done = subprocess.run([path, argument], capture_output=True, text=True, check=False, timeout=30)
    # Some print their version with an error code, so the text decides.
    version = re.search(r"\d+\.\d+(\.\d+)?", done.stdout + done.stderr)
    if version is None:
        reason = f"{path} does not run: {done.stderr.strip()[:200]}"
        return Part(name=name, program=executable, path=None, version="", reason=reason)
    return Part(name=name, program=executable, path=path, version=version[0], reason="")


def _locate(part: str, executable: str) -> Path | None:
    # Daemons live in sbin, which is on the path of few people.
    path = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin"
    found = shutil.which(executable, path=path) or shutil.which(
        executable, path=str(CACHE / part / "bin")
    )
    return Path(found) if found else None


def _reason(name: str) -> str:
    note = CACHE / f"{name}.missing"
    if note.exists():
        return f"scripts/fetch_part {name} could not get it: {note.read_text().strip()}"
    return f"not installed; scripts/fetch_part {name} brings it"
