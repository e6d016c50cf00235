"""Real etcd on the loopback interface, started, killed, paused and mistreated by a test.

    async with cluster(3) as etcd:
        connect(etcd.endpoints)
        etcd.members[0].kill()              # -9
        await etcd.members[0].restart()     # same data, same ports

Each member has its own process, folder and ports, so tests may run side by side. Everything is
synced to disk as in production: a killed member must remember what it acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncGenerator, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
from aetcd import rpc

from tests.support import certificates, parts
from tests.support.ports import HOST, free_ports

START_S = 30.0
STOP_S = 10.0
POLL_S = 0.02
TRIES = 3
ROOT = ("root", "root's secret")
USER = ("colonist", "colonist's secret")


class EtcdError(Exception):
    """A member did not do what was asked; the message holds its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How members run; the defaults are etcd's own, but for elections, which are quicker."""

    heartbeat_ms: int = 50
    election_ms: int = 500
    tls: bool = False  # clients must show a certificate
    users: str = ""  # prefix that `USER` may use; only `ROOT` may use the rest
    quota_bytes: int = 0
    max_txn_ops: int = 0
    part: str = ""  # of tests/support/parts.py; else the best there is

    def flags(self) -> list[str]:
        """As etcd takes them, certificates excepted."""
        flags = [f"--heartbeat-interval={self.heartbeat_ms}", "--log-level=warn"]
        flags.append(f"--election-timeout={self.election_ms}")
        if self.quota_bytes:
            flags.append(f"--quota-backend-bytes={self.quota_bytes}")
        if self.max_txn_ops:
            flags.append(f"--max-txn-ops={self.max_txn_ops}")
        return flags


