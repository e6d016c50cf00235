"""The chains of processes as lines, rendered from what is stored, wherever it is stored.

What is being removed is still told: whole as long as all of it is there, then by its last line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from colonist_core.history import Link, links, removal, submission
from colonist_core.process import Cause, Closed, Event, Live, What
from colonist_protocol import codec
from colonist_protocol.audit import EventRequest
from colonist_protocol.digests import REQUEST, tagged_digest
from colonist_protocol.identity import digest, recover_digest
from colonist_server.repo import keys
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

_TRIES: Final = 3
_PAGE: Final = 100
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


class Chain(NamedTuple):
    """A chain with what stands beside its events."""

    links: Sequence[Link]
    lines: Sequence[str]


class _Beginning(NamedTuple):
    """Who submitted a process, by which request; that is not told beside each member."""

    cause: Cause
    request: Request | None


class _Found(NamedTuple):
    """What is stored of a process."""

    birth: Birth | None
    live: Live | None
    closed: Closed | None
    removed: RemovedRecord | None


class Evidence:
    """Reads chains. `past` is the store and the archive."""

    __slots__ = ("_past",)

    def __init__(self, past: Past) -> None:
        self._past = past

    async def of_many(self, pids: Sequence[bytes]) -> list[Chain | None]:
        """The chains of some processes; None where there is none, or not yet."""
        prefixes = (keys.BIRTH, keys.LIVE, keys.CLOSED, keys.REMOVED)
        wanted = [prefix + pid for pid in pids for prefix in prefixes]
        items = await self._past.read_many(wanted, hidden=True)
        heads = await self._heads({pid[: keys.WID_BYTES] for pid in pids if keys.number_of(pid)})
        found: list[Chain | None] = []
        for number, pid in enumerate(pids):
            at = number * len(prefixes)
            stored = _found(items[at : at + len(prefixes)])
            found.append(await self._chain(pid, stored, heads.get(pid[: keys.WID_BYTES])))
        return found

    async def of(self, pid: bytes) -> Chain | None:
        """One chain."""
        return (await self.of_many([pid]))[0]

    # -- one process

    async def _chain(
        self, pid: bytes, stored: _Found, workflow: WorkflowRecord | None
    ) -> Chain | None:
        if workflow is not None and workflow.state == WorkflowState.STAGING:
            return None
        whole = await self._whole(pid, stored, workflow)
        if stored.removed is None:
            return whole
        link = removed_link(pid, stored.removed)
        line = codec.encode(link.line).decode()
        if whole is None or whole.links[-1].head != stored.removed.prev:
            return Chain([link], [line])
        return Chain([*whole.links, link], [*whole.lines, line])

    async def _whole(
        self, pid: bytes, stored: _Found, workflow: WorkflowRecord | None
    ) -> Chain | None:
        for _ in range(_TRIES):
            live = stored.closed.live if stored.closed is not None else stored.live
            beginning = await self._beginning(pid, stored.birth, workflow)
            if live is None or stored.birth is None or beginning is None:
                return None
            first = submission(stored.birth.submitted_ns, beginning.cause)
            older = await self._older(pid, live.count - len(live.events))
            told = list(links(pid.hex(), [first, *older, *live.events]))
            if len(told) == live.count:
                later = await self._requests(pid, told, stored.closed)
                return Chain(told, _lines(told, beginning.request, later))
            prefixes = (keys.BIRTH, keys.LIVE, keys.CLOSED, keys.REMOVED)
            stored = _found(
                await self._past.read_many([prefix + pid for prefix in prefixes], hidden=True)
            )
        return None

    async def _older(self, pid: bytes, count: int) -> list[Event]:
        """The events that moved out of the record before event `count`."""
        events: list[Event] = []
        after = b""
        while len(events) + 1 < count:
            page = await self._past.range(
                keys.events_of(pid), after=after, limit=_PAGE, hidden=True
            )
            for item in page.items:
                events += _decode_events(item.value)
            if not page.more or not page.items:
                break
            after = page.items[-1].key
        return events[: count - 1]

    async def _requests(
        self, pid: bytes, told: Sequence[Link], closed: Closed | None
    ) -> dict[str, Request]:
        """By what they were signed over: the request that ended it, and results that came late."""
        found: list[Request] = []
        if closed is not None and closed.payload:
            found.append(Request(closed.payload, closed.seal))
        if any(link.line.what == _RECORDED for link in told):
            for item in await self._all(keys.results_of(pid)):
                result = decode_result(item.value)
                found.append(Request(result.payload, result.seal))
        return {request.digest.hex(): request for request in found}

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


def _found(items: Sequence[Item | None]) -> _Found:
    birth, live, closed, removed = items
    return _Found(
        decode_birth(birth.value) if birth is not None else None,
        decode_live(live.value) if live is not None else None,
        decode_closed(closed.value) if closed is not None else None,
        decode_removed(removed.value) if removed is not None else None,
    )


def _lines(
    told: Sequence[Link], request: Request | None, later: Mapping[str, Request]
) -> list[str]:
    """Events, each followed by its request as far as that is kept."""
    lines: list[str] = []
    for link in told:
        lines.append(codec.encode(link.line).decode())
        caused_by = later.get(link.line.req) if link.line.n else request
        if caused_by is not None:
            lines.append(caused_by.line)
    return lines
