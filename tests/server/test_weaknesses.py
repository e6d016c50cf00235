"""The weaknesses of COLONIES-RPC section 5 are absent, each by its number.

Those that belong to messages which are not served yet are answered with `not_supported`;
docs/explain/compatibility.md lists them.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from colonist_core.process import What
from colonist_protocol import codec, messages
from colonist_protocol.colony import (
    AddColony,
    Colony,
    GetColonies,
    GetColonyStatistics,
    GetPauseStatus,
    PauseAssignments,
    RemoveColony,
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
    RemoveExecutor,
)
from colonist_protocol.function import GetFunctions, RemoveFunction
from colonist_protocol.function_spec import Gpu
from colonist_protocol.identity import digest, recover_digest
from colonist_protocol.log import AddExecutorLog, GetLogs, SearchLogs
from colonist_protocol.message import Message
from colonist_protocol.process import (
    AssignProcess,
    CancelProcess,
    CloseFailed,
    CloseSuccessful,
    GetProcess,
    GetProcesses,
    GetProcessHistory,
    Process,
    RemoveAllProcesses,
    RemoveProcess,
    SetOutput,
    State,
)
from colonist_protocol.server import GetStatistics
from colonist_protocol.times import SECOND_NS, UNSET, from_text
from colonist_protocol.user import AddUser, GetUser, GetUserById, GetUsers, RemoveUser, User
from colonist_server.loops.deadlines import Deadlines
from colonist_server.repo import keys
from colonist_server.repo.records import decode_birth, decode_closed
from tests.server.house import House
from tests.server.people import (
    OTHER,
    OTHER_OWNER,
    STRANGER,
    WHO,
    World,
    attribute_of,
    function_of,
    out_of,
    world,
)
from tests.support.clock import virtual
from tests.support.rooms import COLONY, COLONY_OWNER, OWNER, TYPE, key, settle
from tests.support.stores import CountingStore

ADA, BEN, EVE, UMA = key("ada"), key("ben"), key("eve"), key("uma")
COMPATIBILITY = Path(__file__).parents[2] / "docs" / "explain" / "compatibility.md"

# By weakness: the messages that have it, none of which is served yet.
NOT_SERVED = {
    "G7": ["channelappendmsg"],
}


async def parked(made: World, name: str, timeout: int = 100) -> asyncio.Task[Process]:
    before = made.rooms.hand_over.parked()
    task = asyncio.create_task(made.assign(name, timeout))
    await settle()
    assert made.rooms.hand_over.parked() == before + 1
    return task


@pytest.mark.parametrize("weakness", NOT_SERVED)
@virtual
async def test_what_is_not_served_cannot_be_weak(weakness: str) -> None:
    async with world() as made:
        await made.populate()
        before = await made.dump()
        for kind in NOT_SERVED[weakness]:
            assert kind in messages.UNSUPPORTED
            for identity in (ADA, COLONY_OWNER, OWNER):
                message = msgspec.defstruct("Bare", [], bases=(Message,), tag=kind)
                reply = parse_reply((await made.answer(message(), identity)).body)
                assert isinstance(reply, Failure)
                assert (reply.status, reply.code) == (501, "not_supported")
        assert await made.dump() == before


def test_the_page_on_compatibility_lists_every_weakness_and_why() -> None:
    text = COMPATIBILITY.read_text()
    numbers = [
        *(f"S{number}" for number in range(1, 17)),
        *(f"P{number}" for number in range(1, 10)),
        *(f"W{number}" for number in range(1, 25)),
        *(f"G{number}" for number in range(1, 10)),
    ]
    assert [number for number in numbers if f"| {number} |" not in text] == []


# -- 5.1 security


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
        held = sum(len(payload) for payload, _ in made.dispatch._polls)
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


# -- 5.2 what crashed or poisoned


async def test_P3_null_is_refused_like_any_other_nonsense(home: House) -> None:
    for body in (b"null", b'{"payloadtype":"addcolonymsg","payload":"bnVsbA==","signature":""}'):
        got = await home.post(body)
        assert got.status in (400, 403)
        assert got.payload["message"]
    text = codec.to_base64(b"null")
    signed = {
        "payloadtype": "addcolonymsg",
        "payload": text,
        "signature": OWNER.sign(text.encode()),
    }
    assert (await home.post(json.dumps(signed).encode())).code == "wrong_type"


@virtual
async def test_P4_a_colon_in_a_name_is_refused_and_lists_go_on() -> None:
    async with world() as made:
        await made.populate()
        executor = Executor(
            executorid=STRANGER.id, executortype=TYPE, executorname="a:b", colonyname=COLONY
        )
        refused = await made.refuse(AddExecutor(executor=executor), COLONY_OWNER)
        assert refused.failure.code == "bad_name"
        names = {each["executorname"] for each in await made.call(_executors(), ADA)}
        assert names == {"ada", "ben", "una", "pat", "rex"}
        assert (await made.call(GetStatistics(), OWNER))["executors"] == 6


def _executors() -> GetExecutors:
    return GetExecutors(colonyname=COLONY)


@virtual
async def test_P8_a_colony_made_anew_is_not_paused() -> None:
    async with world() as made:
        await made.populate()
        await made.call(PauseAssignments(colonyname=COLONY), COLONY_OWNER)
        await made.call(RemoveColony(colonyname=COLONY), OWNER)
        await made.found("ada")
        status = await made.call(GetPauseStatus(colonyname=COLONY), ADA)
        assert status["ispaused"] is False
        await made.submit("ada")
        await made.assign("ada")


# -- 5.3 lost or wrong work


@virtual
async def test_W1_a_submit_wakes_who_can_run_it_in_its_own_colony() -> None:
    async with world() as made:
        await made.populate()
        await made.hire("gus", type="gpu")
        other = asyncio.create_task(_assign_in_other(made))
        await settle()
        ours = [await parked(made, name) for name in ("gus", "ada", "ben")]
        named = (await made.submit("uma", executornames=["ben"])).processid
        assert (await ours[2]).processid == named
        plain = (await made.submit("uma")).processid
        assert (await ours[1]).processid == plain
        await settle()
        assert not ours[0].done()
        assert not other.done()
        for task in (ours[0], other):
            task.cancel()


async def _assign_in_other(made: World) -> Process:
    return await made.process(AssignProcess(colonyname=OTHER, timeout=100), EVE)


@virtual
async def test_W2_work_that_comes_with_the_end_of_the_poll_is_not_missed() -> None:
    for early_s in (0.0, 1e-6, 1e-3):
        async with world() as made:
            await made.populate()
            task = await parked(made, "ada", 5)
            await asyncio.sleep(5 - early_s)
            id = (await made.submit("uma")).processid
            outcome = (await asyncio.gather(task, return_exceptions=True))[0]
            if isinstance(outcome, Process):
                assert outcome.processid == id
            else:  # the time was up first: the next assign has it at once
                assert (await made.assign("ada", -1)).processid == id


@virtual
async def test_W3_work_of_a_removed_executor_wakes_who_waits() -> None:
    async with world() as made:
        await made.populate()
        id = (await made.submit("uma")).processid
        await made.assign("ada")
        task = await parked(made, "ben")
        await made.call(RemoveExecutor(colonyname=COLONY, executorname="ada"), COLONY_OWNER)
        async with asyncio.timeout(0.05):
            assert (await task).processid == id


@virtual
async def test_W4_who_works_long_is_not_taken_for_dead() -> None:
    async with world(stale_s=600.0, presence_every_s=60.0) as made:
        await made.populate()
        id = (await made.submit("uma")).processid
        await made.assign("ada")
        await asyncio.sleep(3600)
        await made.close("ada", id)
        assert (await made.get("uma", id)).state == State.SUCCESS


@virtual
async def test_W5_closing_twice_changes_nothing() -> None:
    async with world() as made:
        await made.populate()
        await made.employ()
        before = await made.dump()
        for id in (made.succeeded, made.failed, made.cancelled):
            for message in (
                CloseSuccessful(processid=id, out=msgspec.Raw(b'["other"]')),
                CloseFailed(processid=id, errors=["other"]),
                SetOutput(processid=id, out=msgspec.Raw(b'["other"]')),
            ):
                refused = await made.refuse(message, ADA)
                assert (refused.failure.status, refused.failure.code) == (409, "conflict")
        assert await made.dump() == before
        assert out_of(await made.read(made.succeeded)) == ["done"]


@virtual
async def test_W6_a_process_without_an_execution_limit_does_not_expire() -> None:
    async with world() as made:
        await made.populate()
        id = (await made.submit("uma", maxexectime=0)).processid
        assert (await made.assign("ada")).execdeadline == UNSET
        await asyncio.sleep(10**6)
        assert (await made.read(id)).state == State.RUNNING


@virtual
async def test_W15_the_work_of_a_key_that_was_replaced_is_free() -> None:
    async with world(may_reregister=True) as made:
        await made.populate()
        id = (await made.submit("uma")).processid
        await made.assign("ada")
        executor = Executor(
            executorid=STRANGER.id, executortype=TYPE, executorname="ada", colonyname=COLONY
        )
        await made.call(AddExecutor(executor=executor), COLONY_OWNER)
        await made.call(ApproveExecutor(colonyname=COLONY, executorname="ada"), COLONY_OWNER)
        assert (await made.assign("ben")).processid == id


async def test_W16_work_for_a_connection_that_is_gone_goes_to_somebody_else(home: House) -> None:
    await home.assign("ada")
    waits = asyncio.create_task(home.assign("ben", 60))
    await home.until_parked(1)
    waits.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waits
    await home.until_parked(0)
    id = (await home.submit("uma")).processid
    assert (await home.assign("ada")).processid == id


@virtual
async def test_W17_a_late_close_of_somebody_else_is_refused() -> None:
    async with world() as made:
        await made.populate()
        id = (await made.submit("uma", maxexectime=5, maxretries=5)).processid
        await made.assign("ada")
        await made.assign("ben", timeout=60)
        refused = await made.refuse(
            CloseSuccessful(processid=id, out=msgspec.Raw(b'["late"]')), ADA
        )
        assert refused.failure.status == 403
        await made.close("ben", id)
        assert out_of(await made.read(id)) == ["done"]


@pytest.mark.parametrize("errors", ["", ', "errors": null', ', "errors": []'])
@virtual
async def test_W19_a_failure_without_reasons_has_none_and_not_null(errors: str) -> None:
    async with world() as made:
        await made.populate()
        id = (await made.submit("uma")).processid
        await made.assign("ada")
        payload = codec.to_base64(
            f'{{"msgtype": "closefailedmsg", "processid": "{id}"{errors}}}'.encode()
        )
        body = {
            "payloadtype": "closefailedmsg",
            "payload": payload,
            "signature": ADA.sign(payload.encode()),
        }
        assert (await made.dispatch.answer(json.dumps(body).encode())).status == 200
        assert (await made.call(GetProcess(processid=id), UMA))["errors"] == []


@virtual
async def test_W20_there_is_one_mode() -> None:
    async with world() as made:
        await made.populate()
        wanted: dict[str, Any] = {"executornames": ["*"], "storage": "10Ti", "maxexectime": 60}
        id = (await made.submit("uma", env={"E": "1"}, **wanted)).processid
        got = await made.assign("ada")
        assert got.processid == id
        left_ns = from_text(got.execdeadline) - from_text(got.starttime)
        assert left_ns == 60 * SECOND_NS
        assert [each.state for each in got.attributes] == [State.RUNNING]


@pytest.mark.parametrize(
    ("wanted", "available", "does_fit"),
    [
        ({"mem": "1KB"}, {"availablemem": "1000"}, True),
        ({"mem": "1KiB"}, {"availablemem": "1000"}, False),
        ({"mem": "1MB"}, {"availablemem": "1Mi"}, True),
        ({"mem": "1TB"}, {"availablemem": "1Ti"}, True),
        ({"mem": "2G"}, {"availablemem": "1Gi"}, False),
        ({"cpu": "2"}, {"availablecpu": "1500m"}, False),
        ({"cpu": "2"}, {"availablecpu": "2000m"}, True),
        ({"cpu": "2", "mem": "1Gi"}, {}, True),
    ],
)
@virtual
async def test_W21_every_unit_means_one_thing(
    wanted: dict[str, str], available: dict[str, str], does_fit: bool
) -> None:
    async with world() as made:
        await made.populate()
        for _ in range(3):
            await made.submit("uma", **wanted)
            ask = AssignProcess(colonyname=COLONY, timeout=-1, **available)
            assert ((await made.answer(ask, ADA)).status == 200) is does_fit


@virtual
async def test_W22_all_that_was_asked_of_a_gpu_is_kept() -> None:
    async with world() as made:
        await made.populate()
        gpu = Gpu(name="A", mem="2Gi", count=3, nodecount=4)
        id = (await made.submit("uma", gpu=gpu, walltime=7)).processid
        conditions = (await made.read(id)).spec.conditions
        assert conditions.gpu == msgspec.structs.replace(gpu, mem="2048Mi")
        assert conditions.walltime == 7


@virtual
async def test_W23_a_function_stands_once_and_its_mean_is_one() -> None:
    async with world() as made:
        await made.populate()
        for _ in range(2):
            await made.call(function_of("ada"), ADA)
        for exec_s in (1, 2, 9):
            id = (await made.submit("uma")).processid
            await made.assign("ada")
            await asyncio.sleep(exec_s)
            await made.close("ada", id)
        [function] = await made.call(GetFunctions(colonyname=COLONY), ADA)
        assert function["counter"] == 3
        assert function["avgexectime"] == pytest.approx(4)
        assert (function["minexectime"], function["maxexectime"]) == pytest.approx((1, 9))


@virtual
async def test_W24_an_attribute_can_be_written_again_and_goes_with_its_colony() -> None:
    async with world() as made:
        before = await made.dump()
        await made.populate()
        await made.employ()
        for value in ("1", "2"):
            attribute = await made.call(attribute_of(made.running, "k", value), ADA)
            assert (attribute["value"], attribute["targetcolonyname"]) == (value, COLONY)
        assert [each.value for each in (await made.read(made.running)).attributes] == ["2"]
        for colony in (COLONY, OTHER):
            await made.call(RemoveColony(colonyname=colony), OWNER)
        await settle()
        assert await made.dump() == before


# -- 5.4 cost


@virtual
async def test_G1_deadlines_that_have_not_come_cost_nothing() -> None:
    async with CountingStore() as store, world(store) as made:
        await made.populate()
        for _ in range(300):
            await made.submit("uma", maxexectime=10**6, maxwaittime=10**6)
        for _ in range(100):
            await made.assign("ada")
        await asyncio.sleep(61)
        store.asked.clear()
        await asyncio.sleep(600)
        assert store.asked == []


@pytest.mark.parametrize("state", State)
@virtual
async def test_G2_a_list_costs_a_few_reads_however_long(state: State) -> None:
    async with CountingStore() as store, world(store) as made:
        await made.populate()
        for _ in range(100):
            id = (await made.submit("uma", env={"E": "1"})).processid
            if state != State.WAITING:
                await made.assign("ada")
            if state == State.SUCCESS:
                await made.close("ada", id)
            elif state == State.FAILED:
                await made.call(CloseFailed(processid=id), ADA)
            elif state == State.CANCELLED:
                await made.call(CancelProcess(processid=id), UMA)
        store.asked.clear()
        assert len(await made.list(state)) == 100
        assert len(store.asked) <= 4


@virtual
async def test_G4_statistics_read_nothing() -> None:
    async with CountingStore() as store, world(store) as made:
        await made.populate()
        await made.employ()
        store.asked.clear()
        await made.statistics()
        await made.call(GetStatistics(), OWNER)
        assert store.asked == []


@virtual
async def test_G6_an_idle_server_asks_nothing_of_its_store() -> None:
    async with CountingStore() as store, world(store) as made:
        await made.populate()
        waits = [await parked(made, "ben", 3000) for _ in range(20)]
        await asyncio.sleep(100)
        store.asked.clear()
        await asyncio.sleep(1000)
        assert store.asked == []
        for task in waits:
            task.cancel()


@virtual
async def test_G8_deadlines_of_what_has_ended_are_forgotten() -> None:
    async with world() as made:
        await made.populate()
        [deadlines] = [each for each in made.rooms.view._listeners if isinstance(each, Deadlines)]
        for _ in range(1500):
            id = (await made.submit("uma", maxexectime=10**6, maxwaittime=10**6)).processid
            await made.assign("ada")
            await made.close("ada", id)
        assert len(deadlines._heap) <= 1100


@virtual
async def test_G9_limits_are_kept_to_the_moment() -> None:
    async with world() as made:
        await made.populate()
        for limit_s in (1, 2, 7):
            id = (await made.submit("uma", maxwaittime=limit_s, executortype="none")).processid
            await asyncio.sleep(limit_s + 0.01)
            process = await made.read(id)
            took_ns = from_text(process.endtime) - from_text(process.submissiontime)
            assert abs(took_ns - limit_s * SECOND_NS) < SECOND_NS // 100


# -- 5.5 blemishes


@virtual
async def test_55_what_is_not_there_is_404_and_what_is_there_already_is_409() -> None:
    async with world() as made:
        await made.populate()
        await made.employ()
        await made.call(RemoveProcess(processid=made.waiting), UMA)
        missing: list[tuple[Any, Any]] = [
            (RemoveColony(colonyname="none"), OWNER),
            (GetUser(colonyname=COLONY, name="none"), ADA),
            (GetUserById(colonyname=COLONY, userid=STRANGER.id), ADA),
            (RemoveUser(colonyname=COLONY, name="none"), COLONY_OWNER),
            (GetExecutor(colonyname=COLONY, executorname="none"), ADA),
            (ApproveExecutor(colonyname=COLONY, executorname="none"), COLONY_OWNER),
            (RejectExecutor(colonyname=COLONY, executorname="none"), COLONY_OWNER),
            (RemoveExecutor(colonyname=COLONY, executorname="none"), COLONY_OWNER),
            (RemoveFunction(functionid="none"), ADA),
            (GetLogs(colonyname=COLONY, executorname="none", count=1), ADA),
            (GetLogs(colonyname=COLONY, processid=made.waiting, count=1), ADA),
            (function_of("none"), ADA),
        ]
        missing += [
            (kind(processid=made.waiting), ADA)
            for kind in (GetProcess, RemoveProcess, CancelProcess, CloseFailed, CloseSuccessful)
        ]
        for message, identity in missing:
            refused = await made.refuse(message, identity)
            assert (refused.failure.status, refused.failure.code) == (404, "not_found"), message
        there = [
            (AddColony(colony=Colony(colonyid=STRANGER.id, name=COLONY)), OWNER),
            (AddUser(user=User(colonyname=COLONY, userid=STRANGER.id, name="uma")), COLONY_OWNER),
        ]
        for message, identity in there:
            refused = await made.refuse(message, identity)
            assert (refused.failure.status, refused.failure.code) == (409, "exists"), message


async def test_55_a_refusal_has_a_body(home: House) -> None:
    for message in (
        GetColonyStatistics(colonyname=COLONY),
        GetProcessHistory(colonyname=COLONY, seconds=1),
    ):
        got = await home.post(pack_request(message, STRANGER))
        assert (got.status, got.code) == (403, "access_denied")


@virtual
async def test_55_an_empty_list_is_a_list() -> None:
    async with world() as made:
        assert await made.call(GetColonies(), OWNER) == []
        await made.found("ada")
        for message in (
            GetUsers(colonyname=COLONY),
            GetFunctions(colonyname=COLONY),
            GetProcesses(colonyname=COLONY, count=9),
            GetProcessHistory(colonyname=COLONY, seconds=9),
            GetLogs(colonyname=COLONY, executorname="ada", count=9),
            SearchLogs(colonyname=COLONY, text="a", days=1, count=9),
        ):
            assert await made.call(message, ADA) == []


@virtual
async def test_55_unset_times_are_the_year_one_in_utc() -> None:
    async with world() as made:
        await made.populate()
        id = (await made.submit("uma")).processid
        process = await made.call(GetProcess(processid=id), UMA)
        unset = ("starttime", "endtime", "waitdeadline", "execdeadline")
        assert [process[name] for name in unset] == [UNSET] * 4
        executor = await made.call(GetExecutor(colonyname=COLONY, executorname="pat"), ADA)
        assert executor["lastheardfromtime"] == UNSET


@virtual
async def test_55_removing_all_leaves_what_runs() -> None:
    async with world() as made:
        await made.populate()
        await made.employ()
        await made.call(RemoveAllProcesses(colonyname=COLONY, state=-1), COLONY_OWNER)
        assert await made.list(State.RUNNING) == [made.running]


@virtual
async def test_55_refusals_speak_of_what_was_asked() -> None:
    async with world() as made:
        await made.populate()
        await made.employ()
        texts = {
            "log": AddExecutorLog(colonyname=COLONY, executorname="ben", message="m"),
            "output": SetOutput(processid=made.succeeded, out=msgspec.Raw(b"[1]")),
            "attribute": attribute_of(made.succeeded),
            "user": GetUser(colonyname=COLONY, name="none"),
        }
        for word, message in texts.items():
            assert word in str(await made.refuse(message, ADA))
