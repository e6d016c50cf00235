"""Processes and colonies that are removed leave nothing, and statistics keep count."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from colonist_protocol.colony import RemoveColony
from colonist_protocol.log import AddLog, GetLogs
from colonist_protocol.process import (
    AssignProcess,
    CancelProcess,
    CloseFailed,
    GetProcess,
    RemoveAllProcesses,
    RemoveProcess,
    SetOutput,
    State,
)
from colonist_server.repo import keys
from tests.server.people import World, attribute_of, crashing, run_one, world
from tests.support.clock import virtual
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, COLONY_OWNER, OWNER, key, settle

ADA, UMA = key("ada"), key("uma")
SIGNED = {keys.CHECKPOINT, keys.NEWEST_CHECKPOINT[:2]}
"""Checkpoints come and stay."""


# -- removal


@virtual
async def test_a_refused_removal_takes_nothing_away() -> None:
    async with world() as made:
        await made.populate()
        await made.employ()
        before = await made.dump()
        refused = await made.refuse(RemoveProcess(processid=made.running), UMA)
        assert (refused.failure.code, refused.failure.status) == ("conflict", 409)
        assert "cannot remove a running process" in refused.failure.message
        assert await made.dump() == before
        assert [each.key for each in (await made.read(made.running)).attributes] == ["k"]


@pytest.mark.parametrize("outcome", ["success", "failed", "cancelled", "back"])
@virtual
async def test_a_removed_process_leaves_its_log_only(outcome: str) -> None:
    async with world() as made:
        await made.populate()
        before = await made.dump()
        id = await run_one(made, "none", env={"E": "1"}, maxexectime=5, maxretries=9)
        for number in range(130):
            await made.call(attribute_of(id, f"k{number}"), ADA)
        await made.call(SetOutput(processid=id, out=msgspec.Raw(b"[1]")), ADA)
        await made.call(AddLog(processid=id, message="m"), ADA)
        if outcome == "success":
            await made.close("ada", id)
        elif outcome == "failed":
            await made.call(CloseFailed(processid=id), ADA)
        elif outcome == "cancelled":
            await made.call(CancelProcess(processid=id), UMA)
        else:
            await asyncio.sleep(6)
        await made.call(RemoveProcess(processid=id), UMA)
        left = {name: value for name, value in (await made.dump()).items() if name not in before}
        assert {name[:2] for name in left} - SIGNED == {b"l/", keys.REMOVED[:2]}
        assert (await made.refuse(GetProcess(processid=id), UMA)).failure.code == "not_found"
        assert (await made.refuse(RemoveProcess(processid=id), UMA)).failure.code == "not_found"
        logs = GetLogs(colonyname=COLONY, executorname="ada", count=9)
        assert [line["message"] for line in await made.call(logs, UMA)] == ["m"]


@pytest.mark.parametrize("state", [-1, State.WAITING, State.SUCCESS, State.FAILED, State.CANCELLED])
@virtual
async def test_all_in_a_state_are_removed_and_no_other(state: int) -> None:
    async with world() as made:
        await made.populate()
        await made.employ()
        for _ in range(120):
            await run_one(made) if state == State.SUCCESS else await made.submit("uma")
        kept = {each: await made.list(each) for each in State}
        await made.call(RemoveAllProcesses(colonyname=COLONY, state=state), COLONY_OWNER)
        await settle()
        for each in State:
            is_gone = state in (each, -1) and each is not State.RUNNING
            assert await made.list(each) == ([] if is_gone else kept[each])
        await _expect_recount(made)


@pytest.mark.parametrize("state", [1, 5, -2])
@virtual
async def test_running_and_unknown_states_are_not_removed(state: int) -> None:
    async with world() as made:
        await made.populate()
        message = RemoveAllProcesses(colonyname=COLONY, state=state)
        assert (await made.refuse(message, COLONY_OWNER)).failure.code == "invalid_value"


@virtual
async def test_a_process_that_is_being_assigned_is_not_removed_under_its_executor() -> None:
    async with world() as made:
        await made.populate()
        for _ in range(20):
            id = (await made.submit("uma")).processid
            removal = made.answer(RemoveProcess(processid=id), UMA)
            assign = made.answer(AssignProcess(colonyname=COLONY, timeout=-1), ADA)
            removed, assigned = await asyncio.gather(removal, assign)
            assert (removed.status, assigned.status) in [(200, 404), (409, 200)]


# -- statistics


@virtual
async def test_statistics_equal_a_recount_whatever_happened() -> None:
    async with MemoryStore() as store:
        async with world(store) as made:
            await made.populate()
            await made.employ()
            for outcome in ("success", "failed", "cancelled", "none", "success"):
                await run_one(made, outcome)
                await _expect_recount(made)
            await run_one(made, "none", maxexectime=1)
            await made.submit("uma", maxwaittime=1)
            await asyncio.sleep(3)
            await _expect_recount(made)
            await made.call(RemoveProcess(processid=made.succeeded), UMA)
            await _expect_recount(made)
            before = await made.statistics()
        async with world(store) as made:
            assert await made.statistics() == before
            await _expect_recount(made)


async def _expect_recount(made: World) -> None:
    statistics = await made.statistics()
    names = ("waiting", "running", "successful", "failed", "cancelled")
    for state, name in zip(State, names, strict=True):
        assert min(statistics[f"{name}processes"], 100) == len(await made.list(state)), name


# -- the end of a colony


@virtual
async def test_a_removed_colony_leaves_nothing() -> None:
    async with world() as made:
        before = await made.dump()
        await made.populate()
        await made.employ()
        for _ in range(70):
            await made.submit("uma", env={"E": "1"})
        for number in range(130):
            await made.call(attribute_of(made.running, f"k{number}"), ADA)
        for name in range(70):
            await made.add(f"x{name}")
        await made.call(RemoveColony(colonyname=COLONY), OWNER)
        await made.call(RemoveColony(colonyname="other"), OWNER)
        await settle()
        assert (await made.dump()).keys() == before.keys()
        assert not made.rooms.view.rows


@virtual
async def test_presence_of_a_removed_colony_is_forgotten() -> None:
    async with world(presence_every_s=60.0) as made:
        await made.populate()
        await made.employ()
        await asyncio.sleep(61)
        assert any(b"ada" in value for value in (await made.dump()).values())
        await made.call(RemoveColony(colonyname=COLONY), OWNER)
        await made.call(RemoveColony(colonyname="other"), OWNER)
        await asyncio.sleep(61)
        assert not any(b"ada" in value for value in (await made.dump()).values())


@pytest.mark.parametrize("is_swept_late", [False, True])
@virtual
async def test_a_colony_made_anew_meets_nothing_old(is_swept_late: bool) -> None:
    async with MemoryStore() as store:
        async with crashing(store) as made:
            await made.populate()
            await made.employ()
            old = made.running
            await made.call(RemoveColony(colonyname=COLONY), OWNER)
            if is_swept_late:
                await settle(1)
        async with world(store) as made:
            await made.found("ada")
            await settle()
            assert (await made.statistics()) | {"executors": 0, "activeexecutors": 0} == {
                name: int(name == "colonies") for name in await made.statistics()
            }
            for state in State:
                assert await made.list(state) == []
            refused = await made.refuse(GetProcess(processid=old), ADA)
            assert refused.failure.code == "access_denied"
            refused = await made.refuse(
                GetLogs(colonyname=COLONY, executorname="ben", count=1), ADA
            )
            assert refused.failure.code == "not_found"
            with pytest.raises(AssertionError):
                await made.refuse(GetLogs(colonyname=COLONY, executorname="ada", count=1), ADA)
