"""Where a benchmark runs: a directory on the disk, and the programs that it measures."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.profile import Profiler
from benchmarks.wire import HEALTH, Key

DEFAULT_COMMAND = "{python} -m colonist_server.main --host 127.0.0.1 --port {port} --store {store}"

_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 30.0
_POLL_S = 0.002
_LOG_TAIL = 2000


class Server:
    """A running server: its process, its port, and the key of its owner."""

    __slots__ = ("log", "owner", "pid", "port", "process", "profiler", "started")

    def __init__(
        self, process: subprocess.Popen[bytes], port: int, owner: Key, log: Path, started: float
    ) -> None:
        self.process = process
        self.pid = process.pid
        self.port = port
        self.owner = owner
        self.log = log
        self.started = started
        self.profiler: Profiler | None = None

    def first_answer(self, request: bytes) -> float:
        """Seconds from the start of the process to a 200 for the request."""
        until = self.started + _START_TIMEOUT_S
        while True:
            if ask(self.port, request):
                return time.perf_counter() - self.started
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode}: {self.tail}")
            if time.perf_counter() > until:
                raise RuntimeError(f"no answer within {_START_TIMEOUT_S} s: {self.tail}")
            time.sleep(_POLL_S)

    def stop(self) -> None:
        """SIGTERM to this process, SIGKILL when it does not end."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            print(f"  the server did not stop within {_STOP_TIMEOUT_S} s: killed")

    @property
    def tail(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-_LOG_TAIL:]


class Place:
    """Starts fresh servers, each on its own file and port."""

    def __init__(
        self, directory: Path, command: str = DEFAULT_COMMAND, span_s: float = 5.0
    ) -> None:
        """`command` may hold `{python}`, `{port}`, `{store}`; `span_s`: what windows last."""
        self.directory = directory
        self.command = command
        self.span_s = span_s
        self.profile_to: Path | None = None
        self._serial = 0

    @asynccontextmanager
    async def server(self) -> AsyncGenerator[Server, None]:
        """A server with nothing in it, answering; its files go when it is done."""
        folder = self.folder()
        server = self.start(folder, Key())
        try:
            server.first_answer(HEALTH)
            if self.profile_to is not None:
                server.profiler = Profiler(server.pid, self.profile_to)
            yield server
        finally:
            await asyncio.to_thread(server.stop)
            shutil.rmtree(folder, ignore_errors=True)

    @asynccontextmanager
    async def responder(self, body: bytes) -> AsyncGenerator[Server, None]:
        """A server that gives one canned answer: what the generator is measured against."""
        folder = self.folder()
        (folder / "body").write_bytes(body)
        port = free_port()
        arguments = [sys.executable, "-m", "benchmarks.responder", str(port), str(folder / "body")]
        server = _spawn(arguments, folder, port, Key(), Path(__file__).parent.parent)
        try:
            server.first_answer(HEALTH)
            yield server
        finally:
            await asyncio.to_thread(server.stop)
            shutil.rmtree(folder, ignore_errors=True)

    def folder(self) -> Path:
        """A new directory for one server."""
        self._serial += 1
        folder = self.directory / f"run-{os.getpid()}-{self._serial}"
        folder.mkdir(parents=True)
        return folder

    def start(self, folder: Path, owner: Key) -> Server:
        """A server process on the store in the folder; it may not answer yet."""
        port = free_port()
        text = self.command.format(python=sys.executable, port=port, store=self.store(folder))
        return _spawn(shlex.split(text), folder, port, owner, folder)

    def store(self, folder: Path) -> str:
        """What the server in a folder stores in."""
        return f"sqlite:{folder / 'store.db'}"


def _spawn(arguments: Sequence[str], folder: Path, port: int, owner: Key, cwd: Path) -> Server:
    log = folder / "server.log"
    environment = {**os.environ, "COLONIES_SERVER_ID": owner.id, "HOME": str(folder)}
    environment["COLONIST_DEBUGGABLE"] = "true"  # else only root sees how much memory it takes
    with log.open("wb") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            list(arguments),
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
            cwd=cwd,
        )
    return Server(process, port, owner, log, started)


def ask(port: int, request: bytes) -> bool:
    """Whether a fresh connection gets a 200 for the request, without an event loop."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(request)
            return connection.recv(4096).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
