"""The weaknesses of security of COLONIES-RPC section 5.1 are absent, each by its number."""

from __future__ import annotations

import asyncio
import json

import msgspec
import pytest

from colonist_core.limits import Limits
from colonist_core.process import What
from colonist_protocol import codec
from colonist_protocol.colony import (
    AddColony,
    Colony,
    GetColonyStatistics,
    GetPauseStatus,
)
from colonist_protocol.envelope import Failure, pack_request, parse_reply
from colonist_protocol.executor import (
    AddExecutor,
    ApproveExecutor,
    Executor,
    ExecutorState,
    GetExecutor,
    GetExecutors,
    RejectExecutor,
)
from colonist_protocol.function import RemoveFunction
from colonist_protocol.identity import digest, recover_digest
from colonist_protocol.log import AddExecutorLog, GetLogs, SearchLogs
from colonist_protocol.process import (
    CancelProcess,
    CloseFailed,
    CloseSuccessful,
    GetProcess,
    GetProcesses,
    RemoveProcess,
    SetOutput,
)
from colonist_protocol.user import AddUser, GetUser, GetUserById, GetUsers, RemoveUser, User
from colonist_server.repo import keys
from colonist_server.repo.records import decode_birth, decode_closed
from tests.server.house import House
from tests.server.people import (
    OTHER,
    OTHER_OWNER,
    STRANGER,
    WHO,
    World,
    world,
)
from tests.support.clock import virtual
from tests.support.rooms import COLONY, COLONY_OWNER, OWNER, TYPE, key

ADA, EVE, UMA = key("ada"), key("eve"), key("uma")


@virtual
async def test_S1_a_close_that_is_replayed_changes_nothing() -> None:
    async with world() as made:
        await made.populate()
        await made.employ()
        body = pack_request(CloseSuccessful(processid=made.running, out=msgspec.Raw(b"[1]")), ADA)
        assert (await made.dispatch.answer(body)).status == 200
        before = await made.dump()
        assert (await made.dispatch.answer(body)).status == 200
        assert await made.dump() == before


@virtual
async def test_S3_the_unsigned_type_must_be_the_signed_one() -> None:
    async with world() as made:
        await made.populate()
        body = pack_request(RejectExecutor(colonyname=COLONY, executorname="ada"), COLONY_OWNER)
        for kind in ("approveexecutormsg", "removeexecutormsg", "rejectexecutormsG"):
            forged = json.dumps({**json.loads(body), "payloadtype": kind}).encode()
            failure = parse_reply((await made.dispatch.answer(forged)).body)
            assert isinstance(failure, Failure)
            assert failure.code in ("msgtype_mismatch", "unknown_msgtype")
        assert made.colony.executors["ada"].is_approved


@virtual
async def test_S6_logs_by_name_stay_in_their_colony() -> None:
    async with world() as made:
        await made.populate()
        await made.hire_in("ada", OTHER, OTHER_OWNER)
        log = AddExecutorLog(colonyname=COLONY, executorname="ada", message="ours")
        await made.call(log, ADA)
        theirs = GetLogs(colonyname=OTHER, executorname="ada", count=100)
        assert await made.call(theirs, EVE) == []
        found = SearchLogs(colonyname=OTHER, text="ours", days=30, count=100)
        assert await made.call(found, EVE) == []
        ours = GetLogs(colonyname=COLONY, executorname="ada", count=100)
        assert (await made.refuse(ours, EVE)).failure.status == 403
        assert [line["message"] for line in await made.call(ours, UMA)] == ["ours"]


@virtual
async def test_S6_logs_by_process_stay_in_their_colony() -> None:
    async with world() as made:
        await made.populate()
        await made.employ()
        foreign = GetLogs(colonyname=OTHER, processid=made.running, count=100)
        assert (await made.refuse(foreign, EVE)).failure.code == "not_found"


@pytest.mark.parametrize("who", ["rejected", "unregistered"])
@virtual
async def test_S9_only_who_may_still_come_may_look_around(who: str) -> None:
    async with world() as made:
        await made.populate()
        for message in (
            GetExecutors(colonyname=COLONY),
            GetUsers(colonyname=COLONY),
            GetUser(colonyname=COLONY, name="uma"),
            GetUserById(colonyname=COLONY, userid=UMA.id),
            GetPauseStatus(colonyname=COLONY),
        ):
            assert (await made.refuse(message, WHO[who])).failure.code == "access_denied"
            await made.call(message, WHO["pending"])


