"""Which chains went on: noted while this node leads, as the view learns of it; nothing is polled.

A row is noted as such, and asked for its head when that is wanted; of a process that has ended, or
was removed, the head is noted at once, since nothing of it is held here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

import msgspec

from colonist_protocol.errors import CorruptRecordError
from colonist_server.repo import keys
from colonist_server.repo.evidence import removed_link
from colonist_server.repo.nouns import Colony, Executor, Row
from colonist_server.repo.records import ExecutorRecord, RemovedRecord, decode_removed
from colonist_server.repo.trail import Trail
from colonist_server.repo.view import View
from colonist_server.store.interface import Item, Revision

_COLONY_CHAIN: Final = bytes(keys.PID_BYTES - keys.TAG_BYTES)

Head = tuple[int, bytes]
_Noted = Row | RemovedRecord | Head | None
"""None: the colony's own chain."""


class _LiveHead(msgspec.Struct, array_like=True, gc=False):
    """As much of a live record as it takes, none of it decoded in vain."""

    state: msgspec.Raw
    priority_ns: msgspec.Raw
    submitted_ns: msgspec.Raw
    placement: msgspec.Raw
    max_wait_s: msgspec.Raw
    max_exec_s: msgspec.Raw
    max_retries: msgspec.Raw
    label: msgspec.Raw
    initiator: msgspec.Raw
    funcname: msgspec.Raw
    head: bytes
    changed_ns: msgspec.Raw
    started_ns: msgspec.Raw
    deadline_ns: msgspec.Raw
    retries: msgspec.Raw
    attempt: msgspec.Raw
    executor: msgspec.Raw
    node: msgspec.Raw
    count: int


class _ClosedHead(msgspec.Struct, array_like=True, gc=False):
    live: _LiveHead


_decode_live: Final = msgspec.msgpack.Decoder(_LiveHead).decode
_decode_closed: Final = msgspec.msgpack.Decoder(_ClosedHead).decode


class Heads:
    """Notes heads that changed, by colony."""

    __slots__ = ("_is_on", "_noted", "_trail", "_view", "begun", "turn", "woken")

    def __init__(self, view: View, trail: Trail) -> None:
        self._view = view
        self._trail = trail
        self._noted: dict[bytes, dict[bytes, _Noted]] = {}
        self._is_on = False
        self.begun = 0
        """How often it was begun: what was noted before is noted no more."""
        self.turn = 0
        """Grows whenever something is taken."""
        self.woken = asyncio.Event()
        """Set while something is noted."""
        view.listen(self)
        view.follow(keys.CLOSED, self._closed)
        view.follow(keys.REMOVED, self._removed)
        trail.on_change = self._changed

    def begin(self) -> None:
        """Note what changes from now on."""
        self._is_on = True
        self.begun += 1
        self._noted.clear()
        self.woken.clear()

    def end(self) -> None:
        """Note nothing more."""
        self.begin()
        self._is_on = False

    # -- as the view learns of it

    def row_changed(self, row: Row) -> None:
        """A process that lives went on."""
        if self._is_on:
            self._of(row.colony.tag)[row.pid] = row

    def executor_changed(
        self, colony: Colony, executor: Executor, before: ExecutorRecord | None
    ) -> None:
        """The colony's own chain tells of it."""

    def colony_changed(self, colony: Colony) -> None:
        """The colony's own chain tells of it."""

    def _closed(self, key: bytes, value: bytes | None, revision: Revision) -> None:
        del revision
        if self._is_on and value is not None:
            pid = key[len(keys.CLOSED) :]
            self._of(pid[: keys.TAG_BYTES])[pid] = closed_head(value)

    def _removed(self, key: bytes, value: bytes | None, revision: Revision) -> None:
        del revision
        if self._is_on and value is not None:
            pid = key[len(keys.REMOVED) :]
            self._of(pid[: keys.TAG_BYTES])[pid] = decode_removed(value)

    def _changed(self, tag: bytes) -> None:
        if self._is_on:
            self._of(tag)[tag + _COLONY_CHAIN] = None

    def _of(self, tag: bytes) -> dict[bytes, _Noted]:
        self.woken.set()
        return self._noted.setdefault(tag, {})

    # -- as it was stored before

    def note(self, items: Iterable[Item]) -> None:
        """Note processes that have ended or were removed, unless something newer is noted."""
        for item in items:
            is_closed = item.key.startswith(keys.CLOSED)
            pid = item.key[len(keys.CLOSED if is_closed else keys.REMOVED) :]
            noted = self._of(pid[: keys.TAG_BYTES])
            if pid not in noted:
                noted[pid] = closed_head(item.value) if is_closed else decode_removed(item.value)

    def note_held(self, colony: Colony, since: Revision) -> None:
        """Note what changed after a revision of that which is held in memory."""
        noted = self._of(colony.tag)
        for row in self._view.rows.values():
            if row.colony is colony and row.revision > since:
                noted.setdefault(row.pid, row)
        if self._trail.changed_since(colony.tag, since):
            noted.setdefault(colony.tag + _COLONY_CHAIN, None)

    def count(self, tag: bytes) -> int:
        """How many are noted of a colony."""
        return len(self._noted.get(tag, ()))

    def noted(self, tag: bytes) -> object:
        """What stands for all that is noted of a colony now; another thing once it is taken."""
        return self._noted.get(tag)

    def tags(self) -> list[bytes]:
        """The colonies of which something is noted."""
        return list(self._noted)

    def take(self, tag: bytes) -> dict[bytes, Head]:
        """What is noted of a colony, with the heads of now; it is noted no more."""
        noted = self._noted.pop(tag, {})
        self.turn += 1
        if not self._noted:
            self.woken.clear()
        return {chain: self._head(tag, chain, each) for chain, each in noted.items()}

    def give_back(self, heads: dict[bytes, Head]) -> None:
        """What was taken in vain is noted again, unless something newer is."""
        for chain, head in heads.items():
            self._of(chain[: keys.TAG_BYTES]).setdefault(chain, head)

    def head_of(self, chain: bytes) -> Head | None:
        """The head of a chain that is held in memory."""
        tag = chain[: keys.TAG_BYTES]
        if chain.endswith(_COLONY_CHAIN):
            return self._head(tag, chain, None)
        row = self._view.rows.get(chain)
        return self._head(tag, chain, row) if row is not None else None

    def _head(self, tag: bytes, chain: bytes, noted: _Noted) -> Head:
        if isinstance(noted, Row):
            row = self._view.rows.get(chain, noted)
            live = _decode_live(row.raw)
            return live.count - 1, live.head
        if isinstance(noted, RemovedRecord):
            return noted.n, removed_link(chain, noted).head
        if noted is None:
            record = self._trail.head(tag)
            return record.count - 1, record.head
        return noted


def closed_head(value: bytes) -> Head:
    """The head in the record of a process that has ended. Raises `CorruptRecordError`."""
    try:
        live = _decode_closed(value).live
    except msgspec.DecodeError as error:
        raise CorruptRecordError(f"what is stored cannot be read: {error}") from error
    return live.count - 1, live.head
