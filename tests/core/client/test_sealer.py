"""A client that has pinned its server: what it believes, repeats and seals anew."""

import asyncio
import contextlib
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from colonist_client.caller import MAX_ANEW, OutcomeUnknownError
from colonist_client.client import Client
from colonist_client.failure import ServerError
from colonist_client.retry import Backoff, Retry
from colonist_client.sealer import NotGenuineError, Pin, Sealer, Tokens, ttl_of
from colonist_client.transport import NotSentError, UnreachableError
from colonist_protocol import envelope
from colonist_protocol.claims import Card, make_code
from colonist_protocol.errors import BusyError, EpochStaleError, IdFormError, InvalidValueError
from colonist_protocol.function_spec import Conditions, FunctionSpec
from colonist_protocol.identity import Identity
from colonist_protocol.messages import TYPED
from colonist_protocol.process import (
    AssignProcess,
    CloseSuccessful,
    GetProcess,
    SubmitFunctionSpec,
)
from colonist_protocol.seal import EpochSeal, read_request_seal
from tests.support.clock import run_virtual, virtual
from tests.support.sealed_server import HostileNetwork, SealedServer

KEY = Identity(bytes(31) + b"\x03")
SERVER = Identity(bytes(31) + b"\x04")
NEXT = Identity(bytes(31) + b"\x05")
EVIL = Identity(bytes(31) + b"\x06")
RETRY = Retry(backoff=Backoff(uniform=lambda _, high: high, base_s=1, cap_s=4), attempts=4)
NOT_BELIEVED = (
    "replay_reply",
    "forge",
    "plain_refusal",
    "plain_success",
    "strip_seal",
    "flip",
    "other_index",
    "another_request",
    "stale_unsigned",
    "garbage",
)


def _submit(label: str) -> SubmitFunctionSpec:
    return SubmitFunctionSpec(
        spec=FunctionSpec(funcname=label, conditions=Conditions(colonyname="home"))
    )


class Stage:
    """A server, a hostile network and a client with a pin."""

    def __init__(self, retry: Retry | None = RETRY) -> None:
        self.server = SealedServer(SERVER, KEY.id)
        self.network = HostileNetwork(self.server, EVIL)
        self.moved: list[str] = []
        self.pin = Pin(SERVER.id, self.moved.append)
        self.client = Client(self.network, KEY, pin=self.pin, retry=retry)

    async def submit(self, label: str) -> int:
        reply: dict[str, int] = await self.client.write(_submit(label), dict[str, int])
        return reply["count"]

    async def look(self, label: str) -> int:
        reply: dict[str, int] = await self.client.read(GetProcess(processid=label), dict[str, int])
        return reply["count"]

    def seals(self) -> list[EpochSeal]:
        found: list[EpochSeal] = []
        for body in self.network.sent:
            sent = envelope.parse_request(body)
            seal, _ = read_request_seal(sent.seal, sent.payloadtype)
            assert isinstance(seal, EpochSeal)
            found.append(seal)
        return found


@virtual
async def test_first_token_comes_with_the_first_reply() -> None:
    stage = Stage()
    assert await stage.submit("a") == 1
    assert await stage.look("a") == 1
    token = stage.server.token
    assert [seal.epoch for seal in stage.seals()] == ["", token, token]
    assert {seal.to for seal in stage.seals()} == {SERVER.id}
    assert asyncio.get_running_loop().time() == 0


@pytest.mark.parametrize("trick", NOT_BELIEVED)
@virtual
async def test_what_others_say_is_no_reply_and_the_same_bytes_go_out_again(trick: str) -> None:
    stage = Stage()
    await stage.look("a")
    before = len(stage.network.sent)
    stage.network.plan = [trick]
    assert await stage.submit("a") == 1
    assert len(set(stage.network.sent[before:])) == 1
    assert len(stage.network.sent) == before + 2


@pytest.mark.parametrize("trick", NOT_BELIEVED)
@virtual
async def test_where_only_others_answer_the_outcome_is_unknown(trick: str) -> None:
    stage = Stage()
    await stage.look("a")
    stage.network.plan = [trick] * 4
    with pytest.raises(OutcomeUnknownError, match="no reply of the pinned server"):
        await stage.submit("a")
    stage.network.plan = [trick] * 4
    with pytest.raises(NotGenuineError):
        await stage.look("a")


