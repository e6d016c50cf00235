"""A real mosquitto on the loopback interface, started, stopped and mistreated by a test.

    async with running_broker() as broker:
        await connect(broker.host, broker.port)
        await broker.restart()          # same port, same persistence

Each broker has its own process, folder and port, so tests may run side by side.
"""

import asyncio
import contextlib
import os
import pwd
import signal
import socket
import tempfile
from collections.abc import AsyncGenerator
from pathlib import Path

from tests.support import parts

ANYONE = "allow_anonymous true\n"  # safe: the listener below is on the loopback interface
STARTUP_S = 20.0
STOP_S = 10.0
RETRY_S = 0.02


class BrokerError(Exception):
    """The broker did not do what was asked; the message holds its log."""


class Broker:
    """One mosquitto process after the other on one port."""

    host = "127.0.0.1"

    def __init__(self, executable: Path, folder: Path, config: str) -> None:
        self.port = free_port()
        self.folder = folder
        self.log = folder / "mosquitto.log"
        self._executable = executable
        self._process: asyncio.subprocess.Process | None = None
        self._config = folder / "mosquitto.conf"
        data = folder / "data"
        data.mkdir(exist_ok=True)
        self._config.write_text(
            f"listener {self.port} {self.host}\n"
            f"persistence true\npersistence_location {data}/\nautosave_interval 1\n"
            f"log_dest stderr\nlog_type all\nuser {_me()}\n{config}"
        )

    @property
    def pid(self) -> int:
        """The process id of the running broker."""
        if self._process is None:
            raise BrokerError("the broker is not running")
        return self._process.pid

    async def start(self) -> None:
        """Start it and return once it accepts connections."""
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                self._executable, "-c", self._config, stdout=log, stderr=log
            )
        try:
            async with asyncio.timeout(STARTUP_S):
                await self._until_accepting()
        except TimeoutError:
            await self.kill()
            raise BrokerError(f"no connection in {STARTUP_S} s:\n{self._tail()}") from None

    async def stop(self) -> None:
        """End it in order, so that it saves its persistence; does nothing when it is down."""
        await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        """End it as a power cut would."""
        await self._end(signal.SIGKILL)

    async def restart(self) -> None:
        """Stop it in order and start it again with the same port and persistence."""
        await self.stop()
        await self.start()

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen one go on."""
        os.kill(self.pid, signal.SIGCONT)

    async def _until_accepting(self) -> None:
        while True:
            if self._process is None or self._process.returncode is not None:
                raise BrokerError(f"mosquitto ended at its start:\n{self._tail()}")
            try:
                _, writer = await asyncio.open_connection(self.host, self.port)
            except OSError:
                await asyncio.sleep(RETRY_S)
            else:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
                return

    async def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(how)
            process.send_signal(signal.SIGCONT)  # a frozen one would not hear SIGTERM
        try:
            await asyncio.wait_for(process.wait(), STOP_S)
        except TimeoutError:
            process.kill()
            await process.wait()

    def _tail(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]


@contextlib.asynccontextmanager
async def running_broker(config: str = ANYONE) -> AsyncGenerator[Broker, None]:
    """A broker for the length of a block; `config` is added to listener and persistence."""
    executable = parts.mosquitto()
    with tempfile.TemporaryDirectory(prefix="colonist-broker-") as folder:
        broker = Broker(executable, Path(folder), config)
        try:
            await broker.start()
            yield broker
        finally:
            await broker.stop()


def free_port() -> int:
    """A TCP port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _me() -> str:
    # As root, mosquitto would change to a user that may not read a test's folder.
    return pwd.getpwuid(os.geteuid()).pw_name