@virtual
async def test_S10_a_removed_executor_is_not_revived_by_approval() -> None:
    async with world() as made:
        await made.populate()
        for message in (ApproveExecutor, RejectExecutor):
            refused = await made.refuse(
                message(colonyname=COLONY, executorname="una"), COLONY_OWNER
            )
            assert (refused.failure.status, refused.failure.code) == (409, "conflict")
        assert made.colony.executors["una"].record.state == ExecutorState.UNREGISTERED


@virtual
async def test_S10_a_new_key_under_a_known_name_must_be_approved_anew() -> None:
    async with world(may_reregister=True) as made:
        await made.populate()
        executor = Executor(
            executorid=STRANGER.id, executortype=TYPE, executorname="ada", colonyname=COLONY
        )
        added = await made.call(AddExecutor(executor=executor), COLONY_OWNER)
        assert added["state"] == ExecutorState.PENDING
        refused = await made.refuse(GetExecutor(colonyname=COLONY, executorname="ada"), STRANGER)
        assert refused.failure.code == "access_denied"


@virtual
async def test_S11_what_is_foreign_and_what_is_not_there_are_refused_alike() -> None:
    async with world() as made:
        await made.populate()
        await made.employ()
        missing = "ab" * 32
        for kind in (
            GetProcess,
            RemoveProcess,
            CancelProcess,
            CloseSuccessful,
            CloseFailed,
            SetOutput,
        ):
            answers = [
                (await made.answer(kind(processid=id), EVE)).body
                for id in (made.running, made.waiting, made.succeeded, missing)
            ]
            assert len(set(answers)) == 1
        for message in (GetExecutors, GetColonyStatistics, GetPauseStatus):
            ours = str(await made.refuse(message(colonyname=COLONY), EVE))
            none = str(await made.refuse(message(colonyname="none"), EVE))
            assert ours.replace(COLONY, "none") == none
        function = RemoveFunction(functionid=made.function)
        other = RemoveFunction(functionid=missing)
        assert str(await made.refuse(function, EVE)) == str(await made.refuse(other, EVE))


@virtual
async def test_S12_an_id_is_one_member_of_a_colony() -> None:
    async with world() as made:
        await made.populate()
        twice_executor = Executor(
            executorid=ADA.id, executortype=TYPE, executorname="ada2", colonyname=COLONY
        )
        user_as_executor = msgspec.structs.replace(twice_executor, executorid=UMA.id)
        twice_user = User(colonyname=COLONY, userid=UMA.id, name="uma2")
        executor_as_user = msgspec.structs.replace(twice_user, userid=ADA.id)
        for message in (
            AddExecutor(executor=twice_executor),
            AddExecutor(executor=user_as_executor),
            AddUser(user=twice_user),
            AddUser(user=executor_as_user),
        ):
            refused = await made.refuse(message, COLONY_OWNER)
            assert (refused.failure.status, refused.failure.code) == (409, "exists")
        second = AddColony(colony=Colony(colonyid=COLONY_OWNER.id, name="second"))
        assert (await made.refuse(second, OWNER)).failure.code == "exists"


@virtual
async def test_S12_one_key_in_two_colonies_is_two_members() -> None:
    async with world() as made:
        await made.populate()
        await made.enrol("ada", colony=OTHER, owner=OTHER_OWNER)
        await made.call(GetExecutors(colonyname=OTHER), ADA)
        await made.call(RemoveUser(colonyname=OTHER, name="ada"), OTHER_OWNER)
        assert (await made.refuse(GetExecutors(colonyname=OTHER), ADA)).failure.status == 403
        await made.call(GetExecutors(colonyname=COLONY), ADA)
        await made.enrol("ada", colony=OTHER, owner=OTHER_OWNER)


@virtual
async def test_S12_an_id_is_free_again_once_its_user_has_left() -> None:
    async with world() as made:
        await made.populate()
        await made.call(RemoveUser(colonyname=COLONY, name="uma"), COLONY_OWNER)
        await made.enrol("uma")