@virtual
async def test_where_an_enrolment_is_refused_nobody_is_told_to_look_before_repeating_it() -> None:
    """It may always be repeated."""
    stage = Stage()
    stage.network.plan = ["plain_refusal"] * 4
    card = Card("colony.example", SERVER.id, "home", make_code(bytes(16)))
    with pytest.raises(NotGenuineError, match="unverified, something answered") as raised:
        await stage.client.enrol(card, "board 7")
    assert "repeating" not in str(raised.value)
    assert len(stage.network.sent) == 4
    assert len(set(stage.network.sent)) == 1


@virtual
async def test_unverified_refusal_is_told_as_such_without_its_control_characters() -> None:
    stage = Stage(retry=None)
    stage.server.known = "ab" * 32
    with pytest.raises(NotGenuineError, match="unverified, something answered: 403 access_denied"):
        await stage.look("a")
    error = InvalidValueError("\x1b[2Jgone")

    async def box(body: bytes, *, wait_s: float) -> bytes:
        del body, wait_s
        return envelope.pack_failure(error)

    stage.network.exchange = box
    with pytest.raises(NotGenuineError) as raised:
        await stage.look("a")
    assert "\x1b" not in str(raised.value)
    assert "?[2Jgone" in str(raised.value)


@virtual
async def test_lost_reply_is_asked_for_again_with_the_same_bytes() -> None:
    stage = Stage()
    await stage.look("a")
    stage.network.plan = ["lose_reply", "lose_request", "lose_reply"]
    assert await stage.submit("a") == 1
    assert stage.server.effects["a"] == 1


@virtual
async def test_what_never_left_says_so_and_what_may_have_left_does_not() -> None:
    stage = Stage()
    stage.network.plan = ["not_sent"] * 4
    with pytest.raises(NotSentError):
        await stage.submit("a")
    stage.network.plan = ["lose_reply", "not_sent", "not_sent", "not_sent"]
    with pytest.raises(OutcomeUnknownError):
        await stage.submit("a")


@virtual
async def test_genuine_refusal_is_a_refusal_and_a_genuine_delay_is_waited_out() -> None:
    stage = Stage()
    stage.server.refuses = InvalidValueError("no")
    with pytest.raises(ServerError) as raised:
        await stage.submit("a")
    assert (raised.value.status, raised.value.code) == (400, "invalid_value")
    stage.server.refuses = BusyError("later")
    with pytest.raises(ServerError) as raised:
        await stage.submit("a")
    assert raised.value.code == "busy"
    assert len(stage.network.sent) == 5
    assert len(set(stage.network.sent[1:])) == 1


@virtual
async def test_after_a_long_silence_and_after_a_restore_one_more_round_trip_is_enough() -> None:
    stage = Stage()
    await stage.look("a")
    for step in (stage.server.restore, lambda: setattr(stage.server, "n", stage.server.n + 500)):
        step()
        before = len(stage.network.sent)
        assert await stage.submit("b") == stage.server.effects["b"]
        assert len(stage.network.sent) == before + 2
    assert stage.server.effects["b"] == 2


@virtual
async def test_a_server_that_calls_everything_stale_is_not_asked_in_a_hot_loop() -> None:
    stage = Stage()
    stage.server.refuses = EpochStaleError("always")
    with pytest.raises(ServerError) as raised:
        await stage.submit("a")
    assert not raised.value.is_definite
    assert len(stage.network.sent) == 4 * (MAX_ANEW + 1)
    assert asyncio.get_running_loop().time() == 7


@virtual
async def test_too_old_is_an_unknown_outcome_only_for_bytes_that_were_sent_before() -> None:
    stage = Stage(retry=None)
    await stage.look("a")
    request = stage.client.pack(_submit("a"))
    stage.server.n += 30_000
    body = request.body
    await stage.client.deliver(request)
    assert request.body != body
    assert stage.server.effects["a"] == 1
    stage.network.plan = ["lose_request"]
    request = stage.client.pack(_submit("b"))
    with pytest.raises(UnreachableError):
        await stage.client.deliver(request)
    stage.server.n += 30_000
    with pytest.raises(OutcomeUnknownError, match="nobody remembers"):
        await stage.client.deliver(request)
    assert stage.server.effects["b"] == 0


