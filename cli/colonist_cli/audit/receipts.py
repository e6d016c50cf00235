"""Receipts: sealed replies that somebody kept, each naming the event that the server promised.

Beside a reply may stand the request that it answers, in a file of the name that `request_of` gives:
it tells which process the event is of, where the reply does not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from colonist_client.receipts import REQUEST_END, request_of
from colonist_protocol import codec, digests
from colonist_protocol.audit_events import kept
from colonist_protocol.audit_reading import AuditError, Fault, Servers, signer
from colonist_protocol.audit_requests import read_content
from colonist_protocol.envelope import ReplyEnvelope, parse_request
from colonist_protocol.errors import ColonistError
from colonist_protocol.seal import read_reply_seal


class Receipt(NamedTuple):
    """What a kept reply says: the hash of an event, and of which process if it is known."""

    name: str
    event: str
    chain: str = ""
    time_ms: int = 0
    is_told: bool = False
    """Whether the request is there: what names no process is then about the colony."""

    @property
    def names(self) -> tuple[str, ...]:
        """What to look for in the file."""
        return (self.event, self.chain) if self.chain else (self.event,)

    def is_kept(self, seen: Collection[str]) -> bool:
        """Whether the file has the event, or the removal of its process."""
        return self.event in seen or self.chain in seen

    def is_forgotten(self, seen: Collection[str], until_ms: int) -> bool:
        """Whether it is of before the history that is told, and so may be the process."""
        if self.time_ms >= until_ms or kept(self.chain) in seen:
            return False
        return bool(self.chain) or not self.is_told

    def fault(self) -> Fault:
        """What is wrong when the file has nothing of it."""
        text = f"receipt {self.name}: the event {self.event} is not in the file"
        if not self.chain and not self.is_told:
            text += f"; {request_of(self.name)} could tell whether its process was removed"
        return Fault(text, -1, chain=self.chain)


class _Process(msgspec.Struct, frozen=True):
    processid: str = ""


def read_receipts(folder: Path, servers: Servers) -> Iterator[Receipt]:
    """The receipts among the files of a folder, in the order of their names.

    Replies that name no event are none. Raises `AuditError` for what is no reply of the server,
    and `OSError`.
    """
    for path in sorted(folder.iterdir()):
        if not path.is_file() or path.name.endswith(REQUEST_END):
            continue
        beside = folder / request_of(path.name)
        request = beside.read_bytes() if beside.is_file() else b""
        if found := read_receipt(path.name, path.read_bytes(), servers, request):
            yield found


def read_receipt(name: str, data: bytes, servers: Servers, request: bytes = b"") -> Receipt | None:
    """One kept reply, and its request if there is any. Raises `AuditError`."""
    try:
        reply = codec.decode(data, ReplyEnvelope, "reply")
        seal = read_reply_seal(reply.seal)
        payload = codec.from_base64(reply.payload)
        digest32 = digests.tagged_digest(digests.REPLY, reply.payload, reply.seal)
        servers.place(signer(digest32, reply.signature))
    except (ColonistError, AuditError) as error:
        raise AuditError(f"receipt {name} is no sealed reply of the server: {error}") from None
    if not seal.event:
        return None
    chain = _process_of(payload)
    if request:
        chain = _process_asked(request, seal.re, request_of(name)) or chain
    return Receipt(name, seal.event, chain, seal.time, is_told=bool(request))


def _process_of(payload: bytes) -> str:
    try:
        return msgspec.json.decode(payload, type=_Process).processid
    except msgspec.DecodeError:
        return ""


def _process_asked(request: bytes, digest_hex: str, name: str) -> str:
    try:
        sent = parse_request(request)
        digest32 = digests.tagged_digest(digests.REQUEST, sent.payload, sent.seal)
        process = read_content(sent.payload).process_named
    except (ColonistError, AuditError) as error:
        raise AuditError(f"{name} is no request: {error}") from None
    if digest32.hex() != digest_hex:
        raise AuditError(f"{name} is not the request that the reply beside it answers")
    return process
