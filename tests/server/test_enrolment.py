"""Enrolment by claims: who has the code may enrol itself, so many, until then, and nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from colonist_protocol import claims, envelope
from colonist_protocol.attribute import AttributeType, GetAttribute, attribute_id
from colonist_protocol.claims import GetClaims, GetEnrolled, RemoveClaim
from colonist_protocol.colony import GetMemberHistory, GetPolicy, RemoveColony, SetPolicy
from colonist_protocol.envelope import Failure
from colonist_protocol.errors import InvalidValueError, UnavailableError
from colonist_protocol.executor import (
    AddExecutor,
    ApproveExecutor,
    ChangeExecutorId,
    Executor,
    ExecutorState,
    GetExecutors,
    RejectExecutor,
    RemoveExecutor,
)
from colonist_protocol.function import AddFunction, Function, RemoveFunction
from colonist_protocol.process import AssignProcess, GetProcesses
from colonist_protocol.seal import VERSION, EpochSeal
from colonist_protocol.server import GetCluster
from colonist_protocol.user import AddUser, RemoveUser, User
from colonist_server.main import configure
from colonist_server.repo.members import Members
from tests.support import enrolling, sealing
from tests.support.clock import virtual
from tests.support.cluster import cluster
from tests.support.enrolling import claim_of, code_of, enrol, enrol_of, failed, open_claim, say
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, COLONY_OWNER, OWNER, Bench, bench, key

DEVICE, OTHER = key("device"), key("other device")


@asynccontextmanager
async def colony(store: MemoryStore | None = None, **settings: Any) -> AsyncGenerator[Bench]:
    async with bench(store or MemoryStore(), **settings) as made:
        await made.found("ada")
        yield made


def state_of(made: Bench, id: str) -> int:
    member = made.colony.members[id]
    return getattr(member.record, "state", -1)


@virtual
async def test_who_has_the_code_becomes_an_executor_that_may_work() -> None:
    async with colony() as made:
        code = await open_claim(made)
        shown = await enrol(made.dispatch, code, DEVICE)
        assert shown["executorname"] == f"sensor-{DEVICE.id[:8]}"
        assert (shown["state"], shown["sealed"]) == (ExecutorState.APPROVED, True)
        await made.submit("ada", executortype="sensor")
        work = AssignProcess(colonyname=COLONY, timeout=5)
        assert (await say(made.dispatch, work, DEVICE))["state"] == 1


@virtual
async def test_an_enrolled_executor_takes_sealed_requests_only() -> None:
    async with colony() as made:
        await enrol(made.dispatch, await open_claim(made), DEVICE)
        refused = await made.refuse(GetExecutors(colonyname=COLONY), DEVICE)
        assert (refused.failure.status, refused.failure.code) == (403, "plain_refused")
        assert await say(made.dispatch, GetExecutors(colonyname=COLONY), DEVICE)


@virtual
async def test_also_where_a_message_names_no_colony() -> None:
    """A function and an attribute are found by their ids alone."""
    async with colony() as made:
        shown = await enrol(made.dispatch, await open_claim(made), DEVICE)
        wanted = Function(executorname=shown["executorname"], colonyname=COLONY, funcname="f")
        function = await say(made.dispatch, AddFunction(function=wanted), DEVICE)
        pid = (await made.submit("ada", env={"k": "v"})).processid
        attribute = GetAttribute(attributeid=attribute_id(pid, "k", AttributeType.ENV))
        for message in (attribute, RemoveFunction(functionid=function["functionid"])):
            refused = await made.refuse(message, DEVICE)
            assert (refused.failure.status, refused.failure.code) == (403, "plain_refused")
            assert not isinstance(await say(made.dispatch, message, DEVICE), Failure)
        assert made.colony.functions == {}


@virtual
async def test_s11_a_plain_enrolment_does_not_tell_which_colonies_there_are() -> None:
    async with colony() as made:
        code = await open_claim(made)
        messages = [
            enrol_of(made.dispatch, code, DEVICE, colonyname=name) for name in (COLONY, "none")
        ]
        answers = [await made.answer(message, DEVICE) for message in messages]
        assert (answers[0].status, answers[0].body) == (answers[1].status, answers[1].body)


@virtual
async def test_a_device_needs_no_token_to_begin_with() -> None:
    """Its first request asks for a token; the refusal is sealed, and has one."""
    async with colony() as made:
        code = await open_claim(made)
        server = made.rooms.server_keys.id
        given = EpochSeal(VERSION, server, "", "0" * 32, 60)
        sent = sealing.seal(enrol_of(made.dispatch, code, DEVICE), DEVICE, given)
        reply, seal = await sealing.present(made.dispatch, sent)
        assert failed(reply, "epoch_stale")
        assert seal.epoch == made.rooms.epochs.token


@virtual
async def test_saying_it_twice_is_no_error_and_counts_once() -> None:
    async with colony() as made:
        code = await open_claim(made, count=2)
        message = enrol_of(made.dispatch, code, DEVICE)
        same = sealing.of_now(made.dispatch, message, DEVICE)
        answers = [(await sealing.present(made.dispatch, same))[0] for _ in range(3)]
        answers += [await enrol(made.dispatch, code, DEVICE) for _ in range(2)]
        assert all(answer == answers[0] for answer in answers)
        assert [each["used"] for each in await listed(made)] == [1]


async def listed(made: Bench) -> list[dict[str, object]]:
    return await made.call(GetClaims(colonyname=COLONY), COLONY_OWNER)


@virtual
async def test_no_more_enrol_than_may() -> None:
    async with colony() as made:
        code = await open_claim(made, count=2)
        devices = [key(f"device {number}") for number in range(6)]
        replies = await asyncio.gather(*(enrol(made.dispatch, code, each) for each in devices))
        refusals = [reply for reply in replies if isinstance(reply, Failure)]
        assert [failed(each, "conflict", "that many") for each in refusals] == [True] * 4
        assert [each["used"] for each in await listed(made)] == [2]


@virtual
async def test_nor_at_several_nodes_at_once() -> None:
    async with cluster("a", "b", "c") as made:
        await made["a"].bench.found("ada")
        code = await open_claim(made["a"].bench, count=3)
        devices = [key(f"device {number}") for number in range(9)]
        benches = [made[name].bench for name in ("a", "b", "c")]
        replies = await asyncio.gather(
            *(enrol(benches[at % 3].dispatch, code, each) for at, each in enumerate(devices))
        )
        enrolled = [reply for reply in replies if not isinstance(reply, Failure)]
        assert len(enrolled) == 3
        await asyncio.sleep(1)
        for each in benches:
            assert [claim["used"] for claim in await listed(each)] == [3]


@virtual
async def test_one_device_that_asks_all_nodes_at_once_is_one_executor() -> None:
    async with cluster("a", "b") as made:
        await made["a"].bench.found("ada")
        code = await open_claim(made["a"].bench, count=9)
        sent = [
            enrol(made[name].bench.dispatch, code, DEVICE) for name in ("a", "b") for _ in range(4)
        ]
        replies = await asyncio.gather(*sent)
        assert {reply["executorname"] for reply in replies} == {f"sensor-{DEVICE.id[:8]}"}
        await asyncio.sleep(1)
        assert [claim["used"] for claim in await listed(made["b"].bench)] == [1]


@virtual
async def test_a_claim_ends_in_time() -> None:
    async with colony() as made:
        code = await open_claim(made, hours=1)
        await asyncio.sleep(3599)
        assert (await enrol(made.dispatch, code, DEVICE))["state"] == ExecutorState.APPROVED
        await asyncio.sleep(2)
        assert failed(await enrol(made.dispatch, code, OTHER), "conflict", "has ended")
        assert (await enrol(made.dispatch, code, DEVICE))["executorid"] == DEVICE.id


@virtual
async def test_who_sees_a_proof_can_enrol_nobody_with_it() -> None:
    async with colony() as made:
        code = await open_claim(made, count=9)
        seen = enrol_of(made.dispatch, code, DEVICE)
        mine = enrol_of(made.dispatch, code, OTHER, proof=seen.proof)
        for message in (mine, seen):  # under his own id, and under the other's
            answer = await made.dispatch.answer(sealing.of_now(made.dispatch, message, OTHER).body)
            assert (answer.status, b'"seal"' in answer.body) == (403, False)
        assert set(made.colony.members) == {key("ada").id}


@pytest.mark.parametrize("change", ["claim", "proof", "colony", "server", "executor"])
@virtual
async def test_a_stranger_without_a_good_proof_gets_a_plain_refusal(change: str) -> None:
    async with colony() as made:
        code = await open_claim(made)
        server = made.rooms.server_keys.id
        named = {"server": server, "colony": COLONY, "executor": DEVICE.id}
        proof = claims.prove(code, **{**named, change: key("x").id} if change in named else named)
        changes = {"claim": {"claim": key("x").id}, "proof": {"proof": ""}}.get(change, {})
        message = enrol_of(made.dispatch, code, DEVICE, **{"proof": proof, **changes})
        answer = await made.dispatch.answer(sealing.of_now(made.dispatch, message, DEVICE).body)
        assert (answer.status, b'"seal"' in answer.body) == (403, False)
        failure = envelope.parse_reply(answer.body)
        assert failed(failure, "access_denied")
        assert set(made.colony.members) == {key("ada").id}


@virtual
async def test_plain_it_is_refused() -> None:
    async with colony() as made:
        code = await open_claim(made)
        refused = await made.refuse(enrol_of(made.dispatch, code, DEVICE), DEVICE)
        assert refused.failure.code == "plain_refused"
        assert DEVICE.id not in made.colony.members


@virtual
async def test_s12_one_key_on_two_boards_is_refused() -> None:
    async with colony() as made:
        code = await open_claim(made, count=9)
        assert (await enrol(made.dispatch, code, DEVICE, "board 1"))["executorid"] == DEVICE.id
        assert failed(await enrol(made.dispatch, code, DEVICE, "board 2"), "conflict", "hardware")
        assert failed(await enrol(made.dispatch, code, OTHER, hw="a\nb"), "bad_name")


@virtual
async def test_s10_a_key_that_was_removed_never_comes_back() -> None:
    async with colony() as made:
        code = await open_claim(made, count=9)
        await enrol(made.dispatch, code, DEVICE)
        name = f"sensor-{DEVICE.id[:8]}"
        await made.call(RemoveExecutor(colonyname=COLONY, executorname=name), COLONY_OWNER)
        assert failed(await enrol(made.dispatch, code, DEVICE), "conflict", "removed")
        user = User(colonyname=COLONY, userid=OTHER.id, name="otto")
        await made.call(AddUser(user=user), COLONY_OWNER)
        assert failed(await enrol(made.dispatch, code, OTHER), "conflict", "another member")
        await made.call(RemoveUser(colonyname=COLONY, name="otto"), COLONY_OWNER)
        assert failed(await enrol(made.dispatch, code, OTHER), "conflict", "in use before")
        assert failed(await enrol(made.dispatch, code, claims.claim_key(code)), "conflict")


@virtual
async def test_one_that_was_rejected_or_has_another_id_now_may_not_say_it_again() -> None:
    async with colony() as made:
        code = await open_claim(made, count=9)
        for device in (DEVICE, OTHER):
            await enrol(made.dispatch, code, device)
        name = f"sensor-{DEVICE.id[:8]}"
        await made.call(RejectExecutor(colonyname=COLONY, executorname=name), COLONY_OWNER)
        assert failed(await enrol(made.dispatch, code, DEVICE), "conflict", "rejected")
        change = ChangeExecutorId(colonyname=COLONY, executorid=key("new").id)
        await say(made.dispatch, change, OTHER)
        assert failed(await enrol(made.dispatch, code, OTHER), "conflict", "was, another")


@virtual
async def test_a_name_that_is_taken_gets_longer() -> None:
    async with colony() as made:
        code = await open_claim(made)
        wanted = Executor(
            executorid=OTHER.id,
            executortype="sensor",
            executorname=f"sensor-{DEVICE.id[:8]}",
            colonyname=COLONY,
        )
        await made.call(AddExecutor(executor=wanted), COLONY_OWNER)
        shown = await enrol(made.dispatch, code, DEVICE)
        assert shown["executorname"] == f"sensor-{DEVICE.id[:16]}"


@virtual
async def test_a_person_or_a_program_with_the_owners_key_approves() -> None:
    async with colony() as made:
        code = await open_claim(made, approval=enrolling.PERSON)
        shown = await enrol(made.dispatch, code, DEVICE, "board 7")
        assert shown["state"] == ExecutorState.PENDING
        work = AssignProcess(colonyname=COLONY, timeout=5)
        assert failed(await say(made.dispatch, work, DEVICE), "access_denied")
        waiting = GetEnrolled(colonyname=COLONY, state=ExecutorState.PENDING)
        (found,) = await made.call(waiting, COLONY_OWNER)
        assert (found["executorname"], found["hw"]) == (shown["executorname"], "board 7")
        name = found["executorname"]
        await made.call(ApproveExecutor(colonyname=COLONY, executorname=name), COLONY_OWNER)
        assert await made.call(waiting, COLONY_OWNER) == []
        again = await enrol(made.dispatch, code, DEVICE, "board 7")
        assert again["state"] == ExecutorState.APPROVED


@virtual
async def test_removing_a_claim_ends_it_and_on_demand_all_who_came_by_it() -> None:
    async with colony() as made:
        code = await open_claim(made, count=9)
        other = await open_claim(made, "other", count=9)
        await enrol(made.dispatch, code, DEVICE)
        await enrol(made.dispatch, other, OTHER)
        claim = claims.claim_key(code).id
        for device in (key("x"), key("y")):
            await enrol(made.dispatch, code, device)
        remove = RemoveClaim(colonyname=COLONY, claim=claim, executors=True)
        sent = sealing.of_now(made.dispatch, remove, COLONY_OWNER)
        for _ in range(2):
            assert (await sealing.present(made.dispatch, sent))[0] == {}
        states = {id: state_of(made, id) for id in made.colony.members}
        assert [states[each.id] for each in (DEVICE, key("x"), key("y"))] == [3, 3, 3]
        assert states[OTHER.id] == ExecutorState.APPROVED
        assert (await made.refuse(remove, COLONY_OWNER)).failure.code == "conflict"
        answer = await made.dispatch.answer(
            sealing.of_now(made.dispatch, enrol_of(made.dispatch, code, key("z")), key("z")).body
        )
        assert (answer.status, b'"seal"' in answer.body) == (403, False)


@virtual
async def test_a_removal_that_a_stop_cut_short_goes_on_when_it_is_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With those who had come until then: the code may have been opened again meanwhile."""

    async def cut_short(*_: object, **__: object) -> None:
        raise UnavailableError("an outage")

    async with colony() as made:
        code = await open_claim(made, count=9)
        await enrol(made.dispatch, code, DEVICE)
        remove = RemoveClaim(colonyname=COLONY, claim=claims.claim_key(code).id, executors=True)
        sent = sealing.of_now(made.dispatch, remove, COLONY_OWNER)
        with monkeypatch.context() as patch:
            patch.setattr(Members, "remove_executor", cut_short)
            assert failed((await sealing.present(made.dispatch, sent))[0], "unavailable")
        assert await listed(made) == []
        assert state_of(made, DEVICE.id) == ExecutorState.APPROVED
        await open_claim(made, count=9)
        await enrol(made.dispatch, code, OTHER)
        for _ in range(2):
            assert (await sealing.present(made.dispatch, sent))[0] == {}
        assert state_of(made, DEVICE.id) == ExecutorState.UNREGISTERED
        assert state_of(made, OTHER.id) == ExecutorState.APPROVED