@pytest.mark.parametrize("id", ["", "ab", "AB" * 32, "ab" * 33, "x" * 64, "../" * 20])
@virtual
async def test_S13_ids_are_checked(id: str) -> None:
    async with world() as made:
        await made.populate()
        await _expect_refused(made, id=id, name="new", code="bad_id")


@pytest.mark.parametrize("name", ["", " ", "a:b", "a/b", "a\nb", "x" * 129, "\u202eevil"])
@virtual
async def test_S13_names_are_checked(name: str) -> None:
    async with world() as made:
        await made.populate()
        await _expect_refused(made, id=STRANGER.id, name=name, code="bad_name")


async def _expect_refused(made: World, *, id: str, name: str, code: str) -> None:
    before = await made.dump()
    executor = Executor(executorid=id, executortype=TYPE, executorname=name, colonyname=COLONY)
    for message, identity in (
        (AddColony(colony=Colony(colonyid=id, name=name)), OWNER),
        (AddUser(user=User(colonyname=COLONY, userid=id, name=name)), COLONY_OWNER),
        (AddExecutor(executor=executor), COLONY_OWNER),
    ):
        refused = await made.refuse(message, identity)
        assert (refused.failure.status, refused.failure.code) == (400, code)
    assert await made.dump() == before


async def test_S14_there_are_limits(home: House) -> None:
    assert (await home.post(b" " * 20_000_000)).code == "too_large"
    for message in (
        GetProcesses(colonyname=COLONY, count=101),
        GetLogs(colonyname=COLONY, executorname="ada", count=501),
        SearchLogs(colonyname=COLONY, text="a", days=30, count=101),
        SearchLogs(colonyname=COLONY, text="a", days=31, count=1),
        SearchLogs(colonyname=COLONY, text="a", days=-1, count=1),
    ):
        assert (await home.refuse(message, ADA)).failure.code == "invalid_value"


@virtual
async def test_S14_the_rate_of_requests_is_limited() -> None:
    async with world(limits=Limits(rate=5, burst=5)) as made:
        await made.found("ada")
        message = GetProcesses(colonyname=COLONY, count=1)
        answers = [await made.answer(message, ADA) for _ in range(9)]
        assert [answer.status for answer in answers] == [200] * 5 + [429] * 4
        assert answers[-1].retry_after_s == pytest.approx(0.2)
        assert (await made.answer(message, COLONY_OWNER)).status == 403  # and not 429
        await asyncio.sleep(answers[-1].retry_after_s)
        assert (await made.answer(message, ADA)).status == 200


@virtual
async def test_S14_strangers_cannot_fill_the_memory_with_polls() -> None:
    async with world() as made:
        await made.populate()
        padding = "x" * 100_000
        for number in range(10):
            message = json.dumps({"msgtype": "assignprocessmsg", "pad": padding, "n": number})
            payload = codec.to_base64(message.encode())
            body = {
                "payloadtype": "assignprocessmsg",
                "payload": payload,
                "signature": STRANGER.sign(payload.encode()),
            }
            assert (await made.dispatch.answer(json.dumps(body).encode())).status == 403
        held = sum(len(payload) for payload, _ in made.dispatch._opener.polls)
        assert held < 100_000


async def test_S15_there_is_no_relay(home: House) -> None:
    for path in ("/relay", "/cluster", "/api/relay"):
        assert (await home.request("POST", path)).status == 404


@virtual
async def test_S16_what_was_done_to_a_process_is_kept_with_its_signature() -> None:
    async with world() as made:
        await made.populate()
        await made.employ()
        stored = await made.dump()
        pid = bytes.fromhex(made.succeeded)
        birth = decode_birth(stored[keys.birth(pid)])
        signed = digest(codec.to_base64(birth.payload).encode())
        assert recover_digest(signed, birth.signature) == birth.initiator_id == UMA.id
        events = decode_closed(stored[keys.closed(pid)]).live.events
        assert [event.what for event in events] == [What.ASSIGNED, What.SUCCEEDED]
        for event in events:
            assert recover_digest(event.digest, event.signature) == event.who.hex() == ADA.id
