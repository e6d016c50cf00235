import contextlib
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from colonist_protocol import codec, envelope
from colonist_protocol.colony import GetColonies
from colonist_protocol.envelope import Envelope
from colonist_protocol.errors import (
    BusyError,
    ColonistError,
    MessageTypeError,
    MissingMemberError,
    NotJsonError,
    NotUtf8Error,
    OutOfBoundsError,
    SignatureLengthError,
    TooDeepError,
    TooLargeError,
    WrongTypeError,
)
from colonist_protocol.identity import Identity
from colonist_protocol.process import AssignProcess, GetProcess
from colonist_protocol.server import GetServerInfo, Version
from colonist_protocol.workflow import SubmitWorkflowSpec
from tests.core.protocol.mutations import mutated

KEY = Identity.from_entropy(bytes(32))
BODY = envelope.pack_request(AssignProcess(colonyname="c", timeout=10), KEY)
SPELLINGS = [
    BODY,
    json.dumps(json.loads(BODY), indent=1).encode(),
    b'{"payloadtype":"a","payload":"b"}',
]


def outcome(call):
    try:
        return call()
    except ColonistError as error:
        failure = envelope.parse_reply(envelope.pack_failure(error))
        return failure.code


@given(mutated(st.sampled_from(SPELLINGS)))
@example(b'{"payloadtype":"a","payload":"b","payload":"c"}')
@example(b'{"payloadtype":"a","payload":"b","x":"\xff"}')
@example(b'{"payloadtype":"a","payload":"b\\n","signature":"\\ud800"}')
@example(b'{"payloadtype":"a","payload":"b\\"\\"","sign\\u0061ture":"c"}')
@example(b'{"payloadtype":"a","payload":"\xff","signature":"c"}')
@example(b'{"payloadtype":"a","payload":"b","signature":""}')
@example(b'{"payloadtype":"a","payload":"b","signature":"c","signature":"d"}')
def test_the_quick_way_in_agrees_with_the_strict_one(body):
    quick = outcome(lambda: envelope.parse_request(body))
    strict = outcome(lambda: codec.decode(body, Envelope, "envelope"))
    assert quick in (strict, "out_of_bounds")


@given(mutated(st.sampled_from(SPELLINGS)))
def test_bytes_off_the_wire_cause_no_other_errors(body):
    def serve():
        request = envelope.parse_request(body)
        envelope.authenticate(request)
        return envelope.open_message(request, AssignProcess)

    outcome(serve)


@given(
    mutated(
        st.sampled_from([envelope.pack_reply("m", b"{}"), envelope.pack_failure(BusyError("x"))])
    )
)
def test_replies_off_the_wire_cause_no_other_errors(body):
    with contextlib.suppress(ColonistError):
        envelope.parse_reply(body)


def test_a_request_proves_its_caller():
    request = envelope.parse_request(BODY)
    signed = envelope.authenticate(request)
    assert signed.caller == KEY.id
    assert len(signed.digest) == 32
    assert len(signed.signature) == 65
    assert envelope.open_message(request, AssignProcess) == AssignProcess(
        colonyname="c", timeout=10
    )


def test_one_changed_character_makes_it_someone_else():
    request = envelope.parse_request(BODY)
    changed = Envelope(request.payloadtype, request.payload[:-4] + "AAAA", request.signature)
    assert envelope.authenticate(changed).caller != KEY.id


def test_unsigned_requests_have_an_empty_signature():
    request = envelope.parse_request(envelope.pack_request(Version(), None))
    assert request.signature == ""
    with pytest.raises(SignatureLengthError):
        envelope.authenticate(request)


def test_a_missing_signature_is_an_empty_one():
    assert envelope.parse_request(b'{"payloadtype":"a","payload":"e30="}').signature == ""
    assert (
        envelope.parse_request(b'{"payloadtype":"a","payload":"","signature":null}').signature == ""
    )


def test_a_body_over_the_limit_is_too_large():
    body = b'{"payloadtype":"a","payload":""}'
    room = envelope.MAX_BODY_BYTES - len(body)
    assert envelope.parse_request(body + b" " * room).payloadtype == "a"
    with pytest.raises(TooLargeError):
        envelope.parse_request(body + b" " * (room + 1))


@pytest.mark.parametrize("signature", ["", "00"])
def test_a_payload_over_the_limit_is_too_large(signature):
    def body(chars):
        return codec.encode(Envelope("a", "A" * chars, signature))

    assert len(envelope.parse_request(body(envelope.MAX_PAYLOAD_CHARS)).payload) == 2**20
    with pytest.raises(TooLargeError):
        envelope.parse_request(body(envelope.MAX_PAYLOAD_CHARS + 1))


def test_only_a_workflow_may_be_large():
    def body(kind, chars):
        return codec.encode(Envelope(kind, "A" * chars, "00"))

    chars = envelope.MAX_LARGE_PAYLOAD_CHARS
    assert len(envelope.parse_request(body(envelope.LARGE, chars)).payload) == chars
    for kind, count in ((envelope.LARGE, chars + 1), (envelope.LARGE, 2 * chars), ("a", 2**22)):
        with pytest.raises(TooLargeError):
            envelope.parse_request(body(kind, count))