@virtual
async def test_rotated_server_key_is_followed_and_written_down() -> None:
    stage = Stage()
    await stage.look("a")
    stage.server.rotate(NEXT, SERVER)
    assert await stage.submit("a") == 1
    assert (stage.pin.id, stage.moved) == (NEXT.id, [NEXT.id])
    assert await stage.look("a") == 1
    assert stage.seals()[-1].to == NEXT.id
    stage.server.rotate(EVIL, NEXT)
    stage.server.keys = type(stage.server.keys)(EVIL)  # without the old key's word
    with pytest.raises(UnreachableError):
        await stage.look("a")
    assert stage.moved == [NEXT.id]


@virtual
async def test_when_the_old_key_is_gone_reads_are_sealed_anew_and_writes_are_in_doubt() -> None:
    stage = Stage(retry=Retry(backoff=RETRY.backoff, attempts=2**62))
    await stage.look("a")
    read, write = stage.client.pack(GetProcess(processid="a")), stage.client.pack(_submit("a"))
    stage.network.plan = ["lose_reply"]
    with pytest.raises(UnreachableError):
        await stage.client.deliver(write)
    stage.pin.id = NEXT.id  # another node has told of it, and the write is answered by this one
    with pytest.raises(NotGenuineError, match="signed by another key"):
        await stage.client.deliver(write)
    stage.pin.id = SERVER.id
    stage.server.rotate(NEXT, SERVER)
    await stage.look("a")
    stage.server.keys = type(stage.server.keys)(NEXT)
    before = len(stage.network.sent)
    await stage.client.deliver(read)
    assert stage.seals()[-1].to == NEXT.id
    assert len(stage.network.sent) == before + 2
    with pytest.raises(OutcomeUnknownError, match="for a former key of the server"):
        await stage.client.send(write)
    assert len(stage.network.sent) == before + 3
    assert stage.server.effects["a"] == 1
    stage.pin.id = SERVER.id  # as if nothing had been heard of another key
    with pytest.raises(NotGenuineError, match="wrong_server"):
        await stage.client.deliver(write)


@virtual
async def test_each_checked_reply_is_told_of_and_no_other() -> None:
    stage = Stage()
    told: list[str] = []
    assert stage.client.sealer is not None
    stage.client.sealer.heard = lambda seal: told.append(seal.re)
    stage.network.plan = ["honest", "forge", "replay_reply"]
    await stage.look("a")
    assert len(told) == 2
    assert len(set(told)) == 2


@virtual
async def test_without_a_pin_or_a_key_nothing_is_sealed() -> None:
    stage = Stage()
    for client in (
        Client(stage.network, KEY),
        Client(stage.network, None, pin=stage.pin),
    ):
        message = TYPED["versionmsg"]()
        request = client.pack(message)
        assert not request.is_sealed
        assert request.body == envelope.pack_request(message, client.identity)


@virtual
async def test_what_is_about_an_attempt_needs_its_token() -> None:
    stage = Stage()
    with pytest.raises(InvalidValueError, match="was not given ab"):
        await stage.client.close("ab" * 32)


@pytest.mark.parametrize("text", ["", "ab", "AB" * 32, "ab" * 33])
def test_only_an_id_can_be_pinned(text: str) -> None:
    with pytest.raises(IdFormError):
        Pin(text)


@pytest.mark.parametrize(
    ("message", "ttl_s"),
    [
        (AssignProcess(colonyname="c", timeout=30), 150),
        (AssignProcess(colonyname="c", timeout=-1), 120),
        (AssignProcess(colonyname="c", timeout=5000), 600),
        (GetProcess(processid="p"), 120),
        (_submit("f"), 3600),
    ],
)
def test_each_kind_lives_as_long_as_it_must(message: Any, ttl_s: int) -> None:
    assert ttl_of(message) == ttl_s


def test_a_hint_serves_only_where_no_token_is_young_and_is_forgotten_for_a_real_one() -> None:
    now = [0.0]
    server = SealedServer(SERVER, KEY.id)
    tokens = Tokens(lambda: now[0])
    tokens.hint("no token")
    assert tokens.pick(60) == ""
    old = server.token
    tokens.hint(old)
    assert tokens.pick(60) == old
    server.n += 5
    kept = server.token
    tokens.keep(kept)
    assert tokens.pick(60) == kept
    server.n += 1
    tokens.hint(server.token)
    now[0] = 59.0
    assert tokens.pick(60) == kept
    now[0] = 60.0
    assert tokens.pick(60) == server.token
    tokens.keep(server.token)
    now[0] = 119.0
    assert tokens.pick(60) == server.token
    now[0] = 120.0
    assert tokens.pick(60) == "", "asking for one leaves nobody unsure, an old one may"
    kept = server.token
    tokens.keep(old)  # late news
    tokens.keep("garbage")
    assert tokens.newest == kept


