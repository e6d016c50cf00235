"""A real server process on a free port, to be killed and started again on the same store.

    async with server_process(folder, owner) as server:                     # SQLite in the folder
    async with server_process(folder, owner, store=url, node="n1") as one:  # one of several

Several processes may share a folder if their nodes have different names.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from tests.support.ports import free_ports

START_S = 30.0


class ServerProcess:
    """One server, known by its pid; `url` stays the same over restarts."""

    def __init__(
        self,
        folder: Path,
        owner: str,
        *,
        store: str = "",
        node: str = "server",
        program: str = "colonist_server.main",
        flags: Sequence[str] = (),
    ) -> None:
        self.node = node
        self._owner = owner
        self._port = free_ports(1)[0]
        self._process: asyncio.subprocess.Process | None = None
        self._log = folder / f"{node}.log"
        self._output = self._log.open("ab")
        self._command = [
            # The kernel ends it with the tests, however they end.
            *(["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []),
            *(sys.executable, "-m", program, "--port", str(self._port), "--node", node),
            *("--store", store or f"sqlite:{folder / 'store.db'}", "--keys", str(folder / "keys")),
            *flags,
        ]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start, and wait until it answers that it is ready."""
        await self.launch()
        await self.until_ready()

    async def launch(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            env={**os.environ, "COLONIES_SERVER_ID": self._owner},
            stdout=self._output,
            stderr=self._output,
        )

    async def until_ready(self) -> None:
        """Until it answers that it is ready. Raises `AssertionError` when it ends instead."""
        async with asyncio.timeout(START_S), aiohttp.ClientSession() as session:
            while not await self._is_up(session):
                if not self.is_running:
                    raise AssertionError(f"the server ended: {self.log}")

    async def ready(self) -> tuple[int, str]:
        """What it says of being ready: a status and a reason."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/readyz") as reply:
            return reply.status, await reply.text()

    async def _is_up(self, session: aiohttp.ClientSession) -> bool:
        try:
            async with session.get(f"{self.url}/readyz") as reply:
                if reply.status == 200:
                    return True
        except aiohttp.ClientConnectionError:
            pass
        await asyncio.sleep(0.01)  # a poll of another process: there is nothing to wait on
        return False

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal it and wait for its end; the exit code."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(number)
            self._process.send_signal(signal.SIGCONT)  # a frozen one would not hear SIGTERM
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
        """No chance to finish anything; does nothing to one that never ran."""
        if self._process is not None:
            await self.stop(signal.SIGKILL)

    def freeze(self) -> None:
        """It stands still: connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen one go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def close(self) -> None:
        self._output.close()


@asynccontextmanager
async def server_process(
    folder: Path,
    owner: str,
    *,
    store: str = "",
    node: str = "server",
    program: str = "colonist_server.main",
    flags: Sequence[str] = (),
) -> AsyncGenerator[ServerProcess]:
    """A server that runs until the block is left."""
    server = ServerProcess(folder, owner, store=store, node=node, program=program, flags=flags)
    try:
        await server.start()
        yield server
        assert await server.stop() == 0, server.log
    finally:
        await server.kill()
        server.close()
