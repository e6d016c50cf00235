"""Strangers are refused at once, their signatures have a budget, and members take none of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NamedTuple

import pytest

from colonist_core.limits import Limits
from colonist_protocol import envelope
from colonist_protocol.attribute import GetAttribute
from colonist_protocol.colony import ChangeColonyId, GetColonies, GetColony
from colonist_protocol.envelope import Failure, pack_request, parse_reply
from colonist_protocol.errors import ColonistError, WrongDoorError
from colonist_protocol.identity import Identity
from colonist_protocol.message import Message
from colonist_protocol.process import AssignProcess, GetProcess
from colonist_protocol.server import GetServerInfo, Version
from colonist_protocol.subscription import SubscribeProcesses
from colonist_protocol.times import SECOND_NS
from colonist_server.rpc.dispatch import Answer
from colonist_server.rpc.gate import MEMBERS_NS, UNIT_CHARS, Gate, Verdict
from colonist_server.rpc.table import API, PUBSUB
from tests.server.house import sign
from tests.server.people import OTHER, STRANGER, World, world
from tests.support import sealing
from tests.support.clock import virtual
from tests.support.rooms import COLONY, COLONY_OWNER, OWNER, key
from tests.support.shared_store import SharedStore

ADA, UMA, EVE, REX, UNA = key("ada"), key("uma"), key("eve"), key("rex"), key("una")
ASK = GetColony(colonyname=COLONY)
HERE, THERE = "192.0.2.1", "192.0.2.2"


class Stage(NamedTuple):
    """A gate on rooms with everybody in them, and a clock to turn by hand."""

    gate: Gate
    made: World
    passes: Callable[[float], None]


def stage(made: World, strangers: int = 10, all_strangers: int = 1000) -> Stage:
    now_ns = [SECOND_NS]

    def passes(seconds: float) -> None:
        now_ns[0] += int(seconds * SECOND_NS)

    limits = Limits(strangers=strangers, all_strangers=all_strangers)
    return Stage(Gate(made.dispatch, limits, lambda: now_ns[0]), made, passes)


def failure(answer: Answer | Verdict) -> Failure:
    assert isinstance(answer, Answer), answer
    told = parse_reply(answer.body)
    assert isinstance(told, Failure)
    assert told.status == answer.status
    assert told.retry_after_s == answer.retry_after_s
    return told


def bodies() -> dict[str, bytes]:
    """Requests that no member can have meant, by the code that they are refused with."""
    good = json.loads(pack_request(ASK, UMA))
    broken = good["payload"].replace("e", "%", 1)
    return {
        "not_json": b"\x00garbage",
        "missing_member": b"{}",
        "signature_length": json.dumps({**good, "signature": "ab"}).encode(),
        "signature_hex": json.dumps({**good, "signature": "x" * 130}).encode(),
        "signature_range": json.dumps({**good, "signature": "0" * 130}).encode(),
        "access_denied": pack_request(ASK, STRANGER),
        "unknown_msgtype": sign(b'{"msgtype":"nomsg"}', STRANGER),
        "not_supported": sign(b'{"msgtype":"addblueprintmsg"}', STRANGER),
        "bad_base64": sign(broken, STRANGER, kind=ASK.msgtype()),
        "msgtype_mismatch": sign(b'{"msgtype":"x"}', STRANGER, kind=ASK.msgtype()),
    }


# -- who is refused


@pytest.mark.parametrize("code", bodies())
def test_what_is_refused_at_the_gate_is_refused_with_the_same_words(code: str) -> None:
    @virtual
    async def scenario() -> None:
        async with world() as made:
            await made.populate()
            body = bodies()[code]
            told = stage(made).gate.judge(body, HERE)
            assert told == await made.dispatch.answer(body)
            assert failure(told).code == code

    scenario()


@virtual
async def test_members_pass_and_only_they_are_known() -> None:
    async with world() as made:
        await made.populate()
        gate = stage(made).gate
        for message, identity in (
            (ASK, UMA),
            (ASK, ADA),
            (GetColonies(), OWNER),
            (GetColony(colonyname=OTHER), EVE),
        ):
            assert gate.judge(pack_request(message, identity), HERE) is Verdict.MEMBER
            sealed = sealing.of_now(made.dispatch, message, identity)
            assert gate.judge(sealed.body, HERE) is Verdict.MEMBER
        for unsigned in (Version(), GetServerInfo()):
            assert gate.judge(pack_request(unsigned, None), HERE) is Verdict.UNSIGNED


@pytest.mark.parametrize("identity", [STRANGER, EVE, REX, UNA, COLONY_OWNER])
def test_known_or_not_who_may_not_is_told_the_same_as_ever(identity: Identity) -> None:
    @virtual
    async def scenario() -> None:
        async with world() as made:
            await made.populate()
            gate = stage(made).gate
            for message in (ASK, GetColonies(), AssignProcess(colonyname=COLONY, timeout=-1)):
                body = pack_request(message, identity)
                told = gate.judge(body, HERE)
                answer = await made.dispatch.answer(body)
                assert told == answer or (told is Verdict.MEMBER and message is ASK)

    scenario()


@virtual
async def test_what_is_unknown_costs_and_tells_as_much_as_what_is_foreign() -> None:
    async with world() as made:
        await made.populate()
        gate = stage(made, strangers=5).gate
        told: dict[str, list[str]] = {}
        for name in (OTHER, "nowhere"):
            for _ in range(12):
                refused = failure(
                    gate.judge(pack_request(GetColony(colonyname=name), STRANGER), name)
                )
                text = refused.message.replace(f"<{name}>", "<>")
                told.setdefault(name, []).append(f"{refused.code} {text}")
        assert told[OTHER] == told["nowhere"]
        assert len(set(told[OTHER])) == 2  # refused, then not even looked into


@virtual
async def test_a_known_caller_is_refused_under_a_seal_which_is_not_the_gates() -> None:
    async with world() as made:
        await made.populate()
        gate = stage(made, strangers=100).gate
        for identity in (ADA, UNA, EVE):
            sealed = sealing.of_now(made.dispatch, GetColonies(), identity)
            assert gate.judge(sealed.body, HERE) is Verdict.UNSURE
            reply, seal = await sealing.present(made.dispatch, sealed)
            assert (reply.code, seal.ok) == ("access_denied", False)
        sealed = sealing.of_now(made.dispatch, GetProcess(processid="no id"), STRANGER)
        assert failure(gate.judge(sealed.body, HERE)).code == "access_denied"


@virtual
async def test_who_gave_up_its_access_by_a_request_may_repeat_that() -> None:
    async with world() as made:
        await made.populate()
        gate = stage(made).gate
        change = ChangeColonyId(colonyname=COLONY, colonyid=key("next owner").id)
        sealed = sealing.of_now(made.dispatch, change, COLONY_OWNER)
        for verdict in (Verdict.MEMBER, Verdict.UNSURE):
            assert gate.judge(sealed.body, HERE) is verdict
            assert (await sealing.present(made.dispatch, sealed))[1].ok


@virtual
async def test_where_others_write_a_stranger_may_be_a_member_of_whom_nobody_told_yet() -> None:
    async with SharedStore() as store, world(store) as made:
        await made.populate()
        gate = stage(made).gate
        assert gate.judge(pack_request(ASK, STRANGER), HERE) is Verdict.UNSURE
        assert gate.judge(pack_request(ASK, UMA), HERE) is Verdict.MEMBER
        assert failure(gate.judge(bodies()["bad_base64"], HERE)).code == "bad_base64"


@virtual
async def test_while_a_member_cannot_be_read_nobody_is_told_to_be_a_stranger() -> None:
    async with world() as made:
        await made.populate()
        made.rooms.view.corrupt[b"x/" + bytes(8)] = "cannot be read"
        assert stage(made).gate.judge(pack_request(ASK, STRANGER), HERE) is Verdict.UNSURE


@virtual
async def test_a_signature_is_worked_through_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world() as made:
        await made.populate()
        gate = stage(made).gate
        counts: list[str] = []
        original = envelope.authenticate

        def counted(request: envelope.Envelope, seal: bytes = b"") -> envelope.Signed:
            counts.append(request.signature)
            return original(request, seal)

        monkeypatch.setattr(envelope, "authenticate", counted)
        for body in (
            pack_request(ASK, UMA),
            sealing.of_now(made.dispatch, ASK, UMA).body,
        ):
            counts.clear()
            assert gate.judge(body, HERE) is Verdict.MEMBER
            assert (await made.dispatch.answer(body)).status == 200
            assert len(counts) == 1
            assert (await made.dispatch.answer(body)).status == 200
            assert len(counts) == 2  # what was noted is used once


# -- the budget


def stranger(message: Message = ASK) -> bytes:
    return pack_request(message, STRANGER)


@virtual
async def test_an_address_has_a_budget_of_signatures() -> None:
    async with world() as made:
        await made.populate()
        gate, _, passes = stage(made, strangers=10)
        codes = [failure(gate.judge(stranger(), HERE)).code for _ in range(15)]
        assert codes == ["access_denied"] * 10 + ["busy"] * 5
        told = failure(gate.judge(stranger(), HERE))
        assert (told.status, told.retry_after_s) == (429, 1.0)
        assert failure(gate.judge(stranger(), THERE)).code == "access_denied"
        passes(0.1)
        codes = [failure(gate.judge(stranger(), HERE)).code for _ in range(2)]
        assert codes == ["access_denied", "busy"]
        assert gate.figures()["colonist_refused_strangers_total"] == 7
        assert gate.figures()["colonist_refused_early_total"] == 12


@virtual
async def test_what_needs_no_signature_to_be_refused_takes_nothing() -> None:
    async with world() as made:
        await made.populate()
        gate = stage(made, strangers=1).gate
        for code in ("not_json", "missing_member", "signature_length", "signature_range"):
            for _ in range(50):
                assert failure(gate.judge(bodies()[code], HERE)).code == code
        assert failure(gate.judge(stranger(), HERE)).code == "access_denied"


@virtual
async def test_members_take_nothing_and_come_in_again_soon_beside_an_attacker() -> None:
    async with world() as made:
        await made.populate()
        gate, _, passes = stage(made, strangers=1, all_strangers=1)
        good = pack_request(ASK, UMA)
        for _ in range(1000):
            assert gate.judge(good, HERE) is Verdict.MEMBER
        while failure(gate.judge(stranger(), HERE)).code != "busy":
            pass
        told = failure(gate.judge(good, HERE))
        assert told.code == "busy"
        passes(told.retry_after_s)
        assert gate.judge(good, HERE) is Verdict.MEMBER


@virtual
async def test_what_proved_itself_is_held_up_by_no_budget_and_gives_nothing_to_it() -> None:
    async with world() as made:
        await made.populate()
        gate = stage(made, strangers=1, all_strangers=1).gate
        while failure(gate.judge(stranger(), HERE)).code != "busy":
            pass
        for _ in range(100):
            verdict = gate.judge(pack_request(ASK, UMA), HERE, is_proven=True)
            assert verdict is Verdict.MEMBER
            assert failure(gate.judge(stranger(), HERE)).code == "busy"
        assert failure(gate.judge(stranger(), HERE, is_proven=True)).code == "access_denied"


@virtual
async def test_strangers_from_everywhere_do_not_shut_out_where_members_are() -> None:
    async with world() as made:
        await made.populate()
        gate, _, passes = stage(made, strangers=10, all_strangers=20)
        good = pack_request(ASK, UMA)
        assert gate.judge(good, HERE) is Verdict.MEMBER
        codes = [failure(gate.judge(stranger(), f"10.0.{n}.1")).code for n in range(100)]
        assert codes == ["access_denied"] * 20 + ["busy"] * 80
        assert gate.judge(good, HERE) is Verdict.MEMBER
        assert failure(gate.judge(stranger(), HERE)).code == "access_denied"
        assert failure(gate.judge(good, THERE)).code == "busy"
        passes(MEMBERS_NS / SECOND_NS)
        while failure(gate.judge(stranger(), "10.1.0.1")).code != "busy":
            passes(0.001)
        for n in range(100):
            gate.judge(stranger(), f"10.2.{n}.1")
        assert failure(gate.judge(good, HERE)).code == "busy"  # nobody was heard there lately


@virtual
async def test_a_refusal_for_all_takes_nothing_of_the_address() -> None:
    async with world() as made:
        await made.populate()
        gate, _, passes = stage(made, strangers=2, all_strangers=1)
        for n in range(2):
            gate.judge(stranger(), f"10.0.{n}.1")
        for _ in range(50):
            assert failure(gate.judge(stranger(), HERE)).code == "busy"
        passes(4)
        assert failure(gate.judge(stranger(), HERE)).code == "access_denied"


@virtual
async def test_a_long_payload_takes_more() -> None:
    async with world() as made:
        await made.populate()
        gate = stage(made, strangers=10).gate
        long = json.dumps({"msgtype": ASK.msgtype(), "colonyname": "x" * 6 * UNIT_CHARS}).encode()
        assert failure(gate.judge(sign(long, STRANGER), HERE)).code == "access_denied"
        codes = [failure(gate.judge(stranger(), HERE)).code for _ in range(20)]
        assert codes.count("access_denied") == 10 - (1 + 8)


@virtual
async def test_a_stranger_who_must_be_answered_further_in_takes_more() -> None:
    async with SharedStore() as store, world(store) as made:
        await made.populate()
        gate = stage(made, strangers=10).gate
        for _ in range(3):
            assert gate.judge(stranger(), HERE) is Verdict.UNSURE
        assert failure(gate.judge(stranger(), HERE)).code == "busy"
        assert gate.judge(stranger(), THERE) is Verdict.UNSURE


@virtual
async def test_a_member_is_known_by_a_request_that_names_no_colony() -> None:
    async with world() as made:
        await made.populate()
        gate = stage(made).gate
        ask = GetAttribute(attributeid="0" * 64)
        for identity in (ADA, UMA, COLONY_OWNER, OWNER, EVE):
            assert gate.judge(pack_request(ask, identity), HERE) is Verdict.MEMBER
        for identity in (STRANGER, UNA):
            assert gate.judge(pack_request(ask, identity), HERE) is Verdict.UNSURE


@virtual
async def test_addresses_hold_a_bounded_memory() -> None:
    async with world() as made:
        await made.populate()
        gate = stage(made).gate
        good = pack_request(ASK, UMA)
        for n in range(5_000):
            gate.judge(good, n)
            if n % 10 == 0:
                gate.judge(stranger(), n)
        assert len(gate._members) <= 4_096
        assert len(gate._of_address) <= 4_096


# -- orders of subscriptions


FOLLOW = SubscribeProcesses(colonyname=COLONY, executortype="", state=-1, timeout=100)


@virtual
async def test_orders_of_subscriptions_are_judged_by_the_same_rules_and_budget() -> None:
    async with world() as made:
        await made.populate()
        gate = stage(made, strangers=3).gate
        for body in (
            pack_request(FOLLOW, UMA),
            sealing.of_now(made.dispatch, FOLLOW, UMA).body,
        ):
            for _ in range(20):
                assert gate.look(body, HERE, door=PUBSUB) is Verdict.MEMBER
        codes: list[str] = []
        for _ in range(5):
            with pytest.raises(ColonistError) as refused:
                gate.look(pack_request(FOLLOW, STRANGER), HERE, door=PUBSUB)
            codes.append(refused.value.code)
        assert codes == ["access_denied"] * 3 + ["busy"] * 2
        assert failure(gate.judge(stranger(), HERE)).code == "busy"
        for door, message in ((PUBSUB, ASK), (API, FOLLOW)):
            with pytest.raises(WrongDoorError):
                gate.look(pack_request(message, UMA), THERE, door=door)
