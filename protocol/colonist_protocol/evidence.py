"""The hash chain of a process: one line per event, each bound to the one before."""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from colonist_protocol import codec, digests

EVENT_TAG: Final = digests.EVENT
tagged_digest = digests.tagged_digest


class EventLine(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One event as it is hashed and exported; the order of the members is the order of the bytes.

    `chain` is the process, `n` counts its events from 0, `who` is the caller's id ("" for the
    server), `time` is in milliseconds since 1970, `req` and `sig` are hex, "" for the server.
    """

    v: int = 1
    chain: str
    n: int
    what: str
    who: str
    attempt: int
    time: int
    req: str
    sig: str
    prev: str


def event_hash(line: EventLine) -> bytes:
    """The head of the chain after this event."""
    return hashlib.sha3_256(EVENT_TAG.encode() + b"\n" + codec.encode(line)).digest()