@virtual
async def test_a_claim_removed_again_takes_all_who_ever_came_by_it() -> None:
    async with colony() as made:
        code = await open_claim(made)
        await enrol(made.dispatch, code, DEVICE)
        remove = RemoveClaim(colonyname=COLONY, claim=claims.claim_key(code).id, executors=False)
        await made.call(remove, COLONY_OWNER)
        assert state_of(made, DEVICE.id) == ExecutorState.APPROVED
        await open_claim(made)
        remove.executors = True
        await made.call(remove, COLONY_OWNER)
        assert state_of(made, DEVICE.id) == ExecutorState.UNREGISTERED


@virtual
async def test_s1_what_was_captured_of_a_colony_does_nothing_in_the_next_of_that_name() -> None:
    """Neither an enrolment nor the removal of a claim, also where the same card is opened again."""
    async with colony() as made:
        code = await open_claim(made, count=9)
        came = sealing.of_now(made.dispatch, enrol_of(made.dispatch, code, DEVICE), DEVICE)
        await sealing.present(made.dispatch, came)
        remove = RemoveClaim(colonyname=COLONY, claim=claims.claim_key(code).id, executors=True)
        removed = sealing.of_now(made.dispatch, remove, COLONY_OWNER)
        await sealing.present(made.dispatch, removed)
        await made.call(RemoveColony(colonyname=COLONY), OWNER)
        await made.found("ada")
        code = await open_claim(made, count=9, hours=96)
        await enrol(made.dispatch, code, OTHER)
        for days in (0, 3):
            await asyncio.sleep(days * 86_400)
            before = [(each.name, each.record.state) for each in made.colony.executors.values()]
            assert failed((await sealing.present(made.dispatch, came))[0], "not_found")
            assert (await sealing.present(made.dispatch, removed))[0] == {}
            after = [(each.name, each.record.state) for each in made.colony.executors.values()]
            assert after == before
            assert OTHER.id in made.colony.members


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"claim": "x"}, "bad_id"),
        ({"executortype": ""}, "bad_name"),
        ({"executortype": "x" * 64}, "bad_name"),
        ({"count": 0}, "invalid_value"),
        ({"count": 1_000_001}, "invalid_value"),
        ({"expires": 0}, "invalid_value"),
        ({"expires": 2**62}, "invalid_value"),
        ({"approval": "nobody"}, "invalid_value"),
    ],
)
@virtual
async def test_s13_a_claim_that_makes_no_sense_is_refused(
    change: dict[str, object], code: str
) -> None:
    async with colony() as made:
        message = claim_of(code_of("card"))
        for name, value in change.items():
            setattr(message, name, value)
        assert (await made.refuse(message, COLONY_OWNER)).failure.code == code


