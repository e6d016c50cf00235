"""Servers on one store, and the store's members, each of which can be harmed."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from colonist_server.archive.sql import SqlArchive
from colonist_server.store.opening import open_store
from tests.support import etcd, parts
from tests.support.etcd import Cluster, Options
from tests.support.rooms import OWNER
from tests.support.server_process import ServerProcess

PROGRAM = "colonist_server.main"
PREFIX = "colonist"
ARCHIVE_AFTER = "1s"


class Server:
    """A server as a victim."""

    def __init__(self, process: ServerProcess) -> None:
        self.process = process
        self.name = process.node

    async def kill(self) -> None:
        await self.process.kill()

    async def start(self) -> None:
        if not self.process.is_running:
            await self.process.launch()
        await self.process.until_ready()

    def freeze(self) -> None:
        self.process.freeze()

    def thaw(self) -> None:
        self.process.thaw()


class Member:
    """A member of etcd as a victim."""

    def __init__(self, member: etcd.Member) -> None:
        self.member = member
        self.name = f"etcd {member.name}"

    async def kill(self) -> None:
        if parts.etcd().version in parts.FORGETFUL_ETCD:
            self.member.stop()
        else:
            self.member.kill()

    async def start(self) -> None:
        await self.member.restart()

    def freeze(self) -> None:
        self.member.pause()

    def thaw(self) -> None:
        self.member.resume()


class House:
    """Everything that runs."""

    def __init__(
        self, store: str, servers: list[Server], members: list[Member], archive: str = ""
    ) -> None:
        self.store = store
        self.servers = servers
        self.members = members
        self.archive = archive
        self.archived = 0  # rows that a dump found there

    @property
    def urls(self) -> list[str]:
        return [server.process.url for server in self.servers]

    @property
    def log(self) -> str:
        tails = [(server.name, server.process.log[-3000:]) for server in self.servers]
        return "\n".join(f"--- {name}\n{tail}" for name, tail in tails)

    async def stop(self) -> None:
        """Let every server end in order."""
        for server in self.servers:
            code = await server.process.stop()
            assert code == 0, f"{server.name} ended with {code}: {server.process.log[-3000:]}"

    async def dump(self) -> dict[bytes, bytes]:
        """All that is stored and archived; servers on an embedded store must have stopped."""
        found: dict[bytes, bytes] = {}
        if self.archive:
            async with await SqlArchive.open(self.archive) as archive:
                found |= {row.key: row.value async for page in archive.snapshot() for row in page}
            self.archived = len(found)
        async with await open_store(self.store) as store:
            return found | {item.key: item.value for item in (await store.range(b"")).items}


@contextlib.asynccontextmanager
async def on_sqlite(folder: Path, *, program: str = PROGRAM) -> AsyncGenerator[House, None]:
    """One server on a file."""
    store = f"sqlite:{folder / 'store.db'}"
    async with _serving(folder, store, 1, program=program) as house:
        yield house


@contextlib.asynccontextmanager
async def on_etcd(
    folder: Path,
    *,
    servers: int = 3,
    members: int = 3,
    options: Options | None = None,
    program: str = PROGRAM,
    archive: str = "",
) -> AsyncGenerator[House, None]:
    """Several servers on a cluster; what has ended goes to an archive at once."""
    async with etcd.cluster(members, options) as cluster:
        victims = [Member(member) for member in cluster.members]
        async with _serving(
            folder, url(cluster), servers, members=victims, program=program, archive=archive
        ) as house:
            yield house


def url(cluster: Cluster) -> str:
    return f"etcd://{','.join(cluster.endpoints)}/{PREFIX}"


@contextlib.asynccontextmanager
async def _serving(
    folder: Path,
    store: str,
    count: int,
    *,
    members: Sequence[Member] = (),
    program: str,
    archive: str = "",
) -> AsyncGenerator[House, None]:
    flags = ("--archive", archive, "--archive-after-age", ARCHIVE_AFTER) if archive else ()
    processes = [
        ServerProcess(
            folder, OWNER.id, store=store, node=f"n{number}", program=program, flags=flags
        )
        for number in range(1, count + 1)
    ]
    try:
        for process in processes:
            await process.start()
        yield House(store, [Server(process) for process in processes], list(members), archive)
    finally:
        for process in processes:
            await process.kill()
            process.close()
