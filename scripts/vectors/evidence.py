"""Digests, the chain of a process, ids of attributes."""

from __future__ import annotations

import json
from typing import Any

from colonist_core.history import Link, links, removal
from colonist_core.process import Event, What
from colonist_protocol import audit, codec, envelope, evidence
from colonist_protocol.attribute import attribute_id
from colonist_protocol.identity import Identity
from colonist_protocol.process import CloseSuccessful
from scripts.vectors.case import PUBLISHED


def vectors() -> dict[str, Any]:
    parts = [
        ("colonist:req:1", ["e30=", "e30="]),
        ("colonist:claim:1", ["a", "b", "c", "d"]),
        ("colonist:event:1", [""]),
        ("t", []),
        ("t", ["", ""]),
        ("colonist:key:1", ["\u00e5", "\U0001f41d"]),
    ]
    return {
        "digests": [
            {"tag": tag, "parts": list(each), "digest": evidence.tagged_digest(tag, *each).hex()}
            for tag, each in parts
        ],
        "chain": chain(),
        "history": history(),
        "checkpoints": checkpoints(),
        "attributes": [
            {"target": target, "key": key, "kind": kind, "id": attribute_id(target, key, kind)}
            for target, key, kind in (
                ("ab" * 32, "k", 1),
                ("", "", 0),
                ("x", "\u00e5", 3),
                ("x", "1", 11),
            )
        ],
    }


def chain() -> list[dict[str, Any]]:
    identity = Identity.from_hex(PUBLISHED[0][0])
    body = envelope.pack_request(CloseSuccessful(processid="ab" * 32), identity)
    signed_by = envelope.authenticate(envelope.parse_request(body))
    found: list[dict[str, Any]] = []
    head = ""
    for n, (what, by_caller) in enumerate(
        (("submitted", True), ("assigned", True), ('ti\u00e5 "\\\n', False))
    ):
        line = evidence.EventLine(
            chain="ab" * 32,
            n=n,
            what=what,
            who=signed_by.caller if by_caller else "",
            attempt=n,
            time=1_795_246_274_278 + n,
            req=signed_by.digest.hex() if by_caller else "",
            sig=signed_by.signature.hex() if by_caller else "",
            prev=head,
        )
        head = evidence.event_hash(line).hex()
        text = codec.encode(line).decode()
        found.append({"line": json.loads(text), "text": text, "hash": head})
    return found


def history() -> list[dict[str, Any]]:
    """Events as they are stored, and the lines that are told of them."""
    by = bytes.fromhex("11" * 32), bytes.fromhex("22" * 32), bytes.fromhex("33" * 65)
    server = b"", b"", b""
    stored = [
        Event(What.SUBMITTED, 0, 1_795_246_274_278, *by),
        Event(What.ASSIGNED, 1, 1_795_246_274_279, *by),
        Event(What.REQUEUED, 1, 1_795_246_334_279, *server),
        Event(What.ASSIGNED, 2, 1_795_246_334_280, *by),
        Event(What.SUCCEEDED, 2, 1_795_246_334_280, *by),
    ]
    process = "ab" * 32
    told = list(links(process, stored))
    gone = Event(0, 2, 1_795_246_400_000, *by)
    end = removal(process, len(told), gone, told[-1].head)
    found = [_told(event, link) for event, link in zip(stored, told, strict=True)]
    return [*found, _told(gone, end)]


def _told(event: Event, link: Link) -> dict[str, Any]:
    text = codec.encode(link.line).decode()
    stored = [
        event.what,
        event.attempt,
        event.time_ms,
        event.who.hex(),
        event.digest.hex(),
        event.signature.hex(),
    ]
    return {"stored": stored, "what": link.line.what, "line": text, "head": link.head.hex()}


def checkpoints() -> list[dict[str, Any]]:
    """Two checkpoints, signed one after the other."""
    identity = Identity.from_hex(PUBLISHED[0][0])
    found: list[dict[str, Any]] = []
    before = ""
    for k, heads in enumerate(
        ((("ab" * 32, 0, "01" * 32),), (("ab" * 32, 3, "02" * 32), ("cd" * 32, 1, "03" * 32))), 1
    ):
        checkpoint = audit.Checkpoint(
            colony="h\u00e4us", k=k, prev=before, time=1_795_246_274_000 + k, heads=heads
        )
        line = codec.encode(checkpoint).decode()
        before = audit.checkpoint_digest(line).hex()
        signature = identity.sign(audit.checkpoint_text(line))
        mark = codec.encode(audit.CheckpointSignature(k=k, sig=signature)).decode()
        found.append({"line": line, "digest": before, "server": identity.id, "mark": mark})
    return found
