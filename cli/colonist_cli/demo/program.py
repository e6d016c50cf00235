"""A program of the demo: started, killed, started again; its output goes to a file."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from colonist_cli.exits import CliError, Exit

STOP_S: Final = 5.0


class Program:
    """One `colonist ...` as a process of its own."""

    def __init__(
        self, name: str, arguments: Sequence[str], *, log: Path, environment: Mapping[str, str]
    ) -> None:
        self.name = name
        self._arguments = tuple(arguments)
        self._log = log
        self._environment = dict(environment)
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Its process id; 0 before its start."""
        return self._process.pid if self._process else 0

    async def start(self) -> None:
        """Start it, again as well."""
        with self._log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "colonist_cli.main",
                *self._arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environment,
                start_new_session=True,  # Ctrl-C is for us; we stop it in order
            )

    async def kill(self) -> None:
        """As a power cut would."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """Ask it to end; kill it when it does not."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                await self._end(signal.SIGTERM)
        await self._end(signal.SIGKILL)

    def check(self) -> None:
        """Raises `CliError` with its last words when it has ended by itself."""
        if self._process is not None and self._process.returncode is not None:
            lines = self._log.read_text(errors="replace").strip().splitlines()
            last = lines[-1] if lines else "nothing"
            raise CliError(Exit.FAILED, f"{self.name} ended by itself and said last: {last}")

    async def _end(self, number: signal.Signals) -> None:
        if self._process is None or self._process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)
        await self._process.wait()
