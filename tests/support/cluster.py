"""Several servers on one store, in virtual time: started, killed, cut off, clocks set wrong.

async with cluster("a", "b") as made:
    await made["a"].bench.found("e1")
    await made.kill("a")
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

from colonist_protocol.tokens import ServerKeys
from colonist_server.archive.interface import Archive
from colonist_server.config import ServerConfig
from colonist_server.repo import keys
from colonist_server.store.interface import Guard, Op, Revision, UnavailableError
from colonist_server.work import at_work
from tests.support.rooms import OWNER, SERVER_KEYS, Bench, LoopClock
from tests.support.shared_store import Connection, SharedStore

LAG_S = 0.002
LATE_S = 8.0

# What a node writes for itself.
_HOUSE = (b"n/", b"nl", b"nh/", b"m/", b"f/", keys.EPOCH, keys.NEWEST_CHECKPOINT)


class WrongClock(LoopClock):
    """A clock that is so much ahead of all others."""

    def __init__(self, ahead_s: float = 0.0) -> None:
        super().__init__()
        self.ahead_s = ahead_s

    def now_ns(self) -> int:
        return super().now_ns() + int(self.ahead_s * 1e9)


class Line(Connection):
    """A node's way to the store; `die` ends the node, as the store sees it."""

    def __init__(self, shared: SharedStore) -> None:
        super().__init__(shared, lag_s=LAG_S)
        self.died = asyncio.Event()
        self.slow_s = 0.0
        """So long a commit is on its way that is not of the node's own house."""
        self.was_met = False
        self._left = -1
        self._way = ""
        self._only = b""
        self._stopped = False

    def die(self) -> None:
        """Nothing reaches the store any more, nor is anything answered."""
        self._stopped = True
        self.died.set()

    async def dead(self) -> None:
        """Wait until it has died, not for ever."""
        async with asyncio.timeout(300):
            await self.died.wait()

    def arm(self, at: int, way: str, only: bytes = b"") -> None:
        """Die before or after the commit number `at` from now, from 0 on, or while it is on its way
        and comes `late`; or live on and hear nothing of its answer, which was `lost`.

        `only` those count that begin with such a key.
        """
        self._left, self._way, self._only = at, way, only
        self.was_met = False

    async def _commit(self, guards: Sequence[Guard], ops: Sequence[Op]) -> Revision | None:
        if self._counts(ops[0][0]):
            self._left -= 1
            if self._left == -1:
                await self._meet(guards, ops)
            if self.slow_s:
                await asyncio.sleep(self.slow_s)
        return await super()._commit(guards, ops)

    def _counts(self, key: bytes) -> bool:
        return key.startswith(self._only) if self._only else not key.startswith(_HOUSE)

    async def _meet(self, guards: Sequence[Guard], ops: Sequence[Op]) -> None:
        self.was_met = True
        if self._way != "lost":
            self.die()
        if self._way == "late":
            self.shared.commit_late(LATE_S, guards, ops)
        if self._way in ("after", "lost"):
            await self.shared.commit(guards, ops)
        if self._way == "lost":
            raise UnavailableError("no answer in time")

    async def _travel(self) -> None:
        await super()._travel()
        if self._stopped:
            await asyncio.Event().wait()


class Member:
    """One server; `bench` calls it."""

    def __init__(
        self,
        shared: SharedStore,
        name: str,
        ahead_s: float,
        archive: Archive | None = None,
        server_keys: ServerKeys | None = None,
        **settings: Any,
    ) -> None:
        self.name = name
        self.server_keys = server_keys or SERVER_KEYS
        self.archive = archive
        self.line = Line(shared)
        self.clock = WrongClock(ahead_s)
        self.bench: Bench
        self._config = ServerConfig(**{"owner": OWNER.id, "node": name, **settings})
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stop = asyncio.Event()
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            async with at_work(
                self._config,
                self.line,
                self.clock,
                self._config.owner,
                server_keys=self.server_keys,
                archive=self.archive,
            ) as dispatch:
                self.bench = Bench(dispatch)
                self._ready.set_result(None)
                await self._stop.wait()
        except BaseException as error:
            if not self._ready.done():
                self._ready.set_exception(error)
            raise

    async def ready(self) -> None:
        """Wait until it serves. Raises why it does not."""
        await asyncio.shield(self._ready)

    async def stop(self) -> None:
        """Stop it in order."""
        self._stop.set()
        await self.task

    async def kill(self) -> None:
        """It is gone, without a word."""
        self.line.die()
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task

    @property
    def leads(self) -> bool:
        """Whether it says that it leads."""
        rooms = self.bench.rooms
        return rooms.leader() == self.name and rooms.settling._leads()


class Cluster:
    """The servers, by name."""

    def __init__(self, **settings: Any) -> None:
        self.store = SharedStore()
        self.members: dict[str, Member] = {}
        self._settings = settings

    def __getitem__(self, name: str) -> Member:
        return self.members[name]

    async def start(self, name: str, ahead_s: float = 0.0, **settings: Any) -> Member:
        """Start a server, again if it is gone."""
        member = Member(self.store, name, ahead_s, **{**self._settings, **settings})
        try:
            await member.ready()
        except BaseException:
            with suppress(BaseException):
                await member.task
            raise
        self.members[name] = member
        return member

    async def stop(self, name: str) -> None:
        await self.members.pop(name).stop()

    async def kill(self, name: str) -> None:
        await self.members.pop(name).kill()

    @property
    def leader(self) -> Member | None:
        """The server that leads; asserts that there is one at most."""
        leaders = [member for member in self.members.values() if member.leads]
        assert len(leaders) < 2
        return leaders[0] if leaders else None

    async def elected(self, within_s: float = 5.0) -> Member:
        """Wait until one of them leads."""
        async with asyncio.timeout(within_s):
            while (leader := self.leader) is None:
                await asyncio.sleep(0.01)
            return leader


@asynccontextmanager
async def cluster(*names: str, **settings: Any) -> AsyncGenerator[Cluster]:
    """Servers on one store; what is left of them is killed at the end."""
    made = Cluster(**settings)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(_end, made)
        for name in names:
            await made.start(name)
        yield made


async def _end(made: Cluster) -> None:
    for name in list(made.members):
        await made.kill(name)
    await made.store.close()
