"""Work is neither lost nor wrong: the weaknesses of COLONIES-RPC section 5.3, by number."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest

from colonist_protocol import codec
from colonist_protocol.colony import (
    RemoveColony,
)
from colonist_protocol.executor import (
    AddExecutor,
    ApproveExecutor,
    Executor,
    RemoveExecutor,
)
from colonist_protocol.function import GetFunctions
from colonist_protocol.function_spec import Gpu
from colonist_protocol.process import (
    AssignProcess,
    CancelProcess,
    CloseFailed,
    CloseSuccessful,
    GetProcess,
    Process,
    SetOutput,
    State,
)
from colonist_protocol.times import SECOND_NS, UNSET, from_text
from tests.server.house import House
from tests.server.people import (
    OTHER,
    STRANGER,
    World,
    attribute_of,
    function_of,
    out_of,
    parked,
    world,
)
from tests.support.attempts import take
from tests.support.clock import virtual
from tests.support.rooms import COLONY, COLONY_OWNER, OWNER, TYPE, key, settle

ADA, EVE, UMA = key("ada"), key("eve"), key("uma")


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


@virtual
async def test_W17_a_late_close_of_the_same_executor_is_told_from_its_newer_one() -> None:
    async with world() as made:
        await made.populate()
        await made.submit("uma", maxexectime=5, maxretries=5, lateresult="reject")
        late = await take(made, "ada")
        await asyncio.sleep(6)
        newer = await take(made, "ada")
        assert (late.number, newer.number) == (1, 2)
        assert await late.succeed("late") == "recorded"
        assert (await made.read(newer.process)).state == State.RUNNING
        assert await newer.succeed("newer") == "counted"
        assert out_of(await made.read(newer.process)) == ["newer"]


@virtual
async def test_W5_a_sealed_close_of_what_has_ended_changes_nothing() -> None:
    async with world() as made:
        await made.populate()
        await made.submit("uma")
        mine = await take(made, "ada")
        await made.call(CancelProcess(processid=mine.process), UMA)
        before = await made.read(mine.process)
        assert await mine.succeed() == "recorded"
        assert await made.read(mine.process) == before


@virtual
async def test_W4_where_no_two_may_run_work_of_a_removed_executor_has_its_time() -> None:
    async with world() as made:
        await made.populate()
        await made.submit("uma", maxexectime=10, maxretries=5, overlap="never")
        mine = await take(made, "ben")
        remove = RemoveExecutor(colonyname=COLONY, executorname="ben")
        await made.call(remove, COLONY_OWNER)
        assert (await made.read(mine.process)).state == State.RUNNING
        await asyncio.sleep(11.1)
        assert (await take(made, "ada")).number == 2


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
