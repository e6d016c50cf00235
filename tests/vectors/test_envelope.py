import json

import pytest

from colonist_protocol import codec, envelope, messages
from colonist_protocol.errors import ColonistError
from colonist_protocol.identity import Identity
from tests.vectors.cases import bytes_of, check_refused, load

VECTORS = load("envelope")
KEY = Identity.from_hex(VECTORS["private"])


@pytest.mark.parametrize("case", VECTORS["requests"], ids=lambda case: case["message"][:40])
def test_requests_are_packed_to_the_byte(case):
    kind = messages.TYPED[json.loads(case["message"])["msgtype"]]
    message = codec.decode(case["message"].encode(), kind, "message")
    assert envelope.pack_request(message, KEY).decode() == case["body"]
    opened = envelope.parse_request(case["body"].encode())
    assert envelope.authenticate(opened).caller == VECTORS["id"]
    assert codec.encode(envelope.open_message(opened, kind)).decode() == case["message"]


@pytest.mark.parametrize("case", VECTORS["accepted"], ids=lambda case: case["why"])
def test_any_spelling_of_an_envelope_is_read(case):
    opened = envelope.parse_request(bytes_of(case))
    assert opened.payloadtype == case["payloadtype"]
    assert opened.payload == case["payload"]
    assert opened.signature == case["signature"]
    assert envelope.authenticate(opened).caller == VECTORS["id"]


@pytest.mark.parametrize("case", VECTORS["refused"], ids=lambda case: case["why"])
def test_bad_envelopes_are_refused(case):
    check_refused(case, lambda: envelope.parse_request(bytes_of(case)))


@pytest.mark.parametrize("case", VECTORS["unopened"], ids=lambda case: case["why"])
def test_bad_payloads_are_refused(case):
    sealed = envelope.Envelope(case["payloadtype"], case["payload"])
    kind = messages.TYPED[case["payloadtype"]]
    check_refused(case, lambda: envelope.open_message(sealed, kind))


@pytest.mark.parametrize("case", VECTORS["replies"], ids=lambda case: case["reply"])
def test_replies_are_packed_to_the_byte(case):
    assert envelope.pack_reply(case["payloadtype"], case["reply"].encode()).decode() == case["body"]
    assert envelope.parse_reply(case["body"].encode()) == case["reply"].encode()


@pytest.mark.parametrize("case", VECTORS["failures"], ids=lambda case: case["code"])
def test_failures_are_packed_to_the_byte(case):
    failure = envelope.parse_reply(case["body"].encode())
    assert isinstance(failure, envelope.Failure)
    assert {**case, "body": None} == {
        "status": failure.status,
        "message": failure.message,
        "code": failure.code,
        "retry_after_s": failure.retry_after_s,
        "body": None,
    }
    error = ColonistError(failure.message)
    error.status, error.code = failure.status, failure.code
    assert envelope.pack_failure(error).decode() == case["body"]


@pytest.mark.parametrize("case", VECTORS["bad_replies"], ids=lambda case: case["why"])
def test_bad_replies_are_refused(case):
    check_refused(case, lambda: envelope.parse_reply(bytes_of(case)))
