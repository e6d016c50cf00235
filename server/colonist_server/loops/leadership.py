"""Which node leads: the loops that act without a caller act there only.

The key `nl` stands under a lease that its holder renews each second. All others follow the key in
the watch, and try for it as soon as it is gone. A leader that could not renew in time stops before
its lease can have ended. That is no proof that there is never a second one (a commit may be on its
way for long): each effect of a loop is a guarded commit, which takes place once, whoever tries it.

A node whose clock is off from that of most of them does not lead.

On a store that is not shared this node leads from the start, and nothing is written.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

from colonist_protocol.errors import ColonistError
from colonist_server.repo import keys
from colonist_server.repo.clock import Clock
from colonist_server.repo.nodes import Nodes
from colonist_server.repo.records import LeaderRecord, decode_leader, encode
from colonist_server.repo.writes import Writes
from colonist_server.store.interface import Guard, Put, Revision, StoreError

log = logging.getLogger(__name__)

LEASE_S: Final = 3.0
RENEW_S: Final = 1.0
SAFE_S: Final = 2.5
"""So long after the last renewal was sent its lease stands for sure, whatever the clocks do."""
RETRY_S: Final = 0.25
BARRIER_S: Final = 0.005

Work = Callable[[], Coroutine[Any, Any, None]]


class Leadership:
    """Whether this node leads. `name` is the node that does, as far as is known here; "": none."""

    __slots__ = (
        "_at_election",
        "_change",
        "_clock",
        "_elected",
        "_is_closing",
        "_is_shared",
        "_lease",
        "_nodes",
        "_record",
        "_revision",
        "_until",
        "_writes",
    )

    def __init__(self, writes: Writes, nodes: Nodes, clock: Clock) -> None:
        self._writes = writes
        self._nodes = nodes
        self._clock = clock
        self._is_shared = writes.store.is_shared
        self._is_closing = False
        self._record: LeaderRecord | None = None
        self._revision: Revision = 0
        self._lease = 0
        self._until = 0.0
        self._elected = asyncio.Event()
        self._change = asyncio.Event()
        self._at_election: list[Work] = []
        if self._is_shared:
            writes.view.hold(keys.LEADER, self._apply, self._held)

    @property
    def is_leader(self) -> bool:
        """Whether this node may act now."""
        if not self._is_shared:
            return True
        return self._elected.is_set() and self._clock.monotonic() < self._until

    @property
    def name(self) -> str:
        """The node that leads; "" while nobody does."""
        if not self._is_shared:
            return self._nodes.name
        return self._record.node if self._record is not None else ""

    async def wait(self) -> None:
        """Return when this node may act: at once where it leads."""
        while not self.is_leader:
            self._elected.clear()
            await self._elected.wait()

    def at_election(self, work: Work) -> None:
        """Do this whenever this node begins to lead, in the background; it takes care of errors."""
        self._at_election.append(work)

    # -- the key

    def _apply(self, key: bytes, value: bytes | None, revision: Revision) -> None:
        del key
        if revision > self._revision:
            self._revision = revision
            self._record = decode_leader(value) if value is not None else None
            self._change.set()

    def _held(self) -> set[bytes]:
        return {keys.LEADER} if self._record is not None else set()

    # -- leading

    async def run(self) -> None:
        """Try to lead, and lead, until cancelled."""
        async with asyncio.TaskGroup() as group:
            if not self._is_shared:
                self._begin(group)
                return
            while not self._is_closing:
                await self._nobody()
                if await self._campaign():
                    await self._lead(group)

    async def close(self) -> None:
        """Lead no more; another node may begin at once."""
        self._is_closing = True
        self._change.set()
        await self._resign()

    async def _resign(self) -> None:
        lease, self._lease, self._until = self._lease, 0, 0.0
        if lease:
            with suppress(StoreError):
                await self._writes.store.revoke(lease)

    @property
    def _may_go_on(self) -> bool:
        """What is done in time is done by the clock of most."""
        return self._is_own and not self._nodes.is_outvoted

    @property
    def _is_own(self) -> bool:
        return self._record is not None and self._record.instance == self._nodes.instance

    async def _nobody(self) -> None:
        """Wait until nobody leads."""
        while self._record is not None:
            self._change.clear()
            await self._change.wait()

    async def _campaign(self) -> bool:
        """Try once; False when somebody else was faster, or the store does not answer."""
        if self._is_closing:
            return False
        if self._nodes.is_outvoted:  # the others are there, and can
            await asyncio.sleep(RETRY_S)
            return False
        try:
            return await self._put_key()
        except (ColonistError, StoreError) as error:
            log.warning("node=%s cannot try to lead: %s", self._nodes.name, error)
            await self._resign()
            await asyncio.sleep(RETRY_S)
            return False

    async def _put_key(self) -> bool:
        until = self._clock.monotonic() + SAFE_S
        self._lease = await self._writes.store.lease(LEASE_S)
        record = LeaderRecord(self._nodes.name, self._nodes.instance)
        put = Put(keys.LEADER, encode(record), self._lease)
        if await self._writes.commit([Guard(keys.LEADER, 0)], [put]) is None:
            await self._resign()
            await self._writes.refresh([keys.LEADER])
            return False
        self._until = until
        return True

    async def _lead(self, group: asyncio.TaskGroup) -> None:
        log.info("node=%s leads", self._nodes.name)
        beginning = group.create_task(self._catch_up(group))
        try:
            await self._keep()
        finally:
            beginning.cancel()
        self._elected.clear()
        await self._resign()
        log.log(
            logging.INFO if self._is_closing else logging.WARNING,
            "node=%s leads no more",
            self._nodes.name,
        )

    async def _catch_up(self, group: asyncio.TaskGroup) -> None:
        """See all that was committed before; then act."""
        newest = await self._newest()
        while self._writes.view.reached < newest:  # noqa: ASYNC110 - seldom, and soon over
            await asyncio.sleep(BARRIER_S)
        self._begin(group)

    async def _newest(self) -> Revision:
        while True:
            try:
                return await self._writes.newest()
            except ColonistError as error:
                log.warning("node=%s cannot begin to lead: %s", self._nodes.name, error)
                await asyncio.sleep(RETRY_S)

    def _begin(self, group: asyncio.TaskGroup) -> None:
        self._elected.set()
        for work in self._at_election:
            group.create_task(work())

    async def _keep(self) -> None:
        while self._may_go_on and await self._renew():  # noqa: ASYNC110 - it waits for time
            await asyncio.sleep(RENEW_S)

    async def _renew(self) -> bool:
        """Renew, as often as it takes; False when the time is over, or the lease."""
        while (sent := self._clock.monotonic()) < self._until:
            try:
                async with asyncio.timeout_at(self._until):
                    is_there = await self._writes.store.keep_alive(self._lease)
            except (StoreError, TimeoutError) as error:
                log.warning("node=%s cannot renew its lead: %s", self._nodes.name, error)
                await asyncio.sleep(RETRY_S)
                continue
            if not is_there or self._clock.monotonic() >= self._until:
                return False
            self._until = sent + SAFE_S
            return True
        return False
