"""The checks before anything else, case by case and with whatever Hypothesis thinks of."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colonist_bridge.hint import Hint, pack_hint, request_tag
from colonist_bridge.screen import Refusal, Request, screen
from colonist_protocol import envelope
from colonist_protocol.process import AssignProcess, CloseSuccessful, GetProcess
from tests.bridge.rig import identity

ANNA = identity("anna")
LIMIT = 100_000


def packed(message: object, key: object = ANNA) -> bytes:
    return envelope.pack_request(message, key)  # type: ignore[arg-type]


def altered(body: bytes, **members: object) -> bytes:
    return json.dumps(json.loads(body) | members).encode()


def test_a_request_of_its_own_id_passes_with_its_bytes_untouched() -> None:
    body = packed(GetProcess(processid="p"))
    request = screen(ANNA.id, body, max_bytes=LIMIT)
    assert isinstance(request, Request)
    assert request.body == body
    assert request.tag == json.loads(body)["signature"][:16]
    assert request.is_repeatable
    assert not request.is_poll


def test_a_request_under_another_id_is_refused() -> None:
    refusal = screen(identity("thief").id, packed(GetProcess(processid="p")), max_bytes=LIMIT)
    assert isinstance(refusal, Refusal)
    assert refusal.code == "not_yours"


def test_a_changed_payload_is_refused() -> None:
    body = altered(packed(GetProcess(processid="p")), payload="e30=")
    refusal = screen(ANNA.id, body, max_bytes=LIMIT)
    assert isinstance(refusal, Refusal)


def test_size_is_checked_before_anything_is_read() -> None:
    assert screen(ANNA.id, b"x" * 11, max_bytes=10) == Refusal(code="too_large", tag="")


def test_an_unsigned_request_is_refused() -> None:
    body = altered(packed(GetProcess(processid="p")), signature="")
    assert isinstance(screen(ANNA.id, body, max_bytes=LIMIT), Refusal)


@pytest.mark.parametrize(
    ("timeout", "hold_s"), [(30, 30.0), (-1, 0.0), (0, 0.0), (2**40, float(2**40))]
)
def test_only_an_assign_that_waits_is_a_long_poll(timeout: int, hold_s: float) -> None:
    body = packed(AssignProcess(colonyname="c", timeout=timeout))
    request = screen(ANNA.id, body, max_bytes=LIMIT)
    assert isinstance(request, Request)
    assert (request.hold_s, request.is_poll) == (hold_s, hold_s > 0)


@pytest.mark.parametrize(("timeout", "hold_s"), [(60, 60.0), (0, 0.0), (-1, 0.0)])
def test_a_read_that_waits_is_held_and_is_no_poll_for_work(timeout: int, hold_s: float) -> None:
    body = packed(GetProcess(processid="p", waitwhile=1, timeout=timeout))
    request = screen(ANNA.id, body, max_bytes=LIMIT)
    assert isinstance(request, Request)
    assert (request.hold_s, request.is_held) == (hold_s, hold_s > 0)
    assert not request.is_poll


def test_an_assign_whose_payload_the_server_will_refuse_is_no_long_poll() -> None:
    body = altered(packed(GetProcess(processid="p")), payloadtype="assignprocessmsg")
    request = screen(ANNA.id, body, max_bytes=LIMIT)
    assert isinstance(request, Request)
    assert not request.is_poll


def test_a_close_may_be_repeated_and_a_submit_may_not() -> None:
    close = screen(ANNA.id, packed(CloseSuccessful(processid="p")), max_bytes=LIMIT)
    body = altered(packed(GetProcess(processid="p")), payloadtype="submitfuncspecmsg")
    submit = screen(ANNA.id, body, max_bytes=LIMIT)
    assert isinstance(close, Request)
    assert isinstance(submit, Request)
    assert close.is_repeatable
    assert not submit.is_repeatable


@given(st.binary(max_size=400))
def test_whatever_comes_is_refused_and_never_raises(body: bytes) -> None:
    assert isinstance(screen(ANNA.id, body, max_bytes=300), Refusal)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "payloadtype": st.text() | st.none() | st.integers(),
            "payload": st.text() | st.lists(st.integers()),
            "signature": st.text(max_size=140)
            | st.text("0123456789abcdefg", min_size=130, max_size=130),
        },
    )
)
def test_no_altered_member_passes_as_anna(members: dict[str, object]) -> None:
    body = altered(packed(GetProcess(processid="p")), **members)
    result = screen(ANNA.id, body, max_bytes=LIMIT)
    if isinstance(result, Request):
        assert "payload" not in members
        assert "signature" not in members


@given(st.text(max_size=300))
def test_a_hint_is_json_that_fits_one_packet_whatever_the_signature(signature: str) -> None:
    hint = json.loads(pack_hint(Hint(code="busy", retry_after_s=1.5, req=request_tag(signature))))
    assert len(hint["hint"]["req"]) <= 32
