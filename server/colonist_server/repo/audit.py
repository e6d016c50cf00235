"""The evidence of a colony in pages, in the order of an audit file: checkpoints, then chains.

A cursor says how far the pages have come; nothing is kept between them. Checkpoints come first, so
all that they name is found behind them, wherever it moves meanwhile.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Final, NamedTuple

from colonist_core.process import MILLISECOND_NS
from colonist_protocol import audit as wire
from colonist_protocol import codec
from colonist_protocol.errors import InvalidValueError, NotFoundError
from colonist_protocol.tokens import ServerKeys
from colonist_server.repo import keys
from colonist_server.repo.checkpoints import Checkpoints, Signed, pack, signed
from colonist_server.repo.clock import Clock
from colonist_server.repo.evidence import Chain, Evidence, Request
from colonist_server.repo.nouns import Colony
from colonist_server.repo.records import decode_change, decode_checkpoint
from colonist_server.repo.trail import line_of
from colonist_server.repo.writes import Writes

PAGE_BYTES: Final = 2 * 1_048_576
"""What the lines of a page may be together; one chain, or one checkpoint, is always given."""

_LISTED: Final = 200
_TOGETHER: Final = 8
_TRIED: Final = 4
"""Events of one process, from the newest on, that are looked for in checkpoints."""
_SKEW_MS: Final = 10_000
_LOOKED_AT: Final = 64
_SIGNED: Final = "q"
_CHANGES: Final = "h"
_PROCESSES: Final = "p"
_CURSOR: Final = re.compile(
    r"([0-9a-f]{1,15})\.(?:(q)\.([0-9a-f]{0,15})|([hp])\.((?:[0-9a-f]{2}){0,32}))"
)


class _Step(NamedTuple):
    """Some lines, and the cursor behind them."""

    lines: Sequence[str]
    cursor: str


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
        place = _place(cursor, forgotten)
        left = min(size, PAGE_BYTES) if size > 0 else PAGE_BYTES
        is_begun = False
        async with aclosing(self._steps(colony, place)) as steps:
            async for step in steps:
                left -= sum(map(len, step.lines))
                if left < 0 and is_begun:
                    return wire.AuditPage(lines=tuple(lines), cursor=cursor)
                lines += step.lines
                cursor, is_begun = f"{forgotten:x}.{step.cursor}", True
        return wire.AuditPage(lines=tuple(lines), cursor="")

    async def of_process(self, colony: Colony, pid: bytes) -> wire.ProcessEvidence:
        """All about one process. Raises `NotFoundError`, `UnavailableError`."""
        chain = await self._evidence.of(pid)
        if chain is None:
            raise NotFoundError("Failed to get process, process not found")
        found = None
        for link in reversed(chain.links[-_TRIED:]):
            mark = pack([pid], {pid: (link.line.n, link.head)})
            found = found or await self._covering(colony, mark, link.line.time)
        return wire.ProcessEvidence(
            header=self.header(colony),
            checkpoints=found.lines if found is not None else (),
            lines=tuple(chain.lines),
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

    # -- all, in order

    async def _steps(self, colony: Colony, place: tuple[str, str]) -> AsyncGenerator[_Step]:
        phase, at = place
        if phase == _SIGNED:
            async for step in self._signed(colony, int(at or "0", 16)):
                yield step
            phase, at = _CHANGES, ""
        if phase == _CHANGES:
            async for step in self._changes(colony, bytes.fromhex(at)):
                yield step
            at = ""
        async for step in self._processes(colony, bytes.fromhex(at)):
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

    async def _processes(self, colony: Colony, after: bytes) -> AsyncGenerator[_Step]:
        forgotten = await self._checkpoints.forgotten_heads(colony)
        more = True
        while more:
            ids, more = await self._ids(colony.tag, after)
            for start in range(0, len(ids), _TOGETHER):
                some = ids[start : start + _TOGETHER]
                for pid, chain in zip(some, await self._evidence.of_many(some), strict=True):
                    if chain is not None and not _is_forgotten(pid, chain, forgotten):
                        yield _Step(chain.lines, f"{_PROCESSES}.{pid.hex()}")
            after = ids[-1] if ids else after

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


def _place(cursor: str, forgotten: int) -> tuple[str, str]:
    """Where a cursor says that the pages have come. Raises `InvalidValueError`.

    Pages from before and after something was forgotten do not go together.
    """
    if not cursor:
        return _SIGNED, ""
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        raise InvalidValueError("cursor: not one that a page gave; begin anew with an empty one")
    if int(found[1], 16) != forgotten:
        raise InvalidValueError("cursor: history was forgotten meanwhile; begin anew")
    return (found[2], found[3]) if found[2] else (found[4], found[5])


def _is_forgotten(pid: bytes, chain: Chain, forgotten: set[tuple[bytes, int]]) -> bool:
    last = chain.links[-1].line
    return last.what == wire.REMOVED and (pid, last.n) in forgotten
