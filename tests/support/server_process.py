"""A real server process on a free port, to be killed and started again on the same store."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

START_S = 20.0


class ServerProcess:
    """One server, known by its pid; `url` stays the same over restarts."""

    def __init__(self, folder: Path, owner: str) -> None:
        self._folder = folder
        self._owner = owner
        self._port = _free_port()
        self._process: asyncio.subprocess.Process | None = None
        self._output = (folder / "server.log").open("ab")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def log(self) -> str:
        return (self._folder / "server.log").read_text()

    async def start(self) -> None:
        """Start, and wait until it answers."""
        flags = ["--port", str(self._port), "--store", f"sqlite:{self._folder / 'store.db'}"]
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "colonist_server.main",
            *flags,
            env={**os.environ, "COLONIES_SERVER_ID": self._owner},
            stdout=self._output,
            stderr=self._output,
        )
        async with asyncio.timeout(START_S), aiohttp.ClientSession() as session:
            while not await self._is_up(session):
                if self._process.returncode is not None:
                    raise AssertionError(f"the server ended: {self.log}")

    async def _is_up(self, session: aiohttp.ClientSession) -> bool:
        try:
            async with session.get(f"{self.url}/readyz") as reply:
                return reply.status == 200
        except aiohttp.ClientConnectionError:
            await asyncio.sleep(0.01)  # a poll of another process: there is nothing to wait on
            return False

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal it and wait for its end; the exit code."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(number)
        async with asyncio.timeout(START_S):
            return await self._process.wait()

    @property
    def writer(self) -> int:
        """The pid of the store's writer, the server's one child."""
        assert self._process is not None
        tasks = Path(f"/proc/{self._process.pid}/task").glob("*/children")
        children = [child for task in tasks for child in task.read_text().split()]
        assert len(children) == 1, children
        return int(children[0])

    async def ended(self) -> int:
        """The exit code, once it has ended by itself."""
        assert self._process is not None
        async with asyncio.timeout(START_S):
            return await self._process.wait()

    async def kill(self) -> None:
        """No chance to finish anything."""
        await self.stop(signal.SIGKILL)

    def close(self) -> None:
        self._output.close()


@asynccontextmanager
async def server_process(folder: Path, owner: str) -> AsyncGenerator[ServerProcess]:
    """A server that runs until the block is left."""
    server = ServerProcess(folder, owner)
    try:
        await server.start()
        yield server
        assert await server.stop() == 0, server.log
    finally:
        await server.kill()
        server.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