@virtual
async def test_a_code_is_used_once() -> None:
    async with colony() as made:
        message = claim_of(code_of("card"))
        sent = sealing.of_now(made.dispatch, message, COLONY_OWNER)
        first = (await sealing.present(made.dispatch, sent))[0]
        assert (await made.refuse(message, COLONY_OWNER)).failure.code == "exists"
        assert (await sealing.present(made.dispatch, sent))[0] == first
        await made.call(RemoveClaim(colonyname=COLONY, claim=message.claim), COLONY_OWNER)
        assert (await sealing.present(made.dispatch, sent))[0] == first
        assert await listed(made) == []


@virtual
async def test_claims_and_what_came_by_them_outlive_a_restart() -> None:
    store = MemoryStore()
    async with colony(store) as made:
        code = await open_claim(made, count=2)
        first = await enrol(made.dispatch, code, DEVICE)
        await made.call(
            AddUser(user=User(colonyname=COLONY, userid=OTHER.id, name="o")), COLONY_OWNER
        )
        await made.call(RemoveUser(colonyname=COLONY, name="o"), COLONY_OWNER)
    async with bench(store) as made:
        assert (await enrol(made.dispatch, code, DEVICE)) == first
        assert [each["used"] for each in await listed(made)] == [1]
        assert failed(await enrol(made.dispatch, code, OTHER), "conflict", "in use before")


