"""Bad input, one by one: each kind has its own code, nothing is stored, the server lives."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from colonist_protocol import codec, errors
from colonist_protocol.identity import ORDER, Identity
from tests.server.house import House, sign
from tests.server.people import STRANGER
from tests.support.rooms import COLONY, COLONY_OWNER, OWNER, key

ADA, EVE = key("ada"), key("eve")


def signed(payload: str, identity: Identity = ADA, kind: str = "submitfuncspecmsg") -> bytes:
    return sign(payload.encode(), identity, kind=kind)


def submit(spec: Any, identity: Identity = ADA, **members: Any) -> bytes:
    return signed(json.dumps({"msgtype": "submitfuncspecmsg", "spec": spec, **members}), identity)


GOOD_SPEC = {"funcname": "f", "conditions": {"colonyname": COLONY, "executortype": "cli"}}
GOOD = submit(GOOD_SPEC)


def envelope(**members: Any) -> bytes:
    """A good envelope with some members changed; `...` leaves one out."""
    changed = {**json.loads(GOOD), **members}
    return json.dumps({name: value for name, value in changed.items() if value is not ...}).encode()


def signature(change: Callable[[bytearray], None]) -> bytes:
    """A good envelope with a change in the bytes of its signature."""
    raw = bytearray.fromhex(json.loads(GOOD)["signature"])
    change(raw)
    return envelope(signature=raw.hex())


def put(at: int, value: int) -> Callable[[bytearray], None]:
    def change(raw: bytearray) -> None:
        raw[at : at + 32] = value.to_bytes(32, "big")

    return change


def set_recovery(value: int) -> Callable[[bytearray], None]:
    def change(raw: bytearray) -> None:
        raw[64] = value

    return change


def deep(levels: int) -> str:
    return "[" * levels + "]" * levels


SPEC = json.dumps(GOOD_SPEC)
OTHER = codec.to_base64(b'{"msgtype":"submitfuncspecmsg","spec":' + SPEC.encode() + b"}")


class Bad(NamedTuple):
    """A body and what it meets."""

    name: str
    body: bytes
    error: type[errors.ColonistError]


CASES = [
    # the body
    Bad("empty", b"", errors.NotJsonError),
    Bad("not json", b"hello", errors.NotJsonError),
    Bad("two values", GOOD + GOOD, errors.NotJsonError),
    Bad("cut off", GOOD[:-1], errors.NotJsonError),
    Bad("byte order mark", b"\xef\xbb\xbf" + GOOD, errors.NotJsonError),
    Bad("not utf-8", GOOD[:-2] + b'\xff"}', errors.NotUtf8Error),
    Bad("utf-16", GOOD.decode().encode("utf-16"), errors.NotUtf8Error),
    Bad("null body", b"null", errors.WrongTypeError),
    Bad("list body", b"[]", errors.WrongTypeError),
    Bad("text body", b'"hello"', errors.WrongTypeError),
    Bad("number body", b"1", errors.WrongTypeError),
    Bad("deep body", deep(50).encode(), errors.TooDeepError),
    Bad("very deep body", deep(500_000).encode(), errors.TooDeepError),
    Bad("no envelope", b"{}", errors.MissingMemberError),
    Bad("no payload", envelope(payload=...), errors.MissingMemberError),
    Bad("no payloadtype", envelope(payloadtype=...), errors.MissingMemberError),
    Bad("null payload", envelope(payload=None), errors.MissingMemberError),
    Bad("payload a number", envelope(payload=1), errors.WrongTypeError),
    Bad("payload an object", envelope(payload={}), errors.WrongTypeError),
    Bad("payloadtype a list", envelope(payloadtype=[]), errors.WrongTypeError),
    Bad("signature a number", envelope(signature=1), errors.WrongTypeError),
    Bad(
        "payload twice",
        GOOD[:-1] + b', "payload": "e30="}',
        errors.DuplicateMemberError,
    ),
    Bad("payloadtype too long", envelope(payloadtype="x" * 65), errors.OutOfBoundsError),
    Bad("payloadtype with control", envelope(payloadtype="a\nb"), errors.OutOfBoundsError),
    Bad("large body", b" " * 20_000_000, errors.TooLargeError),
    Bad("large payload", sign("A" * 1_500_000, ADA, kind="getcoloniesmsg"), errors.TooLargeError),
    # the seal
    Bad("no seal", envelope(seal="e30="), errors.SealError),
    Bad("seal not base64", envelope(seal="?"), errors.SealError),
    # the signature
    Bad("no signature", envelope(signature=...), errors.SignatureLengthError),
    Bad("null signature", envelope(signature=None), errors.SignatureLengthError),
    Bad("short signature", envelope(signature="ab"), errors.SignatureLengthError),
    Bad("signature no hex", envelope(signature="x" * 130), errors.SignatureHexError),
    Bad("r is 0", signature(put(0, 0)), errors.SignatureRangeError),
    Bad("r is the order", signature(put(0, ORDER)), errors.SignatureRangeError),
    Bad("r is over it", signature(put(0, 2**256 - 1)), errors.SignatureRangeError),
    Bad("s is 0", signature(put(32, 0)), errors.SignatureRangeError),
    Bad("s is the order", signature(put(32, ORDER)), errors.SignatureRangeError),
    Bad("s is high", signature(put(32, ORDER - 1)), errors.HighSError),
    Bad("recovery id 4", signature(set_recovery(4)), errors.SignatureRangeError),
    Bad("recovery id 27", signature(set_recovery(27)), errors.SignatureRangeError),
    Bad("recovery id 255", signature(set_recovery(255)), errors.SignatureRangeError),
    Bad("no key fits", signature(put(0, 5)), errors.NoKeyError),
    Bad("signature of another text", envelope(payload=OTHER), errors.AccessError),
    # the type
    Bad("unknown type", signed("{}", kind="nosuchmsg"), errors.UnknownMessageError),
    Bad("empty type", signed("{}", kind=""), errors.UnknownMessageError),
    Bad("old type", signed("{}", kind="deleteprocessmsg"), errors.UnknownMessageError),
    Bad("not served", signed("{}", kind="addfilemsg"), errors.NotSupportedError),
    Bad(
        "another msgtype inside",
        signed('{"msgtype":"addcolonymsg"}'),
        errors.MessageTypeError,
    ),
    Bad("no msgtype inside", signed(f'{{"spec":{SPEC}}}'), errors.MessageTypeError),
    Bad("null msgtype inside", signed('{"msgtype":null}'), errors.MessageTypeError),
    # the payload
    Bad("bad base64", sign("!!!!", ADA, kind="getcoloniesmsg"), errors.Base64Error),
    Bad("unpadded base64", sign("e30", ADA, kind="getcoloniesmsg"), errors.Base64Error),
    Bad("spare bits", sign("e31=", ADA, kind="getcoloniesmsg"), errors.Base64Error),
    Bad("url base64", sign("-_-_", ADA, kind="getcoloniesmsg"), errors.Base64Error),
    Bad("line in base64", sign("e30=\n", ADA, kind="getcoloniesmsg"), errors.Base64Error),
    Bad("empty payload", sign("", ADA, kind="getcoloniesmsg"), errors.NotJsonError),
    Bad("payload not json", signed("hello"), errors.NotJsonError),
    Bad("payload null", signed("null"), errors.WrongTypeError),
    Bad("payload list", signed("[]"), errors.WrongTypeError),
    Bad("payload not utf-8", sign(b'{"\xff":1}', ADA, kind="addlogmsg"), errors.NotUtf8Error),
    Bad(
        "payload deep",
        signed(f'{{"msgtype":"submitfuncspecmsg","spec":{{"args":{deep(40)}}}}}'),
        errors.TooDeepError,
    ),
    Bad("payload very deep", signed(deep(300_000)), errors.TooDeepError),
    Bad("nan", signed('{"msgtype":"submitfuncspecmsg","x":NaN}'), errors.NumberError),
    Bad("infinite", signed('{"msgtype":"submitfuncspecmsg","x":1e999}'), errors.NumberError),
    Bad(
        "half a character",
        signed('{"msgtype":"submitfuncspecmsg","x":"\\ud800"}'),
        errors.LoneSurrogateError,
    ),
    Bad(
        "member twice",
        signed(f'{{"msgtype":"submitfuncspecmsg","spec":{SPEC},"spec":{SPEC}}}'),
        errors.DuplicateMemberError,
    ),
    # the members
    Bad("no spec", signed('{"msgtype":"submitfuncspecmsg"}'), errors.MissingMemberError),
    Bad("null spec", submit(None), errors.MissingMemberError),
    Bad("spec a list", submit([]), errors.WrongTypeError),
    Bad("text for a number", submit({**GOOD_SPEC, "priority": "1"}), errors.WrongTypeError),
    Bad("1.0 for an integer", submit({**GOOD_SPEC, "priority": 1.0}), errors.WrongTypeError),
    Bad("number for a text", submit({**GOOD_SPEC, "funcname": 1}), errors.WrongTypeError),
    Bad(
        "number for a flag",
        signed(
            json.dumps({"msgtype": "getlogsmsg", "colonyname": COLONY, "latest": 1}),
            kind="getlogsmsg",
        ),
        errors.WrongTypeError,
    ),
    Bad("integer too long", submit({**GOOD_SPEC, "priority": 2**63}), errors.OutOfBoundsError),
    Bad("args no list", submit({**GOOD_SPEC, "args": {}}), errors.WrongTypeError),
    Bad("env no texts", submit({**GOOD_SPEC, "env": {"a": 1}}), errors.WrongTypeError),
    Bad("priority", submit({**GOOD_SPEC, "priority": 50_001}), errors.InvalidValueError),
    Bad("control in a name", submit({**GOOD_SPEC, "label": "a\u0000"}), errors.NameFormError),
    Bad(
        "bad amount",
        submit({**GOOD_SPEC, "conditions": {"colonyname": COLONY, "mem": "1.5Gi"}}),
        errors.AmountError,
    ),
    Bad(
        "bad id",
        sign(
            json.dumps(
                {"msgtype": "addcolonymsg", "colony": {"colonyid": "abc", "name": "new"}}
            ).encode(),
            OWNER,
        ),
        errors.IdFormError,
    ),
    Bad(
        "bad name",
        sign(
            json.dumps(
                {"msgtype": "addcolonymsg", "colony": {"colonyid": EVE.id, "name": "a:b"}}
            ).encode(),
            OWNER,
        ),
        errors.NameFormError,
    ),
    # the caller
    Bad("stranger", submit(GOOD_SPEC, STRANGER), errors.AccessError),
    Bad("member of another colony", submit(GOOD_SPEC, EVE), errors.AccessError),
    Bad("colony owner", submit(GOOD_SPEC, COLONY_OWNER), errors.AccessError),
    Bad("server owner", submit(GOOD_SPEC, OWNER), errors.AccessError),
    Bad("no colony", submit({"funcname": "f"}), errors.AccessError),
    Bad(
        "unknown colony",
        submit({"funcname": "f", "conditions": {"colonyname": "nowhere"}}),
        errors.AccessError,
    ),
    Bad(
        "another colony",
        submit({"funcname": "f", "conditions": {"colonyname": "other"}}),
        errors.AccessError,
    ),
]


@pytest.mark.parametrize("bad", CASES, ids=[bad.name for bad in CASES])
async def test_bad_input_has_its_own_code_and_changes_nothing(home: House, bad: Bad) -> None:
    before = await home.dump()
    got = await home.post(bad.body)
    assert (got.status, got.code) == (bad.error.status, bad.error.code)
    assert await home.dump() == before
    assert len(got.body) < 2000
    for secret in (ADA.reveal(), "other owner", "Traceback", "colonist_"):
        assert secret not in json.dumps(got.payload)
    assert (await home.post(GOOD)).status == 200


def test_names_of_cases_are_used_once() -> None:
    names = [bad.name for bad in CASES]
    assert len(set(names)) == len(names)


def test_every_kind_of_unreadable_request_has_a_case() -> None:
    def leaves(kind: type[errors.ColonistError]) -> set[type[errors.ColonistError]]:
        below = kind.__subclasses__()
        return {leaf for each in below for leaf in leaves(each)} if below else {kind}

    elsewhere = {
        errors.KeyFormError,  # of our own key files
        errors.TopicError,  # of MQTT
        errors.TimeFormError,  # no message carries a time that is read
    }
    met = {bad.error for bad in CASES}
    assert leaves(errors.MalformedError) | leaves(errors.SignatureError) <= met | elsewhere


@pytest.mark.parametrize("id", ["", "x", "AB" * 32, "ab" * 32, "ab" * 31, "é" * 64, "ab" * 5000])
@pytest.mark.parametrize(
    "kind", ["getprocessmsg", "removeprocessmsg", "cancelprocessmsg", "closesuccessfulmsg"]
)
async def test_an_id_that_is_none_is_refused_like_a_foreign_one(
    home: House, kind: str, id: str
) -> None:
    foreign = (await home.post(_about(kind, home.running, EVE))).payload
    mine = (await home.post(_about(kind, id, ADA))).payload
    assert mine == foreign
    assert mine["status"] == 403


def _about(kind: str, process: str, identity: Identity) -> bytes:
    return sign(json.dumps({"msgtype": kind, "processid": process}).encode(), identity)


async def test_what_another_colony_holds_is_never_in_an_answer(home: House) -> None:
    private = "only for members"
    await home.submit("uma", label=private, env={"TOKEN": private}, priority=9)
    questions = [
        {"msgtype": "getprocessesmsg", "count": 100},
        {"msgtype": "getprocesshistmsg", "seconds": 10**6},
        {"msgtype": "getlogsmsg", "executorname": "ada", "count": 100},
        {"msgtype": "searchlogsmsg", "text": "", "days": 30, "count": 100},
        {"msgtype": "getexecutorsmsg"},
        {"msgtype": "getusersmsg"},
        {"msgtype": "getfunctionsmsg"},
        {"msgtype": "getcolonystatsmsg"},
    ]
    for question in questions:
        for colony in (COLONY, "other"):
            message = json.dumps({**question, "colonyname": colony}).encode()
            got = await home.post(sign(message, EVE))
            text = json.dumps(got.payload)
            assert private not in text
            assert '"ada"' not in text
            assert (got.status == 403) == (colony == COLONY)


async def test_unicode_names_up_to_their_limit_work_everywhere(home: House) -> None:
    for letter in ("x", "é", "漢", "😀"):
        longest = letter * (255 // len(letter.encode())) if letter != "x" else "x" * 128
        executor = {
            "executorid": key(letter).id,
            "executortype": letter * 128,
            "executorname": longest[:128],
            "colonyname": COLONY,
            "locationname": letter * 128,
        }
        added = await home.post(
            sign(
                json.dumps({"msgtype": "addexecutormsg", "executor": executor}).encode(),
                COLONY_OWNER,
            )
        )
        assert added.status == 200, added.payload
        approved = {
            "msgtype": "approveexecutormsg",
            "colonyname": COLONY,
            "executorname": longest[:128],
        }
        assert (await home.post(sign(json.dumps(approved).encode(), COLONY_OWNER))).status == 200
        function = {
            "executorname": longest[:128],
            "colonyname": COLONY,
            "funcname": letter * 1024,
        }
        announced = await home.post(
            sign(json.dumps({"msgtype": "addfunctionmsg", "fun": function}).encode(), key(letter))
        )
        assert announced.status == 200, announced.payload
        assert announced.payload["funcname"] == letter * 1024


@pytest.mark.parametrize("what", ["colony", "executor", "user"])
async def test_a_name_too_long_to_keep_is_refused_as_a_name(home: House, what: str) -> None:
    name = "😀" * 128
    bodies = {
        "colony": ("addcolonymsg", {"colonyid": key("x").id, "name": name}, OWNER),
        "executor": (
            "addexecutormsg",
            {
                "executorid": key("x").id,
                "executortype": "t",
                "executorname": name,
                "colonyname": COLONY,
            },
            COLONY_OWNER,
        ),
        "user": (
            "addusermsg",
            {"userid": key("x").id, "name": name, "colonyname": COLONY},
            COLONY_OWNER,
        ),
    }
    kind, value, owner = bodies[what]
    body = sign(json.dumps({"msgtype": kind, what: value}).encode(), owner)
    got = await home.post(body)
    assert (got.status, got.code) == (400, "bad_name")