class Member:
    """One etcd after the other on the same ports and data."""

    def __init__(self, name: str, folder: Path, ports: Sequence[int], options: Options) -> None:
        self.name = name
        self.client_port, self.peer_port, self.health_port = ports
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._command: list[str] = []

    @property
    def endpoint(self) -> str:
        """Where clients connect: host:port."""
        return f"{HOST}:{self.client_port}"

    @property
    def peer(self) -> str:
        return f"{self.name}=http://{HOST}:{self.peer_port}"

    @property
    def pid(self) -> int:
        """The process id of the running member."""
        if self._process is None:
            raise EtcdError(f"{self.name} is not running")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None

    @property
    def log(self) -> Path:
        return self._folder / f"{self.name}.log"

    def spawn(self, peers: str, tls: certificates.Certificates | None) -> None:
        """Start the process; `until_healthy` tells when it serves."""
        scheme = "https" if tls else "http"
        client, peer = f"{scheme}://{self.endpoint}", f"http://{HOST}:{self.peer_port}"
        self._command = [
            # The kernel ends it with the tests, however they end.
            *(["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []),
            str(parts.need(self._options.part) if self._options.part else parts.etcd().path),
            f"--name={self.name}",
            f"--data-dir={self._folder / self.name}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--listen-metrics-urls=http://{HOST}:{self.health_port}",
            f"--initial-cluster={peers}",
            *self._options.flags(),
            *(tls.etcd_flags() if tls else []),
        ]
        self._run()

    async def until_healthy(self) -> None:
        """Return once it serves, as a member of a cluster that has a leader."""
        await asyncio.to_thread(self.wait_healthy)

    def wait_healthy(self) -> None:
        end = time.monotonic() + START_S
        while not self._is_healthy():
            if self._process is None or self._process.poll() is not None:
                self._process = None
                raise EtcdError(f"{self.name} ended at its start:\n{self._tail()}")
            if time.monotonic() > end:
                raise EtcdError(f"{self.name}: not healthy in {START_S} s:\n{self._tail()}")
            time.sleep(POLL_S)

    def kill(self) -> None:
        """End it as a power cut of the process would; does nothing when it is down."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in order."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)
        end = time.monotonic() + STOP_S
        while not self._is_frozen():  # a thread that runs just now may still answer
            if time.monotonic() > end:
                raise EtcdError(f"{self.name} does not stand still")
            time.sleep(0.001)

    def _is_frozen(self) -> bool:
        threads = Path(f"/proc/{self.pid}/task").glob("*/stat")
        try:
            return all(each.read_text().rpartition(")")[2].split()[0] == "T" for each in threads)
        except OSError:  # one has just ended
            return False

    def resume(self) -> None:
        """Let a frozen one go on."""
        os.kill(self.pid, signal.SIGCONT)

    def begin_restart(self) -> None:
        """Kill it if it runs, and start it on the data it had."""
        self.kill()
        self._run()

    async def restart(self) -> None:
        """The same, and wait until it serves."""
        self.begin_restart()
        await self.until_healthy()

    def _run(self) -> None:
        with self.log.open("ab") as log:
            # From the main thread: the kernel ends it with the thread that started it.
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        process.send_signal(signal.SIGCONT)  # a frozen one would not hear SIGTERM
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _is_healthy(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self.health_port, timeout=1.0)
        try:
            connection.request("GET", "/health")
            return b'"true"' in connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _tail(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]


class Cluster:
    """One member, or several that know each other."""

    def __init__(self, size: int, folder: Path, options: Options) -> None:
        self.options = options
        self.tls = certificates.make(folder / "tls") if options.tls else None
        ports = free_ports(3 * size)
        self.members = [
            Member(f"m{n}", folder, ports[3 * n : 3 * n + 3], options) for n in range(size)
        ]

    @property
    def endpoints(self) -> list[str]:
        return [member.endpoint for member in self.members]

    def start(self) -> None:
        """Start all and wait until all serve; with users, add them."""
        peers = ",".join(member.peer for member in self.members)
        for member in self.members:
            member.spawn(peers, self.tls)
        for member in self.members:
            member.wait_healthy()
        if self.options.users:
            add_users(self)

    def kill(self) -> None:
        for member in self.members:
            member.kill()

    def channel(self) -> grpc.Channel:
        """A channel to the first member, with the client's certificate where one is needed."""
        if self.tls is None:
            return grpc.insecure_channel(self.endpoints[0])
        return grpc.secure_channel(self.endpoints[0], self.tls.grpc_credentials())


@contextlib.contextmanager
def running_cluster(size: int, options: Options) -> Generator[Cluster, None, None]:
    """The same as `cluster`, for fixtures that outlive an event loop."""
    for left in reversed(range(TRIES)):
        with tempfile.TemporaryDirectory(prefix="colonist-etcd-") as folder:
            started = Cluster(size, Path(folder), options)
            try:
                try:
                    started.start()
                except EtcdError as error:
                    if left and "address already in use" in str(error):
                        continue  # somebody was quicker to take a port
                    raise
                yield started
                return
            finally:
                started.kill()


@contextlib.asynccontextmanager
async def cluster(size: int = 1, options: Options | None = None) -> AsyncGenerator[Cluster, None]:
    """A cluster for the length of a block."""
    with running_cluster(size, options or Options()) as started:
        yield started


def add_users(cluster: Cluster) -> None:
    """`ROOT`, who may do all, and `USER`, who may use one prefix; then nobody else may anything."""
    prefix = cluster.options.users.encode()
    end = prefix[:-1] + bytes([prefix[-1] + 1])
    permission = rpc.Permission(permType=rpc.Permission.READWRITE, key=prefix, range_end=end)
    with cluster.channel() as channel:
        auth = rpc.AuthStub(channel)
        for name, password in (ROOT, USER):
            auth.UserAdd(rpc.AuthUserAddRequest(name=name, password=password))
            auth.RoleAdd(rpc.AuthRoleAddRequest(name=name))
            auth.UserGrantRole(rpc.AuthUserGrantRoleRequest(user=name, role=name))
        auth.RoleGrantPermission(rpc.AuthRoleGrantPermissionRequest(name=USER[0], perm=permission))
        auth.AuthEnable(rpc.AuthEnableRequest())