def test_no_two_requests_are_equal_and_nothing_shows_a_key() -> None:
    sealer = Sealer(Pin(SERVER.id), KEY, lambda: 0.0)
    first, second = (sealer.seal(GetProcess(processid="p")) for _ in range(2))
    assert first.body != second.body
    assert first.re != second.re
    assert KEY.reveal() not in f"{first!r}{sealer.pin!r}"
    plain = Client(HostileNetwork(SealedServer(SERVER, ""), EVIL), KEY)
    assert "plain" in repr(plain.pack(CloseSuccessful(processid="p")))


class Machine(RuleBasedStateMachine):
    """Calls over a network that loses, repeats, reorders and forges, with clocks that are wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.stage = Stage(retry=Retry(backoff=Backoff(uniform=lambda _, __: 0.0), attempts=3))
        sealer = self.stage.client.sealer
        assert sealer is not None
        self.sealer = sealer
        sealer.tokens = Tokens(lambda: self.now_s)
        self.keys = [SERVER]
        self.labels = 0

    @rule(
        plan=st.lists(st.sampled_from(HostileNetwork(SealedServer(SERVER, ""), EVIL).tricks)),
        delay=st.integers(0, 90),
    )
    def submit(self, plan: list[str], delay: int) -> None:
        self.labels += 1
        label = f"f{self.labels}"
        self.stage.network.plan = plan[:]

        async def call() -> str:
            try:
                count = await self.stage.submit(label)
            except OutcomeUnknownError:
                return "unknown"
            except NotSentError:
                return "not_sent"
            except ServerError:
                return "refused"
            assert count == 1
            return "done"

        said = run_virtual(call())
        effects = self.stage.server.effects[label]
        assert effects <= 1
        assert said in ("done", "unknown") or effects == 0
        assert effects == 1 or said != "done"
        self.stage.server.n += delay
        self.stage.network.plan = []

    @rule(plan=st.lists(st.sampled_from(HostileNetwork(SealedServer(SERVER, ""), EVIL).tricks)))
    def read(self, plan: list[str]) -> None:
        self.stage.network.plan = plan[:]

        async def call() -> None:
            with contextlib.suppress(UnreachableError):
                assert await self.stage.look("f1") == self.stage.server.effects["f1"]

        run_virtual(call())
        self.stage.network.plan = []

    @rule(jump_s=st.sampled_from([-1.8e9, -60.0, 0.0, 1.0, 130.0, 4_000.0, 3.2e8]))
    def turn_the_devices_clock(self, jump_s: float) -> None:
        self.now_s += jump_s

    @rule(minutes=st.sampled_from([1, 3, 61, 20_000]))
    def let_time_pass(self, minutes: int) -> None:
        self.stage.server.n += minutes

    @rule()
    def restore(self) -> None:
        self.stage.server.restore()

    @rule(hint=st.sampled_from(["own", "foreign"]))
    def hint(self, hint: str) -> None:
        foreign = SealedServer(EVIL, KEY.id)
        self.sealer.tokens.hint(self.stage.server.token if hint == "own" else foreign.token)

    @rule()
    def rotate(self) -> None:
        if len(self.keys) > 3:
            return
        new = Identity(bytes(30) + bytes([1, len(self.keys)]))
        self.keys.insert(0, new)
        self.stage.server.keys = type(self.stage.server.keys)(new, self.keys[1:])

    @invariant()
    def honest_way_always_leads_to_an_answer(self) -> None:
        self.labels += 1
        label = f"f{self.labels}"
        assert run_virtual(self.stage.submit(label)) == 1
        assert self.stage.server.effects[label] == 1

    @invariant()
    def pin_is_one_of_the_servers_keys(self) -> None:
        assert self.stage.pin.id == self.keys[0].id


def test_whatever_the_network_and_the_clocks_do_each_call_ends_as_it_is_said_to() -> None:
    run_state_machine_as_test(
        Machine, settings=settings(max_examples=30, stateful_step_count=12, deadline=None)
    )
