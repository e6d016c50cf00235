"""The chains of processes as lines, rendered from what is stored, wherever it is stored.

What is being removed is still told: whole as long as all of it is there, then by its last line. A
long chain is told in stretches; a mark says how far.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Final, NamedTuple

import msgspec

from colonist_core.history import Link, links, removal, submission
from colonist_core.process import Cause, Event, Live, What
from colonist_protocol import codec
from colonist_protocol.audit import EventRequest
from colonist_protocol.digests import REQUEST, tagged_digest
from colonist_protocol.identity import digest, recover_digest
from colonist_server.repo import keys
from colonist_server.repo.chain import KEPT
from colonist_server.repo.past import Past
from colonist_server.repo.records import (
    Birth,
    EditRecord,
    RemovedRecord,
    WorkflowRecord,
    WorkflowState,
    decode_birth,
    decode_closed,
    decode_edit,
    decode_live,
    decode_removed,
    decode_result,
    decode_workflow,
)
from colonist_server.store.interface import Item

STRETCH_BYTES: Final = 65_536
"""What is told of a chain at once, but for a long request: until then nothing of it is given."""
TAIL: Final = 4

_TRIES: Final = 3
_PAGE: Final = 100
_EVENTS: Final = 32
"""Keys of events that are read together: 256 events, 5 ms of work."""
_FIRST_MEMBER: Final = 1
_RECORDED: Final = What.RECORDED.name.lower()

_decode_events = msgspec.msgpack.Decoder(tuple[Event, ...]).decode


class Request(NamedTuple):
    """A request as it is stored."""

    payload: bytes
    seal: bytes

    @property
    def digest(self) -> bytes:
        """What its signature covers."""
        text = codec.to_base64(self.payload)
        if not self.seal:
            return digest(text.encode())
        return tagged_digest(REQUEST, text, codec.to_base64(self.seal))

    @property
    def line(self) -> str:
        """As it follows its event."""
        texts = codec.to_base64(self.payload), codec.to_base64(self.seal)
        return codec.encode(EventRequest(payload=texts[0], seal=texts[1])).decode()


class Mark(NamedTuple):
    """How far a chain was told: the number of an event, and its hash."""

    n: int
    head: bytes


START: Final = Mark(-1, b"")


class Stretch(NamedTuple):
    """Some events of a chain, in order, with what stands beside them."""

    links: Sequence[Link]
    lines: Sequence[str]
    is_last: bool

    @property
    def end(self) -> Mark:
        """How far it goes."""
        return _mark(self.links[-1])


class MovedOnError(Exception):
    """Of a chain that was told in part, the rest is not there any more."""


class _Beginning(NamedTuple):
    """Who submitted a process, by which request; that is not told beside each member."""

    cause: Cause
    request: Request | None


class Stored(NamedTuple):
    """What is stored of a process."""

    pid: bytes
    birth: Birth | None
    live: Live | None
    removed: RemovedRecord | None
    closing: Request | None
    workflow: WorkflowRecord | None

    @property
    def is_staged(self) -> bool:
        """Whether nobody may see it yet."""
        return self.workflow is not None and self.workflow.state == WorkflowState.STAGING


class _Entry(NamedTuple):
    """An event, its request where that is kept, and how many events follow."""

    link: Link
    request: Request | None
    left: int


class _GapError(Exception):
    """Events are missing: something was moved or removed while it was read."""


class _Pending:
    """What is told next."""

    __slots__ = ("lines", "links", "size")

    def __init__(self) -> None:
        self.links: list[Link] = []
        self.lines: list[str] = []
        self.size = 0

    def add(self, link: Link, request: Request | None = None) -> None:
        """One more event."""
        self.links.append(link)
        lines = [codec.encode(link.line).decode(), *([request.line] if request is not None else ())]
        self.lines += lines
        self.size += sum(map(len, lines))

    def told(self, *, is_last: bool = False) -> Stretch:
        """All of it."""
        return Stretch(self.links, self.lines, is_last)


class Evidence:
    """Reads chains. `past` is the store and the archive."""

    __slots__ = ("_past",)

    def __init__(self, past: Past) -> None:
        self._past = past

    async def read(self, pids: Sequence[bytes]) -> list[Stored]:
        """What is stored of some processes."""
        prefixes = (keys.BIRTH, keys.LIVE, keys.CLOSED, keys.REMOVED)
        wanted = [prefix + pid for pid in pids for prefix in prefixes]
        items = await self._past.read_many(wanted, hidden=True)
        heads = await self._heads({pid[: keys.WID_BYTES] for pid in pids if keys.number_of(pid)})
        return [
            _stored(pid, items[at : at + len(prefixes)], heads.get(pid[: keys.WID_BYTES]))
            for at, pid in zip(range(0, len(items), len(prefixes)), pids, strict=True)
        ]

    async def stretches(self, stored: Stored, since: Mark = START) -> AsyncGenerator[Stretch]:
        """A chain behind a mark; nothing of what is not there, or not yet.

        Each stretch is of `STRETCH_BYTES`, or an event longer; the last has `TAIL` events if there
        are so many. Raises `MovedOnError` once something was told.
        """
        if stored.is_staged:
            return
        pending, is_whole = _Pending(), True
        try:
            async for link, request, left in self._entries(stored, since):
                pending.add(link, request)
                if pending.size >= STRETCH_BYTES and left >= TAIL:
                    yield pending.told()
                    since, pending = _mark(link), _Pending()
        except _GapError:
            pending, is_whole = _Pending(), False
            [stored] = await self.read([stored.pid])
        pending = _ended(stored, since, pending, is_whole=is_whole)
        if pending.links:
            yield pending.told(is_last=True)

    # -- its events

    async def _entries(self, stored: Stored, since: Mark) -> AsyncGenerator[_Entry]:
        """What is behind a mark, also where it moves meanwhile. Raises `_GapError`."""
        for _ in range(_TRIES):
            try:
                async for entry in self._behind(stored, since):
                    since = _mark(entry.link)
                    yield entry
            except _GapError:
                [stored] = await self.read([stored.pid])
            else:
                return
        raise _GapError

    async def _behind(self, stored: Stored, since: Mark) -> AsyncGenerator[_Entry]:
        pid, live = stored.pid, stored.live
        if live is None or stored.birth is None:
            return
        if since.n < 0:
            beginning = await self._beginning(pid, stored.birth, stored.workflow)
            if beginning is None:
                return
            first = submission(stored.birth.submitted_ns, beginning.cause)
            [link] = links(pid.hex(), [first])
            yield _Entry(link, beginning.request, live.count - 1)
            since = _mark(link)
        closing = {} if stored.closing is None else {stored.closing.digest.hex(): stored.closing}
        async for events in self._events(pid, live, since.n + 1):
            for link in links(pid.hex(), events, first=since.n + 1, head=since.head):
                request = closing.get(link.line.req)
                if request is None and link.line.what == _RECORDED:
                    request = await self._result(pid, link)
                yield _Entry(link, request, live.count - link.line.n - 1)
                since = _mark(link)

    async def _events(self, pid: bytes, live: Live, at: int) -> AsyncGenerator[Sequence[Event]]:
        """The events from a number on: what moved out of the record, and what it holds."""
        kept = live.count - len(live.events)
        after = keys.events(pid, at - KEPT) if at > KEPT else b""
        more = True
        while at < kept and more:
            page = await self._past.range(
                keys.events_of(pid), after=after, limit=_EVENTS, hidden=True
            )
            for item in page.items:
                number = keys.number_of_events(item.key)
                if number <= at < kept:
                    events = _decode_events(item.value)[at - number :]
                    yield events
                    at += len(events)
                after = item.key
            more = page.more and bool(page.items)
        if at < kept:
            raise _GapError
        yield live.events[at - kept :]

    async def _result(self, pid: bytes, link: Link) -> Request | None:
        """The request that brought a result which changed nothing."""
        for item in await self._all(keys.results_by(pid, link.line.attempt)):
            result = decode_result(item.value)
            request = Request(result.payload, result.seal)
            if request.digest.hex() == link.line.req:
                return request
        return None

    # -- its submission

    async def _beginning(
        self, pid: bytes, birth: Birth | None, workflow: WorkflowRecord | None
    ) -> _Beginning | None:
        number = keys.number_of(pid)
        if birth is None or (number and workflow is None):
            return None
        if workflow is None:
            request = Request(birth.payload, birth.seal)
            cause = Cause(birth.initiator_id, request.digest, birth.signature)
            return _Beginning(cause, request)
        original = workflow.size - workflow.edits
        if number > original:
            return await self._edit(pid, number - original - 1)
        cause = submitter_of(workflow)
        if number != _FIRST_MEMBER or not workflow.request_parts:
            return _Beginning(cause, None)
        parts = await self._all(keys.request_of(pid[: keys.WID_BYTES]))
        request = Request(b"".join(item.value for item in parts), workflow.seal)
        return _Beginning(cause, request if cause.digest else None)

    async def _edit(self, pid: bytes, number: int) -> _Beginning | None:
        key = keys.edit(pid[: keys.WID_BYTES], number)
        [item] = await self._past.read_many([key], hidden=True)
        if item is None:
            return None
        edit: EditRecord = decode_edit(item.value)
        request = Request(edit.payload, edit.seal)
        return _Beginning(Cause(edit.who.hex(), request.digest, edit.signature), request)

    async def _heads(self, wids: set[bytes]) -> dict[bytes, WorkflowRecord]:
        if not wids:
            return {}
        items = await self._past.read_many([keys.workflow(wid) for wid in wids], hidden=True)
        return {
            item.key[len(keys.WORKFLOW) :]: decode_workflow(item.value)
            for item in items
            if item is not None
        }

    async def _all(self, prefix: bytes) -> list[Item]:
        found: list[Item] = []
        more = True
        while more:
            after = found[-1].key if found else b""
            page = await self._past.range(prefix, after=after, limit=_PAGE, hidden=True)
            found += page.items
            more = page.more and bool(page.items)
        return found


def submitter_of(workflow: WorkflowRecord) -> Cause:
    """Who submitted a workflow; nobody where a cron or generator started it by itself.

    Where somebody ran a cron, its initiator is another, and the caller is told by the signature.
    """
    if not workflow.digest:
        return Cause()
    who = workflow.initiator_id
    if workflow.source:
        who = recover_digest(workflow.digest, workflow.signature)
    return Cause(who, workflow.digest, workflow.signature)


def removed_link(pid: bytes, record: RemovedRecord) -> Link:
    """The last line of a removed process."""
    event = Event(0, record.attempt, record.time_ms, record.who, record.digest, record.signature)
    return removal(pid.hex(), record.n, event, record.prev)


def _stored(pid: bytes, items: Sequence[Item | None], workflow: WorkflowRecord | None) -> Stored:
    birth, live, end, removed = items
    closed = decode_closed(end.value) if end is not None else None
    running = decode_live(live.value) if live is not None else None
    return Stored(
        pid,
        decode_birth(birth.value) if birth is not None else None,
        closed.live if closed is not None else running,
        decode_removed(removed.value) if removed is not None else None,
        Request(closed.payload, closed.seal) if closed is not None and closed.payload else None,
        workflow,
    )


def _ended(stored: Stored, since: Mark, pending: _Pending, *, is_whole: bool) -> _Pending:
    """The end of a chain, with the line of its removal: alone where all before it is gone.

    Raises `MovedOnError`.
    """
    removed = stored.removed
    end = _mark(pending.links[-1]) if pending.links else since
    if removed is not None:
        if end.head != removed.prev:
            if since.n >= 0:
                raise MovedOnError
            pending = _Pending()
        pending.add(removed_link(stored.pid, removed))
    elif since.n >= 0 and not (is_whole and stored.live is not None):
        raise MovedOnError
    return pending


def _mark(link: Link) -> Mark:
    return Mark(link.line.n, link.head)
