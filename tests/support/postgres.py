"""A real PostgreSQL for tests, in a folder of its own, stopped by its own process id.

`postgres` refuses to run as root: then it runs as an unprivileged user.
"""

import atexit
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from tests.support import parts

USER = "colonist"
PASSWORD = "open sesame/:@%"  # noqa: S105 - of a server that lives as long as a test
START_S = 60.0
_AS = "nobody"


class Postgres:
    """A server on a free port of 127.0.0.1. It can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._data = folder / "data"
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres", *, user: str = USER) -> str:
        """An address without a password."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def create(self) -> None:
        """Lay down an empty cluster in which everybody needs the password."""
        word = self._folder / "password"
        word.write_text(PASSWORD)
        if os.geteuid() == 0:
            nobody = pwd.getpwnam(_AS)
            self._folder.chmod(0o755)
            for path in (self._folder, word):
                os.chown(path, nobody.pw_uid, nobody.pw_gid)
        initdb = [
            *(str(_program("initdb")), "-D", str(self._data), "-U", USER),
            *("-A", "scram-sha-256", "--pwfile", str(word), "-E", "UTF8", "--no-sync"),
        ]
        done = subprocess.run(
            initdb, capture_output=True, text=True, check=False, timeout=60, **_unprivileged()
        )
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        """Start it; returns when it answers."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self._folder),
            "max_connections": "60",
            "shared_buffers": "16MB",
        }
        given = [each for name, value in settings.items() for each in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(_program("postgres")), "-D", str(self._data), *given],
                stdout=log,
                stderr=log,
                **_unprivileged(),
            )
        until = time.monotonic() + START_S
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < until, "postgres did not start in time"
            time.sleep(0.02)

    def _answers(self) -> bool:
        ready = [str(_program("pg_isready")), "-q", "-h", "127.0.0.1"]
        done = subprocess.run([*ready, "-p", str(self.port)], check=False, timeout=10)
        return done.returncode == 0

    def stop(self) -> None:
        """End it at once, with all connections."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(30)
            self._process = None


@contextmanager
def postgres() -> Generator[Postgres]:
    """A running server; skips the test where there is no PostgreSQL."""
    parts.need("postgresql")
    # Not under pytest's folder: other users may not enter that.
    folder = Path(tempfile.mkdtemp(prefix="colonist-pg-"))
    server = Postgres(folder)
    try:
        server.create()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _program(name: str) -> Path:
    """Where the unprivileged user can run it: of a package in a private folder, a copy."""
    path = parts.program("postgresql", name)
    if os.geteuid() != 0 or all(each.stat().st_mode & 0o001 for each in path.parents):
        return path
    return _copy(path.parent.parent) / "bin" / name


@cache
def _copy(install: Path) -> Path:
    """A copy of an installation that everybody may enter, with the libraries of its package."""
    package = install.parent
    place = Path(tempfile.mkdtemp(prefix="colonist-pg-"))
    place.chmod(0o755)
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    for each in (install, package.with_name(f"{package.name}.libs")):
        if each.exists():
            shutil.copytree(each, place / each.relative_to(package.parent), symlinks=True)
    for each in place.rglob("*"):  # what was installed under a strict umask is ours alone
        if not each.is_symlink():
            mode = each.stat().st_mode
            each.chmod(mode | 0o044 | (0o011 if mode & 0o100 else 0))
    return place / install.relative_to(package.parent)


def _unprivileged() -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam(_AS)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": [], "cwd": "/"}


def _free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return door.getsockname()[1]