@virtual
async def test_an_enrolled_device_may_sleep_for_long() -> None:
    async with colony(stale_s=60.0, presence_every_s=5.0) as made:
        await enrol(made.dispatch, await open_claim(made), DEVICE)
        await made.call(GetExecutors(colonyname=COLONY), key("ada"))
        await asyncio.sleep(600)
        assert state_of(made, key("ada").id) == ExecutorState.UNREGISTERED
        assert state_of(made, DEVICE.id) == ExecutorState.APPROVED


@virtual
async def test_s16_who_made_a_claim_and_who_came_by_it_is_kept() -> None:
    async with colony() as made:
        code = await open_claim(made)
        await enrol(made.dispatch, code, DEVICE)
        changes = await made.call(GetMemberHistory(colonyname=COLONY, count=9), COLONY_OWNER)
        told = [(each["what"], each["by"]) for each in changes[:2]]
        assert told == [("executor_enrolled", DEVICE.id), ("claim_added", COLONY_OWNER.id)]
        assert code not in str(changes)


@virtual
async def test_who_was_a_user_is_still_told_under_a_seal() -> None:
    async with colony() as made:
        await made.call(
            AddUser(user=User(colonyname=COLONY, userid=OTHER.id, name="o")), COLONY_OWNER
        )
        await made.call(RemoveUser(colonyname=COLONY, name="o"), COLONY_OWNER)
        read = GetProcesses(colonyname=COLONY, count=1)
        assert failed(await say(made.dispatch, read, OTHER), "access_denied")
        stranger = sealing.of_now(made.dispatch, read, key("stranger"))
        assert b'"seal"' not in (await made.dispatch.answer(stranger.body)).body


