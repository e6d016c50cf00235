"""Requests and replies as they travel."""

from __future__ import annotations

import json
from typing import Any, cast

import msgspec

from colonist_protocol import codec, envelope
from colonist_protocol.errors import ColonistError, NoProcessError
from colonist_protocol.identity import Identity
from colonist_protocol.process import AssignProcess
from scripts.vectors.case import PUBLISHED, bad
from scripts.vectors.messages import full


def vectors() -> dict[str, Any]:
    identity = Identity.from_hex(PUBLISHED[0][0])
    good = envelope.pack_request(AssignProcess(colonyname="c", timeout=10), identity)
    parts: dict[str, str] = json.loads(good)
    return {
        "private": identity.reveal(),
        "id": identity.id,
        "requests": requests(identity),
        "accepted": [
            {"why": why, "text": text, **parts} for why, text in accepted_bodies(parts).items()
        ],
        "refused": refused_bodies(parts),
        "unopened": unopened(),
        "replies": replies(),
        "failures": failures(),
        "bad_replies": [
            bad("no JSON", "not_json", "404 page not found"),
            bad("null", "wrong_type", "null"),
            bad("no payload", "missing_member", '{"payloadtype":"a","error":false}'),
            bad("payload no base64", "bad_base64", '{"payloadtype":"a","payload":"e30"}'),
            bad("error no bool", "wrong_type", '{"payloadtype":"a","payload":"e30=","error":1}'),
            bad(
                "no failure", "missing_member", '{"payloadtype":"a","payload":"e30=","error":true}'
            ),
        ],
    }


def requests(identity: Identity) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for message in full():
        body = envelope.pack_request(message, identity)
        found.append({"message": codec.encode(message).decode(), "body": body.decode()})
    return found


def accepted_bodies(parts: dict[str, str]) -> dict[str, str]:
    turned = dict(reversed(parts.items()))
    deep = "[" * 31 + "]" * 31
    return {
        "as we write it": codec.encode(parts).decode(),
        "as pycolonies writes it": json.dumps(parts),
        "members turned round": json.dumps(turned),
        "line ends and tabs": json.dumps(parts, indent="\t").replace("\n", "\r\n") + "\n",
        "unknown members": json.dumps({"x": {"y": [1, 2.5, None]}, **parts, "error": False}),
        "unknown null": json.dumps({**parts, "attempt": None}),
        "deepest": json.dumps(parts)[:-1] + f',"x":{deep}}}',
        "escapes": json.dumps(parts).replace("payload", "p\\u0061yload").replace("/", "\\/"),
        "an escaped colon": json.dumps(parts)[:-1] + ',"\\u003a":":"}',
    }


