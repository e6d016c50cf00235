"""Digests, the chain of a process, ids of attributes."""

from __future__ import annotations

import json
from typing import Any

from colonist_protocol import codec, envelope, evidence
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
