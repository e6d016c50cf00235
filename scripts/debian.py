"""Debian packages without root: fetched with apt's own signature checks, unpacked into a folder.

Nothing here changes the machine: apt's lists and archives are kept in a private folder, and
packages are unpacked, not installed. Runs on the system's Python: standard library only.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path


class UnavailableError(Exception):
    """The packages cannot be had here; the message says why."""


def unpack(packages: list[str], into: Path, *, cache: Path, closure: bool = True) -> list[str]:
    """Unpack `packages` (and their missing dependencies if `closure`); return what was unpacked."""
    for tool in ("apt-get", "dpkg-deb"):
        if not shutil.which(tool):
            raise UnavailableError(f"no {tool} on this machine")
    try:
        archives = _download(packages, closure, cache, _private(cache, own_lists=False))
    except UnavailableError:
        # The machine's package lists are missing or stale: fetch fresh ones of our own.
        options = _private(cache, own_lists=True)
        _run(["apt-get", *options, "update"])
        archives = _download(packages, closure, cache, options)
    into.mkdir(parents=True, exist_ok=True)
    for archive in archives:
        _run(["dpkg-deb", "-x", str(archive), str(into)])
    return [archive.name.split("_")[0] for archive in archives]


def _private(cache: Path, *, own_lists: bool) -> list[str]:
    for folder in ("archives/partial", "lists/partial"):
        (cache / folder).mkdir(parents=True, exist_ok=True)
    options: dict[str, object] = {
        "Dir::Cache": cache,
        "Dir::Cache::archives": cache / "archives",
        "Debug::NoLocking": 1,
    }
    if own_lists:
        options["Dir::State::lists"] = cache / "lists"
    if os.geteuid() == 0:
        options["APT::Sandbox::User"] = "root"  # the user _apt may not write to our folder
    return [part for key, value in options.items() for part in ("-o", f"{key}={value}")]


def _download(packages: list[str], closure: bool, cache: Path, options: list[str]) -> list[Path]:
    wanted = _missing(packages, options) if closure else packages
    fresh = cache / "archives" / "fresh"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    _run(["apt-get", *options, "download", *wanted], cwd=fresh)
    return sorted(fresh.glob("*.deb"))


def _missing(packages: list[str], options: list[str]) -> list[str]:
    """What apt would install for `packages` on this machine, each with its version."""
    plan = _run(
        ["apt-get", *options, "install", "--simulate", "--no-install-recommends", *packages]
    )
    found = re.findall(r"^Inst (\S+) (?:\[\S+\] )?\((\S+)", plan, flags=re.MULTILINE)
    # The machine's own C library must stay the one in use.
    return [f"{name}={version}" for name, version in found if not name.startswith("libc6")]


def _run(command: list[str], cwd: Path | None = None) -> str:
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        errors = [line for line in lines if line.startswith("E:")] or lines[-1:]
        raise UnavailableError(f"{command[0]} failed: {' '.join(errors[:2])}")
    return done.stdout