def _large(text):
    return Envelope(envelope.LARGE, codec.to_base64(text), "00")


def test_a_large_body_is_read_only_as_all_sdks_write_it():
    body = codec.encode(Envelope(envelope.LARGE, "A" * envelope.MAX_BODY_BYTES, "00"))
    assert envelope.parse_request(body).payloadtype == envelope.LARGE
    for other in (body[:-1] + b',"x":1}', body[:-1], b"[" * len(body)):
        with pytest.raises(TooLargeError):
            envelope.parse_request(other)


@pytest.mark.parametrize("more", ["", ',"functionspecs":[{"nodename":1}],"x":{"a":1,"a":1}'])
def test_an_outline_tells_the_colony_and_reads_nothing_else(more):
    text = f'{{"msgtype":"{envelope.LARGE}","spec":{{"colonyname":"c"{more}}}}}'.encode()
    outline, payload = envelope.outline(_large(text))
    assert (outline.spec.colonyname, outline.spec.functionspecs, payload) == ("c", [], text)
    if not more:
        again = envelope.open_payload(_large(b""), SubmitWorkflowSpec, payload)
        assert again == (outline, text)


def test_an_outline_without_a_colony_is_nobodys():
    for spec in ("{}", '{"colonyname":null}'):
        text = f'{{"msgtype":"{envelope.LARGE}","spec":{spec}}}'.encode()
        assert envelope.outline(_large(text))[0].spec.colonyname == ""


def test_a_message_is_an_object():
    with pytest.raises(WrongTypeError):
        envelope.open_message(_large(b"[]"), SubmitWorkflowSpec)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b'{"msgtype":"a","spec":{}}', MessageTypeError),
        (b'{"spec":{}}', MessageTypeError),
        (b'{"msgtype":"submitworkflowspecmsg"}', MissingMemberError),
        (b'{"msgtype":"submitworkflowspecmsg","spec":null}', MissingMemberError),
        (b'{"msgtype":"submitworkflowspecmsg","spec":{"colonyname":1}}', WrongTypeError),
        (b"[]", WrongTypeError),
        (b"{", NotJsonError),
        (b'{"msgtype":"\xff"}', NotUtf8Error),
        (b'{"x":' + b"[" * 100_000, TooDeepError),
    ],
)
def test_what_has_no_outline_is_refused(text, error):
    with pytest.raises(error):
        envelope.outline(_large(text))


@pytest.mark.parametrize("kind", ["m" * 65, "a\nb", "\u2028", "\u202e"])
def test_a_type_that_cannot_be_shown_is_refused(kind):
    with pytest.raises(OutOfBoundsError):
        envelope.parse_request(codec.encode(Envelope(kind, "", "00")))


def test_the_longest_type_passes():
    assert (
        envelope.parse_request(codec.encode(Envelope("m" * 64, "", "00"))).payloadtype == "m" * 64
    )


def test_the_payload_of_getserverinfo_is_not_read():
    for payload in ("", "!", "bnVsbA==", "e30="):
        assert (
            envelope.open_message(Envelope("getserverinfomsg", payload), GetServerInfo)
            == GetServerInfo()
        )


def test_a_message_is_opened_as_its_own_type_only():
    request = Envelope("getcoloniesmsg", codec.to_base64(b'{"msgtype":"getcoloniesmsg"}'))
    assert envelope.open_message(request, GetColonies) == GetColonies()
    with pytest.raises(WrongTypeError):
        envelope.open_message(request, GetProcess)
    with pytest.raises(MessageTypeError, match=r"msg\.MsgType does not match payloadType"):
        envelope.open_message(Envelope("getprocessmsg", request.payload), GetProcess)


def test_a_reply_is_well_formed_whatever_its_type():
    body = envelope.pack_reply('a"b', b"{}")
    assert json.loads(body) == {"payloadtype": 'a"b', "payload": "e30=", "error": False}
    assert envelope.parse_reply(body) == b"{}"


def test_a_failure_carries_status_code_and_delay():
    error = BusyError("later \ud800")
    error.retry_after_s = 1.5
    body = json.loads(envelope.pack_failure(error))
    assert (body["payloadtype"], body["error"]) == ("error", True)
    failure = envelope.parse_reply(json.dumps(body).encode())
    assert failure == envelope.Failure(429, "later ?", "busy", 1.5)


def test_a_failure_of_the_reference_server_is_read():
    body = (
        b'{"payloadtype":"error","payload":"eyJzdGF0dXMiOjQwNCwibWVzc2FnZSI6Ik5vIHByb2Nlc3MgYXZhaWxh'
        b'YmxlIGZvciBhc3NpZ25tZW50In0=","error":true}'
    )
    failure = envelope.parse_reply(body)
    assert failure == envelope.Failure(404, "No process available for assignment")
