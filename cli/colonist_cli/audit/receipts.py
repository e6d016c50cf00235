"""Receipts: sealed replies that somebody kept, each naming the event that the server promised."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from colonist_protocol import codec, digests
from colonist_protocol.audit_reading import AuditError, Fault, Servers, signer
from colonist_protocol.envelope import ReplyEnvelope
from colonist_protocol.errors import ColonistError
from colonist_protocol.seal import read_reply_seal


class Receipt(NamedTuple):
    """What a kept reply says: the hash of an event, and of which process if it tells."""

    name: str
    event: str
    chain: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """What to look for in the file."""
        return (self.event, self.chain) if self.chain else (self.event,)

    def fault(self, seen: Collection[str]) -> Fault | None:
        """What is wrong when the file has neither the event nor the removal of its process."""
        if self.event in seen or self.chain in seen:
            return None
        text = f"receipt {self.name}: the event {self.event} is not in the file"
        return Fault(text, -1, chain=self.chain)


class _Process(msgspec.Struct, frozen=True):
    processid: str = ""


def read_receipts(folder: Path, servers: Servers) -> Iterator[Receipt]:
    """The receipts among the files of a folder, in the order of their names.

    Replies that name no event are none. Raises `AuditError` for what is no reply of the server,
    and `OSError`.
    """
    for path in sorted(folder.iterdir()):
        if path.is_file() and (found := read_receipt(path.name, path.read_bytes(), servers)):
            yield found


def read_receipt(name: str, data: bytes, servers: Servers) -> Receipt | None:
    """One kept reply. Raises `AuditError`."""
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
    return Receipt(name, seal.event, _process_of(payload))


def _process_of(payload: bytes) -> str:
    try:
        return msgspec.json.decode(payload, type=_Process).processid
    except msgspec.DecodeError:
        return ""
