"""A node's sign of life on a store that others share: its record, under a lease, each second.

What comes back by the watch shows that the watch is alive. A node whose lease ended gets another
one. On a store that is not shared nothing is written, and nobody is told.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import accumulate
from typing import Final, NamedTuple

from colonist_protocol.errors import ColonistError, UnavailableError
from colonist_protocol.times import SECOND_NS
from colonist_server.repo import keys
from colonist_server.repo.clock import Clock
from colonist_server.repo.nodes import SKEW_NS, Nodes
from colonist_server.repo.records import NodeRecord, decode_node, encode
from colonist_server.repo.writes import Writes
from colonist_server.store.interface import Guard, Put, Revision, StoreError

log = logging.getLogger(__name__)

LEASE_S: Final = 10.0
EVERY_S: Final = 1.0
SOONEST_S: Final = 0.1
SILENT_S: Final = 2.5
"""A node that has not written for so long is dead, or as good as that: its name may be taken."""
LOOK_S: Final = 0.25
CLASSES_BYTES: Final = 65_536
FRAME_BYTES: Final = 8
BEHIND_S: Final = 2.0

Classes = Callable[[], tuple[tuple[bytes, str], ...]]


class About(NamedTuple):
    """What a node's record says beside what changes."""

    url: str
    owner: str = ""
    servers: tuple[str, ...] = ()


class _Echo(NamedTuple):
    """A write of which the watch has yet to tell."""

    revision: Revision
    at: float


