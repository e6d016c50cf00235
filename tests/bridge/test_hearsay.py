"""What is read from unsigned topics, and what the bridge says on its own."""

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colonist_agent.gateways import Gateways
from colonist_bridge.presence import Mark, Presence, read_mark
from colonist_bridge.reply import read_reply
from colonist_bridge.state import GatewayState, StatePublisher
from colonist_protocol.envelope import pack_reply, sealed_reply
from colonist_protocol.errors import InvalidMessageError, MalformedError
from colonist_protocol.identity import Identity
from colonist_protocol.seal import ReplySeal
from tests.support.clock import virtual

GATEWAY = "colonist/v1/gw/edge/state"
A, B = "a" * 64, "b" * 64


def mark(boot: str, conn: int) -> bytes:
    return json.dumps({"boot": boot, "conn": conn, "name": "more is let pass"}).encode()


def test_a_first_birth_withdraws_nothing() -> None:
    presence = Presence(10)
    assert not presence.note(A, "state", mark("x", 1))
    assert presence.mark(A) == Mark("x", 1)


def test_a_reconnect_withdraws_nothing_and_a_reboot_does() -> None:
    presence = Presence(10)
    presence.note(A, "state", mark("x", 1))
    assert not presence.note(A, "state", mark("x", 2))
    assert presence.note(A, "state", mark("y", 1))


def test_a_late_will_hides_no_newer_birth() -> None:
    presence = Presence(10)
    presence.note(A, "state", mark("x", 2))
    assert not presence.note(A, "lost", mark("x", 1))
    assert presence.note(A, "lost", mark("x", 2))


def test_will_and_birth_may_come_in_either_order() -> None:
    presence = Presence(10)
    assert not presence.note(A, "lost", mark("x", 2))
    assert presence.note(A, "state", mark("x", 2))


def test_the_longest_unheard_of_is_forgotten_first() -> None:
    presence = Presence(1)
    presence.note(A, "state", mark("x", 1))
    presence.note(B, "state", mark("x", 1))
    assert presence.mark(A) is None


@given(st.binary() | st.just(b'{"boot":1,"conn":1}') | st.just(b'{"boot":"x","conn":-1}'))
def test_what_is_no_mark_is_let_pass(payload: bytes) -> None:
    assert read_mark(payload) is None


@pytest.mark.parametrize("payload", [b"{}", b'"x"', b"[" * 3 + b"]" * 3])
def test_a_plain_reply_is_named_at_its_end(payload: bytes) -> None:
    body = pack_reply("x", payload)
    named = read_reply(body + b"\n ", max_bytes=1000).named("0123456789abcdef")
    assert named == body[:-1] + b',"req":"0123456789abcdef"}'


KEY = Identity.from_entropy(b"a server's key, known to the tests")


def _sealed(payload: bytes = b"{}", *, re: str = "ab" * 32, index: int = 0) -> bytes:
    seal = ReplySeal(1, "cd" * 32, re, index, True, "", 0)
    return sealed_reply("x", payload, seal).signed(KEY)


def test_a_sealed_reply_passes_byte_for_byte() -> None:
    reply = read_reply(_sealed(), max_bytes=1000)
    assert reply.named("0123456789abcdef") == _sealed()
    assert reply.is_of("cd" * 32, "ab" * 32, 0)
    assert not reply.is_of("ab" * 32, "ab" * 32, 0)
    assert not reply.is_of("cd" * 32, "cd" * 32, 0)
    assert not reply.is_of("cd" * 32, "ab" * 32, 1)


@pytest.mark.parametrize("seal", ["e30=", "x", "bnVsbA=="])
def test_a_reply_with_a_seal_that_is_none_is_no_reply(seal: str) -> None:
    body = pack_reply("x", b"{}")[:-1] + b',"seal":"%b","signature":"00"}' % seal.encode()
    with pytest.raises(MalformedError):
        read_reply(body, max_bytes=1000)


def test_a_reply_that_names_a_request_already_is_no_reply_of_a_server() -> None:
    body = pack_reply("x", b"{}")[:-1] + b',"req":"0123456789abcdef"}'
    with pytest.raises(InvalidMessageError):
        read_reply(body, max_bytes=1000)


@given(st.binary(max_size=200))
def test_whatever_else_answers_is_no_reply(body: bytes) -> None:
    with pytest.raises(MalformedError):
        read_reply(body, max_bytes=1000)


@virtual
async def test_state_is_published_once_a_second_for_turns_and_rarely_for_figures() -> None:
    said: list[float] = []
    loop = asyncio.get_running_loop()

    async def publish() -> None:
        said.append(round(loop.time()))

    publisher = StatePublisher(_state, publish)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(publisher.run())
        for _ in range(50):
            publisher.turned()
            await asyncio.sleep(0.1)
        assert said == [0, 1, 2, 3, 4]
        await asyncio.sleep(35)
        said.clear()
        for _ in range(600):
            publisher.counted()
            await asyncio.sleep(0.1)
        assert len(said) <= 3
        publisher.turned()
        await asyncio.sleep(1.1)
        assert len(said) <= 4
        task.cancel()


def _state() -> GatewayState:
    return GatewayState(
        boot="b",
        conn=1,
        uplink="up",
        since=0,
        epoch="",
        backlog_bytes=0,
        oldest_age_s=0,
        open=0,
        held=0,
        version="1",
    )


@pytest.mark.parametrize(
    ("before", "now", "is_retained", "has_come_back"),
    [
        (None, ("b", 1, "up"), True, False),
        (None, ("b", 1, "up"), False, True),
        (None, ("b", 1, "down"), False, False),
        (("b", 1, "up"), ("b", 1, "up"), False, False),
        (("b", 1, "up"), ("b", 2, "up"), False, True),
        (("b", 1, "up"), ("c", 1, "up"), True, True),
        (("b", 1, "up"), ("b", 1, "down"), False, False),
        (("b", 1, "down"), ("b", 1, "up"), False, True),
        (("b", 1, "up"), ("b", 2, "down"), False, False),
    ],
)
def test_when_a_gateway_has_come_back(
    before: tuple[str, int, str] | None,
    now: tuple[str, int, str],
    is_retained: bool,
    has_come_back: bool,
) -> None:
    gateways = Gateways()
    if before is not None:
        gateways.has_come_back(GATEWAY, gateway_state(*before), is_retained=True)
    assert gateways.has_come_back(GATEWAY, gateway_state(*now), is_retained) is has_come_back


@given(st.binary())
def test_what_is_no_gateway_state_is_no_reason_to_send(payload: bytes) -> None:
    assert not Gateways().has_come_back(GATEWAY, payload, is_retained=False)
    assert not Gateways().has_come_back("gw/edge/lost", gateway_state("b", 1, "up"), False)


def gateway_state(boot: str, conn: int, uplink: str) -> bytes:
    return json.dumps({"boot": boot, "conn": conn, "uplink": uplink, "more": []}).encode()
