"""The evidence of a colony in pages, in the order of an audit file: checkpoints, then chains.

A cursor says how far the pages have come; nothing is kept between them. Checkpoints come first, so
all that they name is found behind them, wherever it moves meanwhile. Within a long chain a cursor
holds the hash of the last event that was told, under a MAC: so the next page need not make all the
chain anew, and nobody can have the server tell a chain that goes on from another event.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from hmac import compare_digest
from typing import Final, NamedTuple

from colonist_core.history import Link
from colonist_core.process import MILLISECOND_NS
from colonist_protocol import audit as wire
from colonist_protocol import codec
from colonist_protocol.errors import InvalidValueError, NotFoundError
from colonist_protocol.tokens import ServerKeys
from colonist_server.repo import keys
from colonist_server.repo.checkpoints import Checkpoints, Signed, pack, signed
from colonist_server.repo.clock import Clock
from colonist_server.repo.evidence import (
    START,
    TAIL,
    Evidence,
    Mark,
    MovedOnError,
    Request,
)
from colonist_server.repo.nouns import Colony
from colonist_server.repo.records import decode_change, decode_checkpoint
from colonist_server.repo.trail import line_of
from colonist_server.repo.writes import Writes

PAGE_BYTES: Final = 2 * 1_048_576
"""What the lines of a page may be together; one stretch of a chain, or one checkpoint, is always
given."""

_LISTED: Final = 200
_TOGETHER: Final = 8
_SKEW_MS: Final = 10_000
_LOOKED_AT: Final = 64
_SIGNED: Final = "q"
_CHANGES: Final = "h"
_PROCESSES: Final = "p"
_CURSOR: Final = re.compile(
    r"([0-9a-f]{1,15})\.(?:(q)\.([0-9a-f]{0,15})|([hp])\.((?:[0-9a-f]{2}){0,32}))"
    r"(?:\.([0-9a-f.]{1,128}))?"
)
_MARK: Final = re.compile(r"([0-9a-f]{1,8})\.([0-9a-f]{64})\.([0-9a-f]{32})")
_MARK_TAG: Final = "colonist:mark:1"
_NOT_GIVEN: Final = "cursor: not one that a page gave; begin anew with an empty one"
_MOVED_ON: Final = "cursor: a process was removed while its events were told; begin anew"


class _Step(NamedTuple):
    """Some lines, and the cursor behind them."""

    lines: Sequence[str]
    cursor: str


class _Place(NamedTuple):
    """Where a cursor says that the pages have come."""

    phase: str
    at: str
    mark: str


class Audit:
    """Reads evidence."""

    __slots__ = ("_checkpoints", "_clock", "_evidence", "_past", "_server_keys", "_writes")

    def __init__(
        self, writes: Writes, checkpoints: Checkpoints, server_keys: ServerKeys, clock: Clock
    ) -> None:
        self._writes = writes
        self._past = writes.past
        self._evidence = Evidence(writes.past)
        self._checkpoints = checkpoints
        self._server_keys = server_keys
        self._clock = clock

    async def page(self, colony: Colony, cursor: str, size: int) -> wire.AuditPage:
        """Some lines behind a cursor. Raises `InvalidValueError`, `UnavailableError`."""
        lines = [] if cursor else [self.header(colony)]
        forgotten = self._checkpoints.newest(colony.tag).forgotten
        place = _place(cursor, forgotten, colony.tag)
        left = _room(size)
        is_begun = False
        try:
            async with aclosing(self._steps(colony, place)) as steps:
                async for step in steps:
                    left -= sum(map(len, step.lines))
                    if left < 0 and is_begun:
                        return wire.AuditPage(lines=tuple(lines), cursor=cursor)
                    lines += step.lines
                    cursor, is_begun = f"{forgotten:x}.{step.cursor}", True
        except MovedOnError:
            raise InvalidValueError(_MOVED_ON) from None
        return wire.AuditPage(lines=tuple(lines), cursor="")

    async def of_process(
        self, colony: Colony, pid: bytes, cursor: str, size: int
    ) -> wire.ProcessEvidence:
        """Some lines about one process; with the last of them, the checkpoint that holds them.

        Raises `NotFoundError`, `InvalidValueError`, `UnavailableError`.
        """
        since = self._mark_in(pid, cursor) if cursor else START
        [stored] = await self._evidence.read([pid])
        lines: list[str] = []
        newest: list[Link] = []
        left = _room(size)
        try:
            async with aclosing(self._evidence.stretches(stored, since)) as stretches:
                async for stretch in stretches:
                    left -= sum(map(len, stretch.lines))
                    if left < 0 and lines:
                        return self._told(colony, lines, cursor=self._marked(pid, since))
                    lines += stretch.lines
                    newest = [*newest, *stretch.links][-TAIL:]
                    since = stretch.end
        except MovedOnError:
            raise InvalidValueError(_MOVED_ON) from None
        if not lines and not cursor:
            raise NotFoundError("Failed to get process, process not found")
        return self._told(colony, lines, await self._over(colony, pid, newest))

    def _told(
        self, colony: Colony, lines: Sequence[str], over: Signed | None = None, *, cursor: str = ""
    ) -> wire.ProcessEvidence:
        return wire.ProcessEvidence(
            header=self.header(colony),
            checkpoints=over.lines if over is not None else (),
            lines=tuple(lines),
            cursor=cursor,
        )

    def header(self, colony: Colony) -> str:
        """The first line of a file."""
        header = wire.Header(
            colony=colony.record.name,
            server=self._server_keys.id,
            via=self._server_keys.via,
            made=self._clock.now_ns() // MILLISECOND_NS,
        )
        return codec.encode(header).decode()

    # -- cursors within a chain

    def _marked(self, pid: bytes, mark: Mark) -> str:
        parts = f"{mark.n:x}", mark.head.hex()
        return ".".join((*parts, self._mac(pid, *parts)))

    def _mark_in(self, pid: bytes, text: str) -> Mark:
        """What `_marked` made. Raises `InvalidValueError`."""
        found = _MARK.fullmatch(text)
        if found is None or not compare_digest(found[3], self._mac(pid, found[1], found[2])):
            raise InvalidValueError(_NOT_GIVEN)
        return Mark(int(found[1], 16), bytes.fromhex(found[2]))

    def _mac(self, pid: bytes, n: str, head: str) -> str:
        return self._server_keys.current.mac(_MARK_TAG, pid.hex(), n, head)

    # -- all, in order

    async def _steps(self, colony: Colony, place: _Place) -> AsyncGenerator[_Step]:
        phase, at, mark = place
        if phase == _SIGNED:
            async for step in self._signed(colony, int(at or "0", 16)):
                yield step
            phase, at = _CHANGES, ""
        if phase == _CHANGES:
            async for step in self._changes(colony, bytes.fromhex(at)):
                yield step
            at = ""
        async for step in self._processes(colony, bytes.fromhex(at), mark):
            yield step

    async def _signed(self, colony: Colony, k: int) -> AsyncGenerator[_Step]:
        more = True
        while more:
            page, more = await self._checkpoints.page(colony, after=k, limit=_TOGETHER)
            for each in page:
                k = each.k
                yield _Step(each.lines, f"{_SIGNED}.{k:x}")

    async def _changes(self, colony: Colony, after: bytes) -> AsyncGenerator[_Step]:
        prefix = keys.changes(colony.tag)
        more = True
        while more:
            page = await self._writes.range(
                prefix, after=prefix + after if after else b"", limit=_LISTED, reverse=True
            )
            for item in page.items:
                after = item.key[len(prefix) :]
                record = decode_change(item.value)
                lines = [codec.encode(line_of(colony.tag, record)).decode()]
                if record.payload:
                    lines.append(Request(record.payload, record.seal).line)
                if record.n >= 0:
                    yield _Step(lines, f"{_CHANGES}.{after.hex()}")
            more = page.more

    async def _processes(self, colony: Colony, after: bytes, mark: str) -> AsyncGenerator[_Step]:
        forgotten = await self._checkpoints.forgotten_heads(colony)
        if mark:
            async for step in self._chains([after], forgotten, self._mark_in(after, mark)):
                yield step
        more = True
        while more:
            ids, more = await self._ids(colony.tag, after)
            for start in range(0, len(ids), _TOGETHER):
                async for step in self._chains(ids[start : start + _TOGETHER], forgotten):
                    yield step
            after = ids[-1] if ids else after

    async def _chains(
        self, pids: Sequence[bytes], forgotten: set[tuple[bytes, int]], since: Mark = START
    ) -> AsyncGenerator[_Step]:
        for stored in await self._evidence.read(pids):
            pid, removed = stored.pid, stored.removed
            if removed is not None and (pid, removed.n) in forgotten:
                continue
            async for stretch in self._evidence.stretches(stored, since):
                cursor = f"{_PROCESSES}.{pid.hex()}"
                if not stretch.is_last:
                    cursor += f".{self._marked(pid, stretch.end)}"
                yield _Step(stretch.lines, cursor)

    async def _ids(self, tag: bytes, after: bytes) -> tuple[list[bytes], bool]:
        """Some ids of processes, there or removed, in order; and whether there are more."""
        found: set[bytes] = set()
        ends: list[bytes] = []
        for prefix in (keys.BIRTH, keys.REMOVED):
            page = await self._past.range(
                prefix + tag,
                after=prefix + after if after else b"",
                limit=_LISTED,
                keys_only=True,
                hidden=True,
            )
            pids = [item.key[len(prefix) :] for item in page.items]
            found.update(pids)
            if page.more and pids:
                ends.append(pids[-1])
        order = sorted(found)
        if ends:
            order = [pid for pid in order if pid <= min(ends)]
        return order, bool(ends)

    # -- the checkpoint of one

    async def _over(self, colony: Colony, pid: bytes, newest: Sequence[Link]) -> Signed | None:
        """The checkpoint that holds the newest event that one does."""
        for link in reversed(newest):
            mark = pack([pid], {pid: (link.line.n, link.head)})
            found = await self._covering(colony, mark, link.line.time)
            if found is not None:
                return found
        return None

    async def _covering(self, colony: Colony, mark: bytes, time_ms: int) -> Signed | None:
        """The first checkpoint with a head in it; looked for where it should be by its time."""
        k = await self._checkpoints.first_since(colony, time_ms - _SKEW_MS)
        page = await self._past.range(
            keys.checkpoints(colony.tag),
            after=keys.checkpoint(colony.tag, k - 1),
            limit=_LOOKED_AT,
        )
        for item in page.items:
            if mark in decode_checkpoint(item.value).heads:
                return signed(colony, item)
        return None


def _room(size: int) -> int:
    return min(size, PAGE_BYTES) if size > 0 else PAGE_BYTES


def _place(cursor: str, forgotten: int, tag: bytes) -> _Place:
    """What a cursor says. Raises `InvalidValueError`.

    Pages from before and after something was forgotten do not go together.
    """
    if not cursor:
        return _Place(_SIGNED, "", "")
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        raise InvalidValueError(_NOT_GIVEN)
    if int(found[1], 16) != forgotten:
        raise InvalidValueError("cursor: history was forgotten meanwhile; begin anew")
    if found[6] and (found[4] != _PROCESSES or not found[5].startswith(tag.hex())):
        raise InvalidValueError(_NOT_GIVEN)
    return _Place(found[2] or found[4], found[3] or found[5] or "", found[6] or "")