class Heartbeat:
    """Writes this node's record; `fault` says why the node cannot be relied on."""

    __slots__ = (
        "_about",
        "_classes",
        "_clock",
        "_echo",
        "_is_leaving",
        "_is_shared",
        "_leads",
        "_lease",
        "_news",
        "_nodes",
        "_revision",
        "_trouble",
        "_writes",
        "_written_at",
    )

    def __init__(
        self,
        writes: Writes,
        nodes: Nodes,
        clock: Clock,
        *,
        about: About,
        classes: Classes,
        leads: Callable[[], bool],
    ) -> None:
        self._writes = writes
        self._nodes = nodes
        self._clock = clock
        self._about = about
        self._classes = classes
        self._leads = leads
        self._is_shared = writes.store.is_shared
        self._is_leaving = False
        self._news = asyncio.Event()
        self._lease = 0
        self._revision: Revision = 0
        self._echo: _Echo | None = None
        self._trouble = ""
        self._written_at = clock.monotonic()

    # -- how it stands

    @property
    def fault(self) -> str:
        """Why this node is not ready, for a person; "" when it is."""
        fault = self._writes.store.fault
        if fault or not self._is_shared:
            return fault
        return self._name_fault() or self._silence() or self._lag() or self._skew()

    def _name_fault(self) -> str:
        return _taken(self._nodes.name, "") if self._nodes.is_name_taken else ""

    def _silence(self) -> str:
        silent_s = self._clock.monotonic() - self._written_at
        if silent_s < EVERY_S + BEHIND_S:
            return ""
        reason = self._trouble or "the store does not answer"
        return f"the record of this node was not written for {silent_s:.0f} s: {reason}"

    @property
    def behind_s(self) -> float:
        """For how long the watch has owed what this node knows to be written."""
        echo = self._awaited()
        return self._clock.monotonic() - echo.at if echo is not None else 0.0

    def _lag(self) -> str:
        behind_s = self.behind_s
        return f"the watch is {behind_s:.0f} s behind" if behind_s > BEHIND_S else ""

    def _awaited(self) -> _Echo | None:
        """The oldest write known here that the watch has not brought."""
        if self._echo is not None and self._writes.view.watched_revision >= self._echo.revision:
            self._echo = None
        return self._echo

    def _skew(self) -> str:
        lead_ns = self._nodes.clock_lead_ns(is_leader=self._leads())
        if abs(lead_ns) <= SKEW_NS:
            return ""
        how = "ahead of" if lead_ns > 0 else "behind"
        return f"the clock is {abs(lead_ns) / SECOND_NS:.1f} s {how} that of the other nodes"

    # -- beginning

    async def claim(self) -> None:
        """Take this node's name. Raises `StoreError` while another server goes on under it.

        Whoever stopped without a word leaves its record behind until its lease ends; when that was
        not renewed for a while it is taken over.
        """
        if not self._is_shared:
            return
        self._lease = await self._writes.store.lease(LEASE_S)
        begun = since = self._clock.monotonic()
        seen: Revision = 0
        while True:
            item = await self._writes.read(keys.node(self._nodes.name))
            now = self._clock.monotonic()
            modified = item.modified if item is not None else 0
            if modified != seen:
                if item is not None and item.value and not seen:
                    log.warning(
                        "node=%s: another server has this name, or left it behind; waiting",
                        self._nodes.name,
                    )
                seen, since = modified, now
            is_free = item is None or not item.value or now - since >= SILENT_S
            if is_free and await self._put(modified):
                return
            if now - begun >= LEASE_S + SILENT_S:
                url = decode_node(item.value).url if item is not None and item.value else ""
                raise StoreError(_taken(self._nodes.name, url))
            await self._writes.store.keep_alive(self._lease)
            await asyncio.sleep(LOOK_S)

    async def run(self) -> None:
        """Write each second until cancelled. Raises `StoreError` when the name was taken."""
        while self._is_shared:
            await self._rest()
            try:
                async with asyncio.timeout(LEASE_S):
                    await self._beat()
            except (ColonistError, TimeoutError) as error:
                self._failed(str(error) or "the store does not answer")
            if self._nodes.is_name_taken and not self._is_leaving:
                raise StoreError(_taken(self._nodes.name, ""))

    def hasten(self) -> None:
        """There is news that others had better know soon."""
        self._news.set()

    async def _rest(self) -> None:
        await asyncio.sleep(SOONEST_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(EVERY_S - SOONEST_S):
                await self._news.wait()
        self._news.clear()

    def _failed(self, why: str) -> None:
        if not self._trouble:
            log.warning("node=%s cannot write its record: %s", self._nodes.name, why)
        self._trouble = why

    async def _beat(self) -> None:
        await self._renew()
        if not await self._put(self._revision):
            item = (await self._writes.refresh([keys.node(self._nodes.name)]))[0]
            self._revision = item.modified if item is not None else 0
            if not self._nodes.is_name_taken:
                await self._put(self._revision)

    async def _renew(self) -> None:
        try:
            if await self._writes.store.keep_alive(self._lease):
                return
            log.warning("node=%s: its lease had ended, it takes another", self._nodes.name)
            self._lease = await self._writes.store.lease(LEASE_S)
        except StoreError as error:
            raise UnavailableError(f"the lease cannot be renewed: {error}") from error

    async def _put(self, before: Revision) -> bool:
        at = self._clock.monotonic()
        key = keys.node(self._nodes.name)
        record = NodeRecord(
            instance=self._nodes.instance,
            url=self._about.url,
            clock_ns=self._clock.now_ns(),
            classes=_bounded(self._classes()),
            owner=self._about.owner,
            servers=self._about.servers,
            is_leaving=self._is_leaving,
        )
        put = Put(key, encode(record), self._lease)
        revision = await self._writes.commit([Guard(key, before)], [put])
        if revision is None:
            return False
        self._revision = revision
        self._written_at = at
        self._trouble = ""
        if self._awaited() is None:
            self._echo = _Echo(revision, at)
        return True

    async def leave(self) -> None:
        """Say goodbye: what this node assigned was answered."""
        if not self._is_shared:
            return
        self._is_leaving = True
        with suppress(ColonistError):
            await self._beat()
        with suppress(StoreError):
            await self._writes.store.revoke(self._lease)


def _bounded(classes: Sequence[tuple[bytes, str]]) -> tuple[tuple[bytes, str], ...]:
    """As many as a record holds that is written each second; of the rest nobody is told.

    Executors name their types themselves. What others do not know of they do not leave to us.
    """
    sizes = accumulate(len(tag) + 4 * len(type) + FRAME_BYTES for tag, type in classes)
    return tuple(classes[: sum(size <= CLASSES_BYTES for size in sizes)])


def _taken(name: str, url: str) -> str:
    where = f" at {url}" if url else ""
    return (
        f"another server{where} is at work as node {name!r} on this store (key n/{name}): "
        "give each server a name of its own with --node"
    )
