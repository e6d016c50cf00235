"""Digests, tokens and seals; sealed requests and replies; and what none of them may be."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

from colonist_protocol import codec, digests, envelope
from colonist_protocol.errors import EpochStaleError
from colonist_protocol.identity import ORDER, Identity
from colonist_protocol.message import Message
from colonist_protocol.process import AssignProcess, CloseSuccessful, GetProcess
from colonist_protocol.seal import (
    MAX_INDEX,
    MAX_SEQ,
    MAX_TTL_S,
    VERSION,
    AttemptSeal,
    EpochSeal,
    ReplySeal,
    RequestSeal,
    pack_seal,
)
from colonist_protocol.tokens import ServerKey, sign_successor
from scripts.vectors.case import PUBLISHED, bad

CALLER, SERVER, OLD, OLDEST = (Identity.from_hex(PUBLISHED[at][0]) for at in range(4))
STRANGER = Identity.from_hex("5e" * 32)
KEY = ServerKey(SERVER)
PROCESS = "ab" * 32
ERA, NONCE, ID = "0a1b2c3d", "00ff00ff00ff00ff", "0123456789abcdef" * 2
EPOCH = KEY.epoch_token(29_399_999, ERA)
ATTEMPT = KEY.attempt_token(PROCESS, CALLER.id, 7, NONCE)
TAGS = [
    digests.REQUEST,
    digests.REPLY,
    digests.HTTP,
    digests.CLAIM,
    digests.CLAIM_KEY,
    digests.KEY,
    digests.EVENT,
    digests.CHECKPOINT,
    digests.UPDATE,
    digests.TOKEN,
    digests.EPOCH,
    digests.ATTEMPT,
]
PARTS = [[], [""], ["e30="], ["e30=", "e30="], ["", ""], ["\u00e5ngstr\u00f6m", "\U0001f41d"]]
MAX_N = 2**32 - 1
GOOD_EPOCH_SEAL: dict[str, Any] = {"v": 1, "to": SERVER.id, "epoch": EPOCH, "id": ID, "ttl": 600}
GOOD_ATTEMPT_SEAL: dict[str, Any] = {"v": 1, "to": SERVER.id, "attempt": ATTEMPT, "seq": 7}
RE = "cd" * 32
GOOD_REPLY_SEAL: dict[str, Any] = {
    "v": 1,
    "to": CALLER.id,
    "re": RE,
    "index": 0,
    "ok": True,
    "epoch": EPOCH,
    "time": 1_763_942_400_000,
    "members": 12,
    "event": "",
}


def vectors() -> dict[str, Any]:
    secret = hmac.digest(bytes.fromhex(SERVER.reveal()), b"colonist:token:1", "sha256")
    return {
        "caller": CALLER.reveal(),
        "server": SERVER.reveal(),
        "secret": secret.hex(),
        "digests": [digest(tag, parts) for tag in TAGS for parts in PARTS],
        "bad_digests": [
            {"why": why, "code": "invalid_value", "tag": digests.REQUEST, "parts": parts}
            for why, parts in {
                "a line feed in a part": ["e30=", "a\nb"],
                "one part that reads as two": ["e30=\ne30="],
                "a line feed at the end": ["e30=\n"],
            }.items()
        ],
        "macs": [mac(secret, tag, parts) for tag in TAGS for parts in PARTS],
        "epochs": epochs(),
        "bad_epochs": [{"why": why, "text": text} for why, text in bad_epochs().items()],
        "foreign_epochs": [{"why": why, "text": text} for why, text in foreign_epochs().items()],
        "attempts": attempts(),
        "bad_attempts": [{"why": why, "text": text} for why, text in bad_attempts().items()],
        "successors": [successor(OLD, SERVER.id), successor(OLDEST, OLD.id)],
        "request_seals": request_seals(),
        "bad_epoch_seals": bad_seals(GOOD_EPOCH_SEAL, of_epoch()),
        "bad_attempt_seals": bad_seals(GOOD_ATTEMPT_SEAL, of_attempt()),
        "reply_seals": reply_seals(),
        "bad_reply_seals": bad_seals(GOOD_REPLY_SEAL, of_reply()),
        "requests": requests(),
        "bad_requests": bad_requests(),
        "replies": replies(),
        "bad_replies": bad_replies(),
    }


# -- digests and tokens; what the code under test makes is made here by hand, too


def digest(tag: str, parts: list[str]) -> dict[str, Any]:
    text = "\n".join([tag, *parts]).encode()
    return {"tag": tag, "parts": parts, "digest": hashlib.sha3_256(text).hexdigest()}


def mac(secret: bytes, tag: str, parts: list[str]) -> dict[str, Any]:
    text = "\n".join([tag, *parts]).encode()
    return {"tag": tag, "parts": parts, "mac": hmac.digest(secret, text, "sha256")[:16].hex()}


def epochs() -> list[dict[str, Any]]:
    pairs = [(0, "00000000"), (1, ERA), (29_399_999, ERA), (MAX_N, "ffffffff")]
    return [{"n": n, "era": era, "token": KEY.epoch_token(n, era)} for n, era in pairs]


def bad_epochs() -> dict[str, str]:
    n, era, code = EPOCH.split(".")
    return {
        "nothing but a dot": ".",
        "a leading zero": f"0{EPOCH}",
        "a sign": f"+{EPOCH}",
        "a negative minute": f"-{EPOCH}",
        "a minute of 33 bits": f"{2**32}.{era}.{code}",
        "a minute of eleven digits": f"10000000000.{era}.{code}",
        "no minute": f".{era}.{code}",
        "a minute with an underscore": f"1_0.{era}.{code}",
        "digits of another script": f"\u0661.{era}.{code}",
        "era in upper case": f"{n}.{era.upper()}.{code}",
        "mac in upper case": f"{n}.{era}.{code.upper()}",
        "a short era": f"{n}.{era[:-1]}.{code}",
        "a long era": f"{n}.{era}0.{code}",
        "a short mac": EPOCH[:-1],
        "a long mac": EPOCH + "0",
        "two parts": f"{n}.{era}",
        "four parts": f"{EPOCH}.0",
        "a space before": f" {EPOCH}",
        "a space behind": f"{EPOCH} ",
        "a line feed behind": f"{EPOCH}\n",
        "a token of an attempt": ATTEMPT,
    }


def foreign_epochs() -> dict[str, str]:
    n, era, code = EPOCH.split(".")
    other = "f" if code[0] != "f" else "0"
    return {
        "of another key": ServerKey(OLD).epoch_token(int(n), era),
        "another minute": f"{int(n) + 1}.{era}.{code}",
        "another era": f"{n}.{era[:-1]}0.{code}",
        "another mac": f"{n}.{era}.{other}{code[1:]}",
    }


def attempts() -> list[dict[str, Any]]:
    grants = [(1, "00" * 8), (7, NONCE), (MAX_N, "ff" * 8)]
    return [
        {
            "process": PROCESS,
            "executor": CALLER.id,
            "number": number,
            "nonce": nonce,
            "token": KEY.attempt_token(PROCESS, CALLER.id, number, nonce),
        }
        for number, nonce in grants
    ]


def bad_attempts() -> dict[str, str]:
    number, nonce, code = ATTEMPT.split(".")
    return {
        "empty": "",
        "number zero": f"0.{nonce}.{code}",
        "a leading zero": f"0{ATTEMPT}",
        "a negative number": f"-{ATTEMPT}",
        "a number of 33 bits": f"{2**32}.{nonce}.{code}",
        "nonce in upper case": f"{number}.{nonce.upper()}.{code}",
        "a short nonce": f"{number}.{nonce[:-1]}.{code}",
        "mac in upper case": f"{number}.{nonce}.{'AB' * 16}",
        "a long mac": ATTEMPT + "0",
        "a line feed behind": ATTEMPT + "\n",
        "two parts": f"{number}.{nonce}",
        "a token of an epoch": EPOCH,
    }


def successor(old: Identity, new: str) -> dict[str, str]:
    return {"old": old.reveal(), "id": old.id, "new": new, "signature": sign_successor(old, new)}


# -- seals


def request_seals() -> list[dict[str, Any]]:
    kinds: list[RequestSeal] = [
        EpochSeal(VERSION, SERVER.id, EPOCH, ID, 600),
        EpochSeal(VERSION, SERVER.id, "", "0" * 32, 1),
        EpochSeal(VERSION, SERVER.id, EPOCH, "f" * 32, MAX_TTL_S),
        AttemptSeal(VERSION, SERVER.id, ATTEMPT, 0),
        AttemptSeal(VERSION, SERVER.id, ATTEMPT, MAX_SEQ),
    ]
    found: list[dict[str, Any]] = []
    for seal in kinds:
        text = codec.encode(seal).decode()
        kind = "addlogmsg" if isinstance(seal, AttemptSeal) else "getcolonymsg"
        written = json.loads(text)
        turned = dict(reversed(written.items()))
        spellings = {
            "as we write it": text,
            "with spaces": json.dumps(written),
            "members turned round": json.dumps(turned),
            "lines and tabs": json.dumps(written, indent="\t").replace("\n", "\r\n") + "\n",
            "an escape": text.replace('"v"', '"\\u0076"'),
        }
        found += [
            {"why": why, "payloadtype": kind, "text": b64(each), "members": written}
            for why, each in spellings.items()
        ]
    return found


def reply_seals() -> list[dict[str, Any]]:
    changes: list[dict[str, Any]] = [
        {},
        {"ok": False, "index": MAX_INDEX, "members": 0, "time": 0},
        {"epoch": "", "event": "ef" * 32},
    ]
    return [
        {"text": b64(json.dumps({**GOOD_REPLY_SEAL, **change}, separators=(",", ":")))}
        | {"members": {**GOOD_REPLY_SEAL, **change}}
        for change in changes
    ]


def bad_seals(good: dict[str, Any], own: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """What no seal may be, and what this kind may not."""
    text = json.dumps(good, separators=(",", ":"))
    packed = b64(text)
    name = list(good)[-1]
    found = {
        "empty": "",
        "no base64": "!!!!",
        "not padded": packed.rstrip("=") if packed.endswith("=") else packed[:-1],
        "white space in the base64": packed[:4] + " " + packed[4:],
        "a line feed at the end": packed + "\n",
        "base64 for addresses": b64(text + " " * (2 - len(text) % 3)).replace("=", "-"),
        "bits beyond the last byte": _with_bits(text),
        "too long": b64(text + " " * 800),
        "no JSON": b64("seal"),
        "cut": b64(text[:-1]),
        "two values": b64(text + text),
        "something behind": b64(text + "x"),
        "byte order mark": b64(b"\xef\xbb\xbf" + text.encode()),
        "not UTF-8": b64(text.encode()[:-1] + b',"x":"\xff"}'),
        "null": b64("null"),
        "array": b64(f"[{text}]"),
        "text": b64('"x"'),
        "an unknown member": b64(text[:-1] + ',"x":1}'),
        "an unknown member that is null": b64(text[:-1] + ',"x":null}'),
        "a member of the wrong case": b64(text.replace('"to"', '"To"')),
        "a member twice": b64(text[:-1] + ',"v":1}'),
        "a member twice by an escape": b64(text[:-1] + ',"\\u0076":1}'),
        "NaN": b64(text.replace('"v":1', '"v":NaN')),
        "out of range": b64(text.replace('"v":1', '"v":1e999')),
        "a lone surrogate": b64(text.replace(f'"to":"{good["to"]}"', '"to":"\\ud800"')),
        "too deep": b64(text[:-1] + ',"x":' + "[" * 40 + "]" * 40 + "}"),
        "a control character": b64(text.replace('"to":"', '"to":"\x01')),
        "no v": b64(_without(good, "v")),
        f"no {name}": b64(_without(good, name)) if name != "event" else b64(_without(good, "ok")),
        "v is null": b64(text.replace('"v":1', '"v":null')),
        "v is 2": b64(text.replace('"v":1', '"v":2')),
        "v is 0": b64(text.replace('"v":1', '"v":0')),
        "v is a text": b64(text.replace('"v":1', '"v":"1"')),
        "v is true": b64(text.replace('"v":1', '"v":true')),
        "v is 1.0": b64(text.replace('"v":1', '"v":1.0')),
        "to is empty": b64(json.dumps({**good, "to": ""})),
        "to in upper case": b64(json.dumps({**good, "to": good["to"].upper()})),
        "to of 63 characters": b64(json.dumps({**good, "to": good["to"][:-1]})),
        "to with a line feed": b64(json.dumps({**good, "to": good["to"] + "\n"})),
        "to is a number": b64(json.dumps({**good, "to": 1})),
        **{why: b64(json.dumps({**good, **change})) for why, change in own.items()},
    }
    return [{"why": why, "code": "seal_invalid", "text": text} for why, text in found.items()]


def of_epoch() -> dict[str, dict[str, Any]]:
    forms = {f"epoch: {why}": {"epoch": text} for why, text in bad_epochs().items()}
    return {
        **forms,
        "epoch is null": {"epoch": None},
        "id of 31 characters": {"id": ID[:-1]},
        "id of 33 characters": {"id": ID + "0"},
        "id in upper case": {"id": ID.upper()},
        "id that is no number": {"id": "g" + ID[1:]},
        "ttl 0": {"ttl": 0},
        "ttl negative": {"ttl": -600},
        "ttl over a week": {"ttl": MAX_TTL_S + 1},
        "ttl with a point": {"ttl": 600.0},
        "ttl a text": {"ttl": "600"},
        "ttl true": {"ttl": True},
        "ttl of 5000 digits is too long": {"ttl": int("9" * 300)},
        "with an attempt besides": {"attempt": ATTEMPT},
        "a seal of an attempt besides": {"seq": 1},
    }


def of_attempt() -> dict[str, dict[str, Any]]:
    forms = {f"attempt: {why}": {"attempt": text} for why, text in bad_attempts().items()}
    return {
        **forms,
        "seq negative": {"seq": -1},
        "seq of 33 bits": {"seq": 2**32},
        "seq with a point": {"seq": 7.0},
        "seq a text": {"seq": "7"},
        "seq true": {"seq": True},
        "with an epoch besides": {"epoch": EPOCH},
        "with a ttl besides": {"ttl": 600},
    }


def of_reply() -> dict[str, dict[str, Any]]:
    return {
        "re of 63 characters": {"re": RE[:-1]},
        "re in upper case": {"re": RE.upper()},
        "index negative": {"index": -1},
        "index of 33 bits": {"index": MAX_INDEX + 1},
        "ok is 1": {"ok": 1},
        "ok is null": {"ok": None},
        "time negative": {"time": -1},
        "time with a point": {"time": 1.5},
        "members negative": {"members": -1},
        "members is null": {"members": None},
        "event is no hash": {"event": "ab"},
        "event in upper case": {"event": "AB" * 32},
        "an epoch that is no token": {"epoch": "1.2.3"},
    }


# -- whole requests and replies


def requests() -> list[dict[str, Any]]:
    pairs: list[tuple[Message, RequestSeal]] = [
        (GetProcess(processid=PROCESS), EpochSeal(VERSION, SERVER.id, EPOCH, ID, 600)),
        (AssignProcess(colonyname="c", timeout=10), EpochSeal(VERSION, SERVER.id, "", ID, 1)),
        (CloseSuccessful(processid=PROCESS), AttemptSeal(VERSION, SERVER.id, ATTEMPT, 7)),
    ]
    return [request(message, seal) for message, seal in pairs]


def request(message: Message, seal: RequestSeal) -> dict[str, Any]:
    payload, text = codec.to_base64(codec.encode(message)), pack_seal(seal)
    return {
        "message": codec.encode(message).decode(),
        "seal": codec.encode(seal).decode(),
        "payload": payload,
        "digest": digest(digests.REQUEST, [payload, text])["digest"],
        "body": envelope.pack_sealed_request(message, CALLER, seal).decode(),
    }


def bad_requests() -> list[dict[str, Any]]:
    message = GetProcess(processid=PROCESS)
    seal = EpochSeal(VERSION, SERVER.id, EPOCH, ID, 600)
    good: dict[str, Any] = json.loads(envelope.pack_sealed_request(message, CALLER, seal))
    sign: str = good["signature"]
    high = (ORDER - int(sign[64:128], 16)).to_bytes(32, "big").hex()
    other_v = "00" if sign.endswith("01") else "01"
    attempt = pack_seal(AttemptSeal(VERSION, SERVER.id, ATTEMPT, 7))
    changes: list[tuple[str, str, dict[str, Any]]] = [
        ("a seal of an attempt for another message", "seal_invalid", {"seal": attempt}),
        (
            "a seal of an epoch for a message of an attempt",
            "seal_invalid",
            {"payloadtype": "closesuccessfulmsg"},
        ),
        ("no signature", "signature_length", {"signature": ""}),
        ("signature in upper case", "signature_range", {"signature": sign.upper()}),
        ("v is 27", "signature_range", {"signature": sign[:128] + "1b"}),
        ("v is 2", "signature_range", {"signature": sign[:128] + "02"}),
        ("high s", "high_s", {"signature": sign[:64] + high + other_v}),
        ("one character less", "signature_length", {"signature": sign[:-1]}),
        ("not hexadecimal", "signature_hex", {"signature": "g" + sign[1:]}),
        ("control character in the type", "out_of_bounds", {"payloadtype": "get\x01msg"}),
        ("a seal that is a number", "wrong_type", {"seal": 1}),
        ("an index that is a text", "wrong_type", {"index": "1"}),
    ]
    return [bad(why, code, json.dumps({**good, **change})) for why, code, change in changes]


def replies() -> list[dict[str, Any]]:
    request_ = requests()[0]
    failure = envelope.failure_json(EpochStaleError("stale"))
    via = (
        (OLDEST.id, sign_successor(OLDEST, OLD.id)),
        (OLD.id, sign_successor(OLD, SERVER.id)),
    )
    told: list[tuple[str, bytes, dict[str, Any], str, tuple[tuple[str, str], ...]]] = [
        ("a success", b'{"a":1}', {}, SERVER.id, ()),
        ("a failure", failure, {"ok": False}, SERVER.id, ()),
        ("the grant number 3", b"{}", {"index": 3}, SERVER.id, ()),
        ("with a receipt", b"{}", {"event": "ef" * 32}, SERVER.id, ()),
        ("by the key that followed", b"{}", {}, OLD.id, via),
        ("by the second that followed", b"{}", {}, OLDEST.id, via),
        ("by the pinned key, with those before", b"{}", {}, SERVER.id, via),
    ]
    return [
        {
            "why": why,
            "server": pinned,
            "caller": CALLER.id,
            "re": request_["digest"],
            "index": change.get("index", 0),
            "reply": payload.decode(),
            "ok": change.get("ok", True),
            "body": reply(payload, {"re": request_["digest"], **change}, via=chain),
        }
        for why, payload, change, pinned, chain in told
    ]


def reply(
    payload: bytes,
    change: dict[str, Any],
    *,
    signer: Identity = SERVER,
    via: tuple[tuple[str, str], ...] = (),
) -> str:
    seal = ReplySeal(**{**GOOD_REPLY_SEAL, **change})
    unsigned = envelope.sealed_reply("getprocessmsg", payload, seal)
    return unsigned.signed(signer, via).decode()


def bad_replies() -> list[dict[str, Any]]:
    re = requests()[0]["digest"]
    body = reply(b"{}", {"re": re})
    parts: dict[str, Any] = json.loads(body)
    line = ((OLD.id, sign_successor(OLD, SERVER.id)),)
    torn = ((OLDEST.id, sign_successor(OLDEST, STRANGER.id)), *line)
    long = tuple((OLD.id, sign_successor(OLD, SERVER.id)) for _ in range(17))
    plain = json.dumps({name: parts[name] for name in ("payloadtype", "payload", "error")})

    def told(why: str, code: str, text: str, pinned: str = SERVER.id) -> dict[str, Any]:
        expected = {"server": pinned, "caller": CALLER.id, "re": re, "index": 0}
        return {"why": why, "code": code, "body": text, **expected}

    def changed(**members: Any) -> str:
        return json.dumps({**parts, **members})

    def other(**change: Any) -> str:
        return reply(b"{}", {"re": re, **change})

    return [
        told("not sealed", "seal_invalid", plain),
        told("for another caller", "wrong_server", other(to=STRANGER.id)),
        told("to another request", "wrong_server", other(re=RE)),
        told("another grant", "wrong_server", other(index=1)),
        told("by a stranger", "wrong_server", reply(b"{}", {"re": re}, signer=STRANGER)),
        told("by the key before", "wrong_server", reply(b"{}", {"re": re}, signer=OLD)),
        told("pinned key of which nothing is told", "wrong_server", body, OLD.id),
        told("a chain that is torn", "wrong_server", changed(via=torn), OLDEST.id),
        told("a chain that ends elsewhere", "wrong_server", changed(via=line), OLDEST.id),
        told("a chain of too many", "wrong_server", changed(via=long), OLD.id),
        told(
            "a chain with a signature of nothing",
            "signature_length",
            changed(via=[[OLD.id, ""]]),
            OLD.id,
        ),
        told("another payload", "wrong_server", changed(payload="eyJhIjoyfQ==")),
        told("no signature", "signature_length", changed(signature="")),
        told("a seal that is none", "seal_invalid", changed(seal="e30=")),
        told("no JSON", "not_json", "404 page not found"),
    ]


def b64(text: str | bytes) -> str:
    return codec.to_base64(text.encode() if isinstance(text, str) else text)


def _with_bits(text: str) -> str:
    """The base64 of some seal, its last character changed where that changes no byte."""
    packed = b64(text + " " * ((1 - len(text)) % 3))
    return packed[:-3] + chr(ord(packed[-3]) + 1) + "=="


def _without(good: dict[str, Any], name: str) -> str:
    return json.dumps({key: value for key, value in good.items() if key != name})