def refused_bodies(parts: dict[str, str]) -> list[dict[str, Any]]:
    text = json.dumps(parts)
    open_end = text[:-1]
    strange = json.dumps({**parts, "payloadtype": "get\u0000msg"})
    return [
        bad("empty", "not_json", ""),
        bad("two values", "not_json", text + text),
        bad("cut", "not_json", text[:-5]),
        bad("single quotes", "not_json", text.replace('"', "'")),
        bad("comma at the end", "not_json", open_end + ",}"),
        bad("comment", "not_json", text + "// x"),
        bad("byte order mark", "not_json", b"\xef\xbb\xbf" + text.encode()),
        bad("UTF-16", "not_utf8", text.encode("utf-16")),
        bad("Latin-1", "not_utf8", open_end.encode() + b',"x":"\xe5"}'),
        bad("overlong", "not_utf8", open_end.encode() + b',"x":"\xc0\xaf"}'),
        bad("surrogate in UTF-8", "not_utf8", open_end.encode() + b',"x":"\xed\xa0\x80"}'),
        bad("lone surrogate", "lone_surrogate", open_end + ',"x":"\\ud800"}'),
        bad("control character", "not_json", open_end + ',"x":"\u0001"}'),
        bad("null", "wrong_type", "null"),
        bad("array", "wrong_type", "[]"),
        bad("text", "wrong_type", '"x"'),
        bad("number", "wrong_type", "1"),
        bad("empty object", "missing_member", "{}"),
        bad("no payload", "missing_member", '{"payloadtype":"a","signature":""}'),
        bad("payload null", "missing_member", '{"payloadtype":"a","payload":null}'),
        bad("payload an object", "wrong_type", '{"payloadtype":"a","payload":{}}'),
        bad("payloadtype a number", "wrong_type", '{"payloadtype":1,"payload":""}'),
        bad("signature 1", "wrong_type", '{"payloadtype":"a","payload":"","signature":1}'),
        bad("payload twice", "duplicate_member", open_end + ',"payload":""}'),
        bad("signature twice", "duplicate_member", open_end + ',"signature":""}'),
        bad("twice by an escape", "duplicate_member", open_end + ',"p\\u0061yload":""}'),
        bad("unknown twice", "duplicate_member", open_end + ',"x":1,"x":1}'),
        bad("twice below", "duplicate_member", open_end + ',"x":[{"a":1,"a":1}]}'),
        bad("twice, hidden by a colon", "duplicate_member", open_end + ',"x":1,"x":"\\u003a"}'),
        bad("too deep", "too_deep", open_end + ',"x":' + "[" * 32 + "]" * 32 + "}"),
        bad("far too deep", "too_deep", open_end + ',"x":' + "[" * 3000 + "]" * 3000 + "}"),
        bad("NaN", "bad_number", open_end + ',"x":NaN}'),
        bad("out of range", "bad_number", open_end + ',"x":1e999}'),
        bad("type too long", "out_of_bounds", json.dumps({**parts, "payloadtype": "m" * 65})),
        bad("control character in the type", "out_of_bounds", strange),
    ]


def unopened() -> list[dict[str, Any]]:
    """Signed well, and yet no message: what `getcolonymsg` is refused for."""
    payloads: list[tuple[str, str, bytes | str]] = [
        ("not base64", "bad_base64", "e30"),
        ("line end in the base64", "bad_base64", "e30=\n"),
        ("bits beyond the end", "bad_base64", "e31="),
        ("null", "wrong_type", b"null"),
        ("array", "wrong_type", b"[]"),
        ("empty", "not_json", b""),
        ("no JSON", "not_json", b"{"),
        ("not UTF-8", "not_utf8", b'{"msgtype":"getcolonymsg","colonyname":"\xff"}'),
        ("no type", "msgtype_mismatch", b'{"colonyname":"c"}'),
        ("type null", "msgtype_mismatch", b'{"msgtype":null}'),
        ("type a number", "msgtype_mismatch", b'{"msgtype":1}'),
        ("other type", "msgtype_mismatch", b'{"msgtype":"removecolonymsg","colonyname":"c"}'),
        ("other case", "msgtype_mismatch", b'{"msgtype":"GetColonyMsg"}'),
        ("type twice", "duplicate_member", b'{"msgtype":"getcolonymsg","msgtype":"getcolonymsg"}'),
    ]
    return [
        {
            "why": why,
            "code": code,
            "payloadtype": "getcolonymsg",
            "payload": text if isinstance(text, str) else codec.to_base64(text),
        }
        for why, code, text in payloads
    ]


def replies() -> list[dict[str, str]]:
    return [
        {
            "payloadtype": kind,
            "reply": reply,
            "body": envelope.pack_reply(kind, reply.encode()).decode(),
        }
        for kind, reply in (
            ("approveexecutormsg", "{}"),
            ("getcoloniesmsg", "[]"),
            ("getcoloniesmsg", '[{"colonyid":"00","name":"\u00e5"}]'),
        )
    ]


class QuotingError(ColonistError):
    """Quotes what cannot be written."""


def failures() -> list[dict[str, Any]]:
    errors: list[ColonistError] = [
        NoProcessError("No process available for assignment"),
        ColonistError('\u00e5 " \\ < > & \u2028 \u0001'),
        QuotingError("half \ud800"),
    ]
    found: list[dict[str, Any]] = []
    for error in errors:
        body = envelope.pack_failure(error)
        failure = cast("envelope.Failure", envelope.parse_reply(body))
        found.append({**msgspec.structs.asdict(failure), "body": body.decode()})
    return found
