"""Work under former ids of an executor is its own, and nothing of it leaks (W15, P9)."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import msgspec
import pytest

from colonist_protocol.executor import (
    AddExecutor,
    ApproveExecutor,
    ChangeExecutorId,
    Executor,
    RemoveExecutor,
)
from colonist_protocol.function import GetFunctions
from colonist_protocol.identity import Identity
from colonist_protocol.log import AddLog
from colonist_protocol.process import (
    AssignProcess,
    CloseFailed,
    CloseSuccessful,
    ReleaseProcess,
    SetOutput,
    State,
)
from colonist_protocol.user import AddUser, ChangeUserId, User
from colonist_server.repo import keys
from colonist_server.repo.identities import MAX_FORMER
from tests.server.people import (
    World,
    attribute_of,
    crashing,
    function_of,
    world,
)
from tests.support.clock import virtual
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, COLONY_OWNER, TYPE, Refused, key, settle

ADA, BEN, UMA, NEW = key("ada"), key("ben"), key("uma"), key("new")


async def change(made: World, old: Identity, new: Identity) -> None:
    await made.call(ChangeExecutorId(colonyname=COLONY, executorid=new.id), old)


async def close(made: World, process: str, by: Identity) -> None:
    await made.call(CloseSuccessful(processid=process, out=msgspec.Raw(b"[1]")), by)


async def assign(made: World, by: Identity, timeout: int = 1) -> str:
    message = AssignProcess(colonyname=COLONY, timeout=timeout)
    return (await made.process(message, by)).processid


# -- work that is under way (W15)


@virtual
async def test_w15_the_new_id_goes_on_with_what_the_old_one_began() -> None:
    async with world() as made:
        await made.populate()
        await made.employ()
        running = made.running
        await change(made, ADA, NEW)
        for message in (
            SetOutput(processid=running, out=msgspec.Raw(b"[0]")),
            attribute_of(running, "step", "2"),
            AddLog(processid=running, message="going on"),
            CloseSuccessful(processid=running, out=msgspec.Raw(b"[1]")),
        ):
            assert (await made.refuse(message, ADA)).failure.code == "access_denied"
            assert (await made.refuse(message, BEN)).failure.code == "access_denied"
            await made.call(message, NEW)
        process = await made.get("uma", running)
        assert (process.state, process.assignedexecutorid) == (State.SUCCESS, ADA.id)
        late = CloseFailed(processid=running, errors=[])
        assert (await made.refuse(late, NEW)).failure.code == "conflict"
        assert (await made.refuse(late, BEN)).failure.code == "access_denied"


@virtual
async def test_w15_work_of_an_old_id_is_given_back_by_the_new_one() -> None:
    async with world() as made:
        await made.populate()
        await made.employ()
        await change(made, ADA, NEW)
        assert (await made.refuse(ReleaseProcess(processid=made.running), ADA)).failure
        await made.call(ReleaseProcess(processid=made.running), NEW)
        assert (await made.get("uma", made.running)).state == State.WAITING


@virtual
async def test_w15_an_assign_parked_under_the_old_id_is_refused_at_once() -> None:
    async with world() as made:
        await made.populate()
        parked = asyncio.create_task(made.assign("ada", 100))
        await settle()
        before = asyncio.get_running_loop().time()
        await change(made, ADA, NEW)
        with pytest.raises(Refused) as refused:
            await parked
        assert refused.value.failure.code == "access_denied"
        assert asyncio.get_running_loop().time() == before
        process = await made.submit("uma")
        assert await assign(made, NEW) == process.processid


@virtual
async def test_w15_a_process_on_its_way_to_the_old_id_is_not_lost() -> None:
    async with world() as made:
        await made.populate()
        parked = asyncio.create_task(made.answer(AssignProcess(colonyname=COLONY, timeout=9), ADA))
        await settle()
        process, _ = await asyncio.gather(made.submit("uma"), change(made, ADA, NEW))
        if (await parked).status == 200:
            await close(made, process.processid, NEW)
        else:
            assert await assign(made, NEW) == process.processid


@virtual
async def test_w15_what_the_old_id_may_never_have_seen_is_given_to_the_new_one() -> None:
    async with MemoryStore() as store:
        async with crashing(store) as made:
            await made.found("ada")
            await made.enrol("uma")
            process = await made.submit("uma")
            await made.assign("ada")
        async with world(store) as made:
            await change(made, ADA, NEW)
            assert await assign(made, NEW) == process.processid
            await close(made, process.processid, NEW)


@virtual
async def test_w15_removal_frees_what_runs_under_former_ids() -> None:
    async with world() as made:
        await made.found("ada", "ben")
        await made.enrol("uma")
        process = await made.submit("uma")
        await made.assign("ada")
        await change(made, ADA, NEW)
        await change(made, NEW, key("newer"))
        await made.call(RemoveExecutor(colonyname=COLONY, executorname="ada"), COLONY_OWNER)
        assert await assign(made, BEN) == process.processid


@virtual
async def test_w15_another_key_under_a_known_name_inherits_no_work() -> None:
    async with world(may_reregister=True) as made:
        await made.found("ada", "ben")
        await made.enrol("uma")
        process = await made.submit("uma")
        await made.assign("ada")
        await change(made, ADA, NEW)
        wanted = Executor(
            executorid=key("machine 2").id,
            executortype=TYPE,
            executorname="ada",
            colonyname=COLONY,
        )
        await made.call(AddExecutor(executor=wanted), COLONY_OWNER)
        await made.call(ApproveExecutor(colonyname=COLONY, executorname="ada"), COLONY_OWNER)
        for by in (ADA, NEW, key("machine 2")):
            with pytest.raises(Refused):
                await close(made, process.processid, by)
        assert await assign(made, BEN) == process.processid
        await made.enrol("new")  # whose id is free again
        await made.enrol("ada")  # and this former one


@virtual
async def test_w15_who_works_under_a_former_id_is_not_taken_for_stale() -> None:
    async with world(stale_s=60.0, presence_every_s=10.0) as made:
        await made.found("ada")
        await made.enrol("uma")
        process = await made.submit("uma")
        await made.assign("ada")
        await change(made, ADA, NEW)
        await asyncio.sleep(600)
        await close(made, process.processid, NEW)


@virtual
async def test_w15_no_other_member_takes_a_former_id() -> None:
    async with world() as made:
        await made.populate()
        await change(made, ADA, NEW)
        for message, by in (
            (ChangeExecutorId(colonyname=COLONY, executorid=ADA.id), BEN),
            (ChangeUserId(colonyname=COLONY, userid=ADA.id), UMA),
            (AddUser(user=User(colonyname=COLONY, userid=ADA.id, name="a")), COLONY_OWNER),
        ):
            assert (await made.refuse(message, by)).failure.code == "exists"


@virtual
async def test_w15_the_oldest_former_id_falls_out_when_nothing_runs_under_it() -> None:
    async with world() as made:
        await made.found("ada")
        await made.enrol("uma")
        process = await made.submit("uma")
        await made.assign("ada")
        chain = [ADA, *(key(f"ada {n}") for n in range(1, MAX_FORMER + 2))]
        for old, new in pairwise(chain[: MAX_FORMER + 1]):
            await change(made, old, new)
        last = chain[MAX_FORMER]
        message = ChangeExecutorId(colonyname=COLONY, executorid=chain[-1].id)
        failure = (await made.refuse(message, last)).failure
        assert (failure.status, failure.code) == (409, "conflict")
        assert process.processid in failure.message
        await close(made, process.processid, last)
        await change(made, last, chain[-1])
        await made.enrol("ada")  # whose id is free again
        assert len(made.colony.former) == MAX_FORMER


@virtual
async def test_w15_statistics_of_functions_go_on_counting() -> None:
    async with MemoryStore() as store:
        async with crashing(store, tallies_every_s=1e6) as made:
            await made.found("ada")
            await made.enrol("uma")
            await made.call(function_of("ada"), ADA)
            first, second = await made.submit("uma"), await made.submit("uma")
            await made.assign("ada")
            await made.assign("ada")
            await made.close("ada", first.processid)
            await change(made, ADA, NEW)
            await close(made, second.processid, NEW)
            assert await _count(made) == 2
        async with world(store) as made:
            assert await _count(made) == 2


async def _count(made: World) -> int:
    return (await made.call(GetFunctions(colonyname=COLONY), UMA))[0]["counter"]


# -- nothing leaks (P9)


@virtual
async def test_p9_a_thousand_changes_leave_as_many_keys_as_a_few() -> None:
    async with world() as made:
        await made.found("ada")
        holders = [ADA, key("a"), key("b"), *(key(f"c{n}") for n in range(MAX_FORMER))]
        sizes: list[tuple[int, ...]] = []
        now = ADA
        for n in range(1, 1001):
            new = holders[n % len(holders)] if n % 2 else key(f"once {n}")
            if new.id != now.id:
                await change(made, now, new)
            now = new
            if n in (50, 1000):
                sizes.append(await _size(made))
        assert sizes[0] == sizes[1]


async def _size(made: World) -> tuple[int, ...]:
    stored = [key for key in await made.dump() if not key.startswith(keys.CHANGES)]
    view, colony = made.rooms.view, made.colony
    return (
        len(stored),
        len(colony.members),
        len(colony.former),
        len(colony.executors),
        len(view._graves),
        len(view._own),
        len(made.rooms.hand_over._redelivery),
        len(made.rooms.hand_over._rooms),
    )
