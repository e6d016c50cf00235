"""Executors that register anew, are silent, or wait: who is taken for gone, and when."""

from __future__ import annotations

import asyncio

import pytest

from colonist_protocol.executor import (
    AddExecutor,
    ApproveExecutor,
    Executor,
    ExecutorState,
    GetExecutor,
)
from colonist_protocol.function import GetFunctions
from colonist_protocol.process import State
from colonist_protocol.times import from_text
from tests.server.people import World, crashing, function_of, parked, refusal, world
from tests.support.clock import virtual
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, COLONY_OWNER, TYPE, Refused, key

ADA, BEN = key("ada"), key("ben")


async def _register(made: World, name: str, as_key: str, type: str = TYPE) -> None:
    executor = Executor(
        executorid=key(as_key).id, executortype=type, executorname=name, colonyname=COLONY
    )
    await made.call(AddExecutor(executor=executor), COLONY_OWNER)


@virtual
async def test_a_name_is_not_taken_again_unless_the_server_is_set_so() -> None:
    async with world() as made:
        await made.populate()
        for name in ("ada", "una", "rex"):
            with pytest.raises(Refused) as refused:
                await _register(made, name, "newcomer")
            assert refused.value.failure.code == "exists"


@virtual
async def test_who_registers_anew_starts_anew() -> None:
    async with world(may_reregister=True, stale_s=600.0) as made:
        await made.populate()
        await made.call(function_of("ada"), ADA)
        id = (await made.submit("uma")).processid
        await made.assign("ada")
        await asyncio.sleep(500)
        old = await parked(made, "ada", 1000)
        await _register(made, "ada", "ada's new key", type="other")
        assert await refusal(old) == (403, "access_denied")
        executor = await made.call(GetExecutor(colonyname=COLONY, executorname="ada"), BEN)
        assert (executor["state"], executor["executortype"]) == (ExecutorState.PENDING, "other")
        assert from_text(executor["lastheardfromtime"]) == 0
        assert (await made.get("ben", id)).state == State.WAITING
        assert await made.call(GetFunctions(colonyname=COLONY), BEN) == []
        new = key("ada's new key")
        assert (await made.refuse(GetFunctions(colonyname=COLONY), new)).failure.status == 403
        assert (await made.refuse(GetFunctions(colonyname=COLONY), ADA)).failure.status == 403
        await made.call(ApproveExecutor(colonyname=COLONY, executorname="ada"), COLONY_OWNER)
        await made.call(GetFunctions(colonyname=COLONY), new)


@virtual
async def test_who_is_silent_too_long_is_unregistered() -> None:
    async with world(stale_s=600.0, presence_every_s=60.0) as made:
        await made.populate()
        await made.call(GetFunctions(colonyname=COLONY), ADA)
        await asyncio.sleep(500)
        await made.call(GetFunctions(colonyname=COLONY), BEN)
        await asyncio.sleep(200)
        states = made.colony.executors
        assert states["ada"].record.state == ExecutorState.UNREGISTERED
        assert states["ben"].record.state == ExecutorState.APPROVED


@virtual
async def test_who_waits_for_work_is_not_silent() -> None:
    async with world(stale_s=600.0, presence_every_s=60.0) as made:
        await made.populate()
        task = await parked(made, "ada", 3000)
        await asyncio.sleep(2999.9)
        assert made.colony.executors["ada"].is_approved
        assert await refusal(task) == (404, "no_process")
        await asyncio.sleep(300)
        assert made.colony.executors["ada"].is_approved


@virtual
async def test_a_server_that_is_set_so_unregisters_nobody() -> None:
    async with world(stale_s=0.0, presence_every_s=60.0) as made:
        await made.populate()
        await made.call(GetFunctions(colonyname=COLONY), ADA)
        await asyncio.sleep(10_000)
        assert made.colony.executors["ada"].is_approved


@pytest.mark.parametrize("crash", [False, True])
@virtual
async def test_when_executors_were_heard_is_known_after_a_restart(crash: bool) -> None:
    async with MemoryStore() as store:
        async with (crashing if crash else world)(store, presence_every_s=60.0) as made:
            await made.populate()
            await made.call(GetFunctions(colonyname=COLONY), ADA)
            heard_ns = made.colony.executors["ada"].heard_ns
            await asyncio.sleep(61)
        async with world(store) as made:
            executors = made.colony.executors
            assert (executors["ada"].heard_ns, executors["rex"].heard_ns) == (heard_ns, 0)
            shown = await made.call(GetExecutor(colonyname=COLONY, executorname="ada"), BEN)
            assert from_text(shown["lastheardfromtime"]) == heard_ns // 1000 * 1000


@virtual
async def test_a_full_disk_does_not_end_the_loops() -> None:
    async with MemoryStore() as store, world(store, presence_every_s=60.0) as made:
        await made.populate()
        store.is_full = True
        await made.call(GetFunctions(colonyname=COLONY), ADA)
        await asyncio.sleep(200)
        store.is_full = False
        await asyncio.sleep(61)
        assert any(name.startswith(b"nh/") for name in await made.dump())


@virtual
async def test_a_full_disk_at_the_end_is_no_fault(caplog: pytest.LogCaptureFixture) -> None:
    async with MemoryStore() as store:
        async with world(store) as made:
            await made.populate()
            store.is_full = True
        assert "internal" not in caplog.text
        store.is_full = False
        async with world(store) as made:
            await made.call(GetFunctions(colonyname=COLONY), ADA)