@virtual
async def test_a_colony_that_refuses_plain_requests_takes_sealed_ones_only() -> None:
    async with colony() as made:
        refuse = SetPolicy(colonyname=COLONY, plainrequests="refuse")
        assert (await made.call(refuse, COLONY_OWNER))["plainrequests"] == "refuse"
        for message, who in (
            (GetPolicy(colonyname=COLONY), key("ada")),
            (SetPolicy(colonyname=COLONY, plainrequests="allow"), COLONY_OWNER),
        ):
            assert (await made.refuse(message, who)).failure.code == "plain_refused"
        shown = await say(made.dispatch, GetPolicy(colonyname=COLONY), key("ada"))
        assert shown == {"colonyname": COLONY, "plainrequests": "refuse"}
        allow = SetPolicy(colonyname=COLONY, plainrequests="allow")
        assert (await say(made.dispatch, allow, COLONY_OWNER))["plainrequests"] == "allow"
        assert (await made.call(GetPolicy(colonyname=COLONY), key("ada")))[
            "plainrequests"
        ] == "allow"
        odd = SetPolicy(colonyname=COLONY, plainrequests="perhaps")
        assert (await made.refuse(odd, COLONY_OWNER)).failure.code == "invalid_value"


@virtual
async def test_the_owner_may_add_an_executor_that_must_seal() -> None:
    async with colony() as made:
        wanted = Executor(
            executorid=DEVICE.id,
            executortype="cli",
            executorname="flashed",
            colonyname=COLONY,
            sealed=True,
        )
        assert (await made.call(AddExecutor(executor=wanted), COLONY_OWNER))["sealed"] is True
        approve = ApproveExecutor(colonyname=COLONY, executorname="flashed")
        await made.call(approve, COLONY_OWNER)
        read = GetExecutors(colonyname=COLONY)
        assert (await made.refuse(read, DEVICE)).failure.code == "plain_refused"
        assert len(await say(made.dispatch, read, DEVICE)) == 2


@virtual
async def test_the_server_owners_requests_may_have_to_be_sealed() -> None:
    async with colony() as made:
        assert await made.call(GetCluster(), OWNER)
    async with bench(MemoryStore(), refuses_plain=True) as made:
        assert (await made.refuse(GetCluster(), OWNER)).failure.code == "plain_refused"
        assert not isinstance(await say(made.dispatch, GetCluster(), OWNER), Failure)


def test_the_flag_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLONIST_PLAIN_REQUESTS", "refuse")
    assert configure([]).refuses_plain
    assert not configure(["--plain-requests", "allow"]).refuses_plain
    with pytest.raises(InvalidValueError, match="neither allow nor refuse"):
        configure(["--plain-requests", "no"])
